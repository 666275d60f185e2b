"""The frame of an emulator: its applications on loopback ports, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from launcher.emulators.common.clock import Clock
from launcher.emulators.common.faults import Fault, FaultBook
from launcher.errors import ConfigError, PlatformError
from launcher.platforms.local.ports import HOST

SAFE_ROOT = re.compile(r"[\w./+@%:,-]+")
"""Roots that can be put into a shell command as they are."""
PATIENCE = 10.0
"""Seconds for the start, for the end, and for a call into the thread."""
POLL = 0.02
"""Seconds between two looks at processes that are ending."""

T = TypeVar("T")


class World(Protocol):
    """Everything that exists in an emulator. Nothing in it waits."""

    faults: FaultBook

    def tick(self) -> None:
        """Let time pass: processes are looked at, states advance."""

    def kill(self) -> None:
        """Ask for the end of every process at once."""

    def has_processes(self) -> bool:
        """Whether any process may be alive."""

    def close(self) -> None:
        """Let go of every process."""


class Loopback(ABC):
    """`with Emulator(config) as emulator`, or `async with`. Leaving ends every process it started.

    All processes also die with the one that runs the emulator, even at SIGKILL. `port` is that of the first
    application; 0 takes a free one. `root` is the folder of what it writes; None: a temporary one. `tick` is the
    time in seconds between two looks at everything. Raises ConfigError for a root that shells would trip over,
    PlatformError for a port in use.
    """

    def __init__(self, name: str, *, port: int, ports: int, root: str | None, tick: float) -> None:
        self.clock = Clock()
        self._name = name
        self._ports = [port, *[0] * (ports - 1)]
        self._wanted_root = root
        self._tick = tick
        self._started = threading.Event()
        self._is_running = False
        self._root: Path
        self._sockets: list[socket.socket]
        self._servers: list[uvicorn.Server]
        self._thread: threading.Thread
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._world: World

    @abstractmethod
    def _open(self) -> tuple[World, Sequence[Starlette]]:
        """What there is, and the application of each port. Called in the thread, in its loop."""

    @abstractmethod
    async def _release(self) -> None:
        """Let go of what `_open` opened."""

    @property
    def root(self) -> Path:
        """Folder of all that it writes."""
        return self._root

    def advance(self, seconds: float) -> None:
        """Move the clock forward and let that time pass for everything."""
        self.clock.advance(seconds)
        self._in_loop(self._world.tick)

    def inject(self, *faults: Fault) -> None:
        """Add faults from now on."""
        self._in_loop(lambda: self._world.faults.add(faults))

    def __enter__(self) -> Self:
        self._sockets = self._bind()
        try:
            self._root = self._make_root()
        except ConfigError:
            for listener in self._sockets:
                listener.close()
            raise
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name=self._name, daemon=True)
        self._thread.start()
        if not self._started.wait(PATIENCE) or not self._is_running:
            raise PlatformError("the emulator did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._wanted_root is None:
            shutil.rmtree(self._root, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def _address(self, index: int = 0) -> str:
        """Base URL of an application."""
        return f"http://{HOST}:{self._ports[index]}"

    def _make_root(self) -> Path:
        if self._wanted_root is None:
            return Path(tempfile.mkdtemp(prefix=f"nv-eval-{self._name}-"))
        root = Path(self._wanted_root).absolute()
        if not SAFE_ROOT.fullmatch(str(root)):
            raise ConfigError(f"root: {root} holds characters that a shell minds; choose another folder")
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"root: cannot make {root}: {error.strerror}; choose another folder") from None
        return root

    def _bind(self) -> list[socket.socket]:
        try:
            first = _listen(self._ports[0])
        except OSError as error:
            raise PlatformError(f"cannot listen on {HOST}:{self._ports[0]}: {error.strerror}") from None
        listeners = [first, *map(_listen, self._ports[1:])]
        self._ports = [listener.getsockname()[1] for listener in listeners]
        return listeners

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            self._world, applications = self._open()
            self._servers = [uvicorn.Server(_uvicorn_config(application)) for application in applications]
            self._is_running = True
        finally:
            self._started.set()
        serving = [
            asyncio.create_task(server.serve(sockets=[listener]))
            for server, listener in zip(self._servers, self._sockets, strict=True)
        ]
        try:
            await self._tick_until_stopped()
        finally:
            await self._end_processes()
            for server in self._servers:
                server.should_exit = True
            await asyncio.gather(*serving)
            await self._release()

    async def _tick_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._world.tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._tick)

    async def _end_processes(self) -> None:
        self._world.kill()
        for _ in range(int(PATIENCE / POLL)):
            if not self._world.has_processes():
                break
            await asyncio.sleep(POLL)
        self._world.close()

    def _disconnect(self, request: Request) -> None:
        """Close the connection of a request to the first application."""
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
        ws="wsproto" if find_spec("wsproto") else "none",
        timeout_keep_alive=600,
        timeout_graceful_shutdown=0,
    )
