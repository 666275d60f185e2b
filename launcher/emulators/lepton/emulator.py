"""The running emulator: both planes on loopback ports, in a thread of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.applications import Starlette

from launcher.emulators.common.front import RequestRecord
from launcher.emulators.common.loopback import Loopback, World
from launcher.emulators.lepton.config import Config
from launcher.emulators.lepton.control import Control, base_path
from launcher.emulators.lepton.gateway import Gateway
from launcher.emulators.lepton.ledger import Meter
from launcher.emulators.lepton.simulated import Simulation
from launcher.emulators.lepton.workspace import Snapshot, Workspace


class LeptonEmulator(Loopback):
    """`with LeptonEmulator(config) as emulator: emulator.url`.

    `port` is that of the control plane. `simulations`: how to simulate containers, by patterns of their images, instead
    of running them.
    """

    def __init__(
        self, config: Config | None = None, *, port: int = 0, simulations: Mapping[str, Simulation] | None = None
    ) -> None:
        self.config = config or Config()
        super().__init__("lepton", port=port, ports=2, root=self.config.root, tick=self.config.timing.tick)
        self._simulations = simulations or {}
        self._workspace: Workspace
        self._gateway: Gateway
        self._control: Control

    @property
    def url(self) -> str:
        """Base URL of the workspace's control plane."""
        return f"{self._address()}{base_path(self.config)}"

    @property
    def data_plane(self) -> str:
        """Base URL of all endpoints; one endpoint's is `{data_plane}/{workspace}-{name}`."""
        return self._address(1)

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """All requests to the control plane so far."""
        return tuple(self._control.requests)

    def state(self) -> Snapshot:
        """Everything that was ever created, with the states it went through."""
        return self._in_loop(self._workspace.snapshot)

    def meter(self) -> Meter:
        """What it would have cost so far."""
        return self._in_loop(self._workspace.ledger.meter)

    def volume(self, source: str = "node-nfs:lepton-shared-fs") -> Path:
        """Folder of a volume, by the `from` of a mount."""
        folder = self._workspace.translator.volume(source)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def approve(self, name: str) -> None:
        """Approve an endpoint whose spec requires it. Raises ApiError where it does not exist."""

        def give() -> None:
            self._workspace.endpoint(name).approved = True

        self._in_loop(give)

    def _open(self) -> tuple[World, Sequence[Starlette]]:
        self._workspace = Workspace(self.config, self.clock, self._root, self._simulations)
        self._gateway = Gateway(self._workspace)
        self._control = Control(self._workspace, self.data_plane, self._disconnect)
        return self._workspace, (self._control.application(), self._gateway.application())

    async def _release(self) -> None:
        await self._gateway.close()
