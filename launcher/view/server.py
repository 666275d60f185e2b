"""The server of the pages, on loopback, until somebody ends it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from launcher.errors import ConfigError
from launcher.view.app import application

PATIENCE = 3
"""Seconds that answers under way may take once the server ends."""


class _Server(uvicorn.Server):
    """Leaves signals to us, as uvicorn would raise them again after its end, and says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(journal: Path, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is told the address once it answers.

    Raises ConfigError for a host that is not loopback, and for a port that cannot be had.
    """
    name = loopback(host)
    with _listening(name, port) as listener:
        asyncio.run(_serve(journal, name, listener, ready))


def loopback(host: str) -> str:
    """The address that a name of this machine's loopback means. Raises ConfigError for any other."""
    bare = host.removeprefix("[").removesuffix("]")
    if bare == "localhost":
        return "127.0.0.1"
    try:
        if ip_address(bare).is_loopback and "%" not in bare:
            return bare
    except ValueError:
        pass
    raise ConfigError(
        f"--host {host}: is no loopback address; give 127.0.0.1, ::1 or localhost, and come from another "
        "machine by ssh -L"
    )


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            raise ConfigError(f"--port {port}: cannot listen on {host}: {error.strerror}; leave --port out") from None
        yield listener


async def _serve(journal: Path, host: str, listener: socket.socket, ready: Callable[[str], None]) -> None:
    port, token = listener.getsockname()[1], secrets.token_urlsafe(32)
    names = {"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host}
    app = application(journal, token=token, hosts={f"{name}:{port}" for name in names}, cookie=f"nv-eval-view-{port}")
    config = uvicorn.Config(
        app, lifespan="on", log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=PATIENCE
    )
    shown = f"[{host}]" if ":" in host else host
    server = _Server(config, lambda: ready(f"http://{shown}:{port}/?token={token}"))
    loop, ending = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def end() -> None:
        ending.add(loop.create_task(app.state.desk.watcher.close()))
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    await server.serve(sockets=[listener])
