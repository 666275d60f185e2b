"""The running emulator: the API and the data plane on one loopback port, in a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.applications import Starlette

from launcher.emulators.common.front import RequestRecord
from launcher.emulators.common.loopback import Loopback, World
from launcher.emulators.deepinfra.account import Account, Snapshot
from launcher.emulators.deepinfra.config import Config
from launcher.emulators.deepinfra.control import Control
from launcher.emulators.deepinfra.instance import Simulation
from launcher.emulators.deepinfra.ledger import Meter


class DeepInfraEmulator(Loopback):
    """`with DeepInfraEmulator(config) as emulator: emulator.url`.

    `simulations`: how to simulate instances, by patterns of their images or weights, instead of running a server.
    """

    def __init__(
        self, config: Config | None = None, *, port: int = 0, simulations: Mapping[str, Simulation] | None = None
    ) -> None:
        self.config = config or Config()
        super().__init__("deepinfra", port=port, ports=1, root=self.config.root, tick=self.config.timing.tick)
        self._simulations = simulations or {}
        self._account: Account
        self._control: Control

    @property
    def url(self) -> str:
        """Base URL of the API: what DEEPINFRA_BASE_URL is set to."""
        return self._address()

    @property
    def openai_url(self) -> str:
        """Base URL for OpenAI's clients."""
        return f"{self.url}/v1/openai"

    @property
    def key(self) -> str:
        """A key that opens the account."""
        return self.config.keys[0]

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """All requests so far but those for inference."""
        return tuple(self._control.requests)

    @property
    def calls(self) -> tuple[RequestRecord, ...]:
        """All requests for inference so far."""
        return tuple(self._control.calls)

    def state(self) -> Snapshot:
        """Every deployment that was ever created, with the states it went through."""
        return self._in_loop(self._account.snapshot)

    def meter(self) -> Meter:
        """What it would have cost so far."""
        return self._in_loop(self._account.ledger.meter)

    def _open(self) -> tuple[World, Sequence[Starlette]]:
        self._account = Account(self.config, self.clock, self._root, self._simulations)
        self._control = Control(self._account, self._disconnect)
        return self._account, (self._control.application(),)

    async def _release(self) -> None:
        await self._control.inference.close()
