"""The running emulator: both planes on loopback ports, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from launcher.emulators.lepton.clock import Clock
from launcher.emulators.lepton.config import Config
from launcher.emulators.lepton.container import SAFE_ROOT
from launcher.emulators.lepton.control import Control, RequestRecord, base_path
from launcher.emulators.lepton.faults import Fault
from launcher.emulators.lepton.gateway import Gateway
from launcher.emulators.lepton.ledger import Meter
from launcher.emulators.lepton.simulated import Simulation
from launcher.emulators.lepton.workspace import Snapshot, Workspace
from launcher.errors import ConfigError, PlatformError
from launcher.platforms.local.ports import HOST

PATIENCE = 10.0
"""Seconds for the start, for the end, and for a call into the thread."""
POLL = 0.02
"""Seconds between two looks at processes that are ending."""

T = TypeVar("T")


class LeptonEmulator:
    """`with LeptonEmulator(config) as emulator: emulator.url`, or `async with`. Leaving ends every process it started.

    All processes also die with the one that runs the emulator, even at SIGKILL. `port` is that of the control plane;
    0 takes a free one. `simulations`: how to simulate containers, by patterns of their images, instead of running them.
    Raises ConfigError for a root that shells would trip over, PlatformError for a port in use.
    """

    def __init__(
        self, config: Config | None = None, *, port: int = 0, simulations: Mapping[str, Simulation] | None = None
    ) -> None:
        self.config = config or Config()
        self._simulations = simulations or {}
        self.clock = Clock()
        self._port = port
        self._started = threading.Event()
        self._is_running = False
        self._root: Path
        self._sockets: tuple[socket.socket, socket.socket]
        self._data_plane: str
        self._servers: list[uvicorn.Server]
        self._thread: threading.Thread
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._workspace: Workspace
        self._control: Control

    @property
    def url(self) -> str:
        """Base URL of the workspace's control plane."""
        return f"http://{HOST}:{self._port}{base_path(self.config)}"

    @property
    def data_plane(self) -> str:
        """Base URL of all endpoints; one endpoint's is `{data_plane}/{workspace}-{name}`."""
        return self._data_plane

    @property
    def root(self) -> Path:
        """Folder of `volumes/` and `replicas/`."""
        return self._root

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

    def advance(self, seconds: float) -> None:
        """Move the clock forward and let that time pass for everything."""
        self.clock.advance(seconds)
        self._in_loop(self._workspace.tick)

    def approve(self, name: str) -> None:
        """Approve an endpoint whose spec requires it. Raises ApiError where it does not exist."""

        def give() -> None:
            self._workspace.endpoint(name).approved = True

        self._in_loop(give)

    def inject(self, *faults: Fault) -> None:
        """Add faults from now on."""
        self._in_loop(lambda: self._workspace.faults.add(faults))

    def __enter__(self) -> LeptonEmulator:
        self._sockets = self._bind()
        try:
            self._root = self._make_root()
        except ConfigError:
            for listener in self._sockets:
                listener.close()
            raise
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="lepton", daemon=True)
        self._thread.start()
        if not self._started.wait(PATIENCE) or not self._is_running:
            raise PlatformError("the emulator did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self.config.root is None:
            shutil.rmtree(self._root, ignore_errors=True)

    async def __aenter__(self) -> LeptonEmulator:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def _make_root(self) -> Path:
        if self.config.root is None:
            return Path(tempfile.mkdtemp(prefix="nv-eval-lepton-"))
        root = Path(self.config.root).absolute()
        if not SAFE_ROOT.fullmatch(str(root)):
            raise ConfigError(f"root: {root} holds characters that a shell minds; choose another folder")
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"root: cannot make {root}: {error.strerror}; choose another folder") from None
        return root

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        try:
            control = _listen(self._port)
        except OSError as error:
            raise PlatformError(f"cannot listen on {HOST}:{self._port}: {error.strerror}") from None
        data = _listen(0)
        self._port = control.getsockname()[1]
        self._data_plane = f"http://{HOST}:{data.getsockname()[1]}"
        return control, data

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._workspace = Workspace(self.config, self.clock, self._root, self._simulations)
        gateway = Gateway(self._workspace)
        self._control = Control(self._workspace, self.data_plane, self._disconnect)
        applications = (self._control.application(), gateway.application())
        self._servers = [uvicorn.Server(_uvicorn_config(application)) for application in applications]
        serving = [
            asyncio.create_task(server.serve(sockets=[listener]))
            for server, listener in zip(self._servers, self._sockets, strict=True)
        ]
        self._is_running = True
        self._started.set()
        try:
            await self._tick_until_stopped()
        finally:
            await self._end_processes()
            for server in self._servers:
                server.should_exit = True
            await asyncio.gather(*serving)
            await gateway.close()

    async def _tick_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._workspace.tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self.config.timing.tick)

    async def _end_processes(self) -> None:
        self._workspace.kill()
        for _ in range(int(PATIENCE / POLL)):
            if not self._workspace.has_processes():
                break
            await asyncio.sleep(POLL)
        self._workspace.close()

    def _disconnect(self, request: Request) -> None:
        for connection in _connections(self._servers[0]):
            if request.client and connection.client == tuple(request.client):
                connection.transport.abort()

    def _in_loop(self, function: Callable[[], T]) -> T:
        """The result of a function that runs in the emulator's thread, where nothing else runs meanwhile."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE)


def _listen(port: int) -> socket.socket:
    """A listening socket. asyncio turns off Nagle's algorithm only for sockets that name their protocol: without that
    every second answer on a connection is 40 ms late."""
    listener = socket.create_server((HOST, port), backlog=1024)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _connections(server: uvicorn.Server) -> Iterator[H11Protocol]:
    for connection in server.server_state.connections:
        if isinstance(connection, H11Protocol):
            yield connection


def _uvicorn_config(application: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=H11Protocol,
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        ws="none",
        timeout_keep_alive=600,
        timeout_graceful_shutdown=0,
    )
