"""One instance of a deployment: a process, or a simulated one, that is started and watched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from starlette.types import ASGIApp

from launcher.emulators.common import canned
from launcher.emulators.common.clock import Clock
from launcher.emulators.common.faults import FaultBook
from launcher.emulators.common.simulated import Script, SimulatedUnit
from launcher.emulators.deepinfra.config import Config, Server
from launcher.emulators.deepinfra.ledger import Ledger, Rent
from launcher.platforms.local import ports, supervised
from launcher.platforms.local.supervised import Mark, Supervised
from launcher.platforms.local.unit import Ending

HEALTH = "/health"
"""Path that tells whether a server is ready: it is unless it answers 503, as servers do while they load."""
PROBE_TIME = 1.0
"""Seconds that it has to answer."""
LOADING = 503


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What an instance runs. `model` is the name it answers to; `weights` a repository or a base model, or empty."""

    deploy_id: str
    model: str
    weights: str
    image: str
    args: tuple[str, ...]
    token: str | None = field(default=None, repr=False)


Simulation = Callable[[Launch], Script]
"""Decides what a simulated instance does. A script without an application answers like `canned`."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What instances need of the emulator. `owner` marks its processes."""

    config: Config
    clock: Clock
    faults: FaultBook
    ledger: Ledger
    root: Path
    owner: str
    simulation: Callable[[Launch], Simulation | None]
    server: Callable[[Launch], Server | None]
    has_room: Callable[[str, int], bool]
    """Whether an instance with so many GPUs of this type can be placed."""


class Instance:
    """One instance. It has its GPUs from the moment it is made, and costs money while it is open."""

    def __init__(self, machine: Machine, launch: Launch, id_: str, usd_per_hour: float) -> None:
        self.id = id_
        self.is_open = False
        self.port: int | None = None
        self._machine = machine
        self._launch = launch
        self._usd_per_hour = usd_per_hour
        self._unit: Supervised | SimulatedUnit | None = None
        self._rent: Rent | None = None
        self._probe: asyncio.Task[bool] | None = None

    @property
    def log(self) -> Path:
        """Everything that it prints."""
        return self._machine.root / "instances" / self.id / "output.log"

    @property
    def has_started(self) -> bool:
        """Whether it has a process."""
        return self._unit is not None

    @property
    def application(self) -> ASGIApp | None:
        """What answers its requests where it is simulated."""
        return (self._unit.script.application or canned.model) if isinstance(self._unit, SimulatedUnit) else None

    def start(self) -> None:
        """Start it. Raises PlatformError or OSError if this machine cannot."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        simulation = self._machine.simulation(self._launch)
        server = self._machine.server(self._launch)
        if simulation is not None or server is None:
            script = simulation(self._launch) if simulation is not None else Script()
            self._unit = SimulatedUnit(script, self._machine.clock, self.log)
        else:
            self._unit = self._execute(server)

    def look(self) -> Ending | None:
        """How it ended, once it has. It counts as running from when its server is ready."""
        ending = self._unit.look() if self._unit is not None else None
        if ending is not None:
            self._close_door()
        elif self._unit is not None and not self.is_open and self._rent is None and self._is_ready():
            self.is_open = True
            self._rent = self._machine.ledger.begin(self._launch.deploy_id, self._usd_per_hour)
        return ending

    def stop(self) -> None:
        """Ask it to end. From now on it costs nothing."""
        self._close_door()
        if self._unit is not None:
            self._unit.stop()

    def kill(self) -> None:
        """Ask for its end at once."""
        self._close_door()
        if self._unit is not None:
            self._unit.kill()

    def close(self) -> None:
        """Let go of its process; it ends at once."""
        if self._unit is not None:
            self._unit.close()

    def _close_door(self) -> None:
        self.is_open = False
        if self._rent is not None:
            self._rent.end()

    def _is_ready(self) -> bool:
        if isinstance(self._unit, SimulatedUnit):
            return self._unit.is_open
        if self._probe is None or (self._probe.done() and not self._probe.result()):
            self._probe = asyncio.create_task(_is_ready(f"http://{ports.HOST}:{self.port}{HEALTH}"))
        return self._probe.done() and self._probe.result()

    def _execute(self, server: Server) -> Supervised:
        with ports.reserve() as hold:
            self.port = hold.port
            command = supervised.Command(
                argv=tuple(word for given in server.argv for word in self._words(given)),
                env=self._environment(server),
                cwd=self.log.parent,
                log=self.log,
                grace=self._machine.config.timing.stop_grace,
            )
            return Supervised(Mark(invocation=self._machine.owner, name=self.id, kind="emulated"), command, hold)

    def _words(self, given: str) -> tuple[str, ...]:
        return self._launch.args if given == "{args}" else (self._fill(given),)

    def _fill(self, text: str) -> str:
        filled = text.replace("{port}", str(self.port)).replace("{model}", self._launch.model)
        return filled.replace("{weights}", self._launch.weights or self._launch.model)

    def _environment(self, server: Server) -> dict[str, str]:
        home = str(self.log.parent)
        shown = {name: os.environ[name] for name in self._machine.config.inherit if name in os.environ}
        token = {"HF_TOKEN": self._launch.token} if self._launch.token else {}
        own = {name: self._fill(value) for name, value in server.env.items()}
        return {**shown, "HOME": home, "TMPDIR": home, **token, **own}


async def _is_ready(url: str) -> bool:
    try:
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=PROBE_TIME) as http:  # noqa: S501 - loopback
            return (await http.get(url)).status_code != LOADING
    except httpx.TransportError:
        return False
