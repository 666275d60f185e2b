"""One address for several servers: `balance.py HOST PORT HEALTH_PATH URL...`. Standard library only, one file.

It listens once all servers are healthy. Each connection goes to the server that has the fewest; one that refuses
connections is left out for a while, and when none is left the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Coroutine
from dataclasses import dataclass
from urllib.parse import urlsplit

CHUNK = 65536
POLL = 0.5
LEFT_OUT = 5.0
"""Seconds for which a server that refused a connection gets no other."""


@dataclass
class Backend:
    """One server. `refused_at` in seconds of the monotonic clock."""

    url: str
    connections: int = 0
    refused_at: float = float("-inf")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def is_healthy(self, path: str) -> bool:
        """Whether its health path answers 200. Blocks for a few seconds at most."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            return error.code in (401, 403)  # it is up, and asks for a key
        except OSError:
            return False

    def wait(self, path: str) -> None:
        """Return once it is healthy."""
        while not self.is_healthy(path):
            time.sleep(POLL)


class Balancer:
    """Hands connections to backends."""

    def __init__(self, backends: list[Backend]) -> None:
        self.backends = backends

    async def serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """One connection from its begin to its end."""
        with contextlib.closing(answers):
            chosen = await self._connect()
            if chosen is None:
                return
            backend, reader, writer = chosen
            try:
                with contextlib.closing(writer):
                    await _both(_copy(client, writer), _copy(reader, answers))
            finally:
                backend.connections -= 1

    async def _connect(self) -> tuple[Backend, asyncio.StreamReader, asyncio.StreamWriter] | None:
        now = time.monotonic()
        for backend in sorted(self.backends, key=lambda b: (now - b.refused_at < LEFT_OUT, b.connections)):
            backend.connections += 1
            try:
                reader, writer = await asyncio.open_connection(*backend.address)
            except OSError:
                backend.connections -= 1
                backend.refused_at = now
            else:
                return backend, reader, writer
        return None


async def _both(there: Coroutine[None, None, None], back: Coroutine[None, None, None]) -> None:
    """Until the answers have ended; what the client still sends then goes nowhere."""
    sending = asyncio.ensure_future(there)
    try:
        await back
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(CHUNK):
            target.write(chunk)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()


async def run(host: str, port: int, path: str, urls: list[str]) -> None:
    """Wait for the servers, then serve for ever."""
    backends = [Backend(url) for url in urls]
    for backend in backends:
        await asyncio.to_thread(backend.wait, path)
    server = await asyncio.start_server(Balancer(backends).serve, host, port)
    sys.stdout.write(f"{len(backends)} servers answer on {host}:{port}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
