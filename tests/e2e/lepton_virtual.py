"""The emulated workspace on a virtual clock, in one loop with the run: no socket, no thread, an hour in a second.

Everything is the real thing but the wire and the clock: the emulator's application, the platform with its own retry
policy, the orchestrator with its journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from starlette.requests import Request

from launcher.emulators.common.clock import Clock
from launcher.emulators.common.front import RequestRecord
from launcher.emulators.lepton import Config, Fault
from launcher.emulators.lepton.control import Control, base_path
from launcher.emulators.lepton.ledger import Meter
from launcher.emulators.lepton.simulated import Simulation
from launcher.emulators.lepton.workspace import Snapshot, Workspace
from launcher.platforms.http import RetryPolicy
from launcher.platforms.lepton.logs import SECOND
from tests.e2e.lepton import Bench

NUMBER = "x-test-number"


class LoopClock(Clock):
    """The loop's time as time of day."""

    def __init__(self) -> None:
        super().__init__()
        self._base = time.time() - asyncio.get_running_loop().time()

    def now(self) -> float:
        return self._base + asyncio.get_running_loop().time() + self._ahead


class Wire(httpx.AsyncBaseTransport):
    """Brings requests to the application, gives up on late answers, and loses those that it is told to lose."""

    def __init__(self, control: Control) -> None:
        self._asgi = httpx.ASGITransport(control.application())
        self._numbers = count()
        self.lost: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number = request.headers[NUMBER] = str(next(self._numbers))
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                answer = await self._asgi.handle_async_request(request)
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time", request=request) from None
        if number in self.lost:
            raise httpx.RemoteProtocolError("cut off", request=request)
        return answer


@dataclass
class VirtualEmulator:
    """Looks like a LeptonEmulator."""

    config: Config
    root: Path
    simulations: Mapping[str, Simulation]
    clock: LoopClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = LoopClock()
        self.workspace = Workspace(self.config, self.clock, self.root, self.simulations)
        self._control = Control(self.workspace, "http://endpoints.test", self._disconnect)
        self.wire = Wire(self._control)

    @property
    def url(self) -> str:
        return f"http://lepton.test{base_path(self.config)}"

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        return tuple(self._control.requests)

    def state(self) -> Snapshot:
        return self.workspace.snapshot()

    def meter(self) -> Meter:
        return self.workspace.ledger.meter()

    def open_charges(self) -> list[str]:
        """What costs money now."""
        return [charge.name for charge in self.workspace.ledger.open_charges()]

    def volume(self, source: str = "node-nfs:lepton-shared-fs") -> Path:
        folder = self.workspace.translator.volume(source)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def inject(self, *faults: Fault) -> None:
        self.workspace.faults.add(faults)

    async def tick(self) -> None:
        """Let time pass, for ever."""
        while True:
            self.workspace.tick()
            await asyncio.sleep(self.config.timing.tick)

    def _disconnect(self, request: Request) -> None:
        self.wire.lost.add(request.headers[NUMBER])


@contextlib.asynccontextmanager
async def virtual_bench(folder: Path, config: Config | None = None, **keys: Any) -> AsyncIterator[Bench]:
    """A running workspace; to be used in run_virtual. `keys` are fields of the Bench."""
    await asyncio.sleep(1)  # a clock that stands at zero is no clock
    simulations: dict[str, Simulation] = {}
    emulator = VirtualEmulator(config or Config(), folder / "emulator", simulations)
    bench = Bench(emulator, folder, transport=emulator.wire, policy=RetryPolicy(), **keys)
    simulations |= {"sim/*": bench.endpoint, "python*": bench.job}
    ticking = asyncio.create_task(emulator.tick())
    try:
        with patch("launcher.platforms.lepton.logs._now", lambda: int((emulator.clock.now() + 60) * SECOND)):
            yield bench
    finally:
        ticking.cancel()
