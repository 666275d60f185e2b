"""HTTP connections of which each serves one request at a time, the one that was used last first.

A pool of the HTTP client looks at all its connections for each request, and closes what is idle beyond its limit; a
fleet's thousand requests come in waves, and would pay for both. Here a wave leaves its connections open for the next.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import httpx

Lane: TypeAlias = httpx.AsyncBaseTransport


def one_connection(*, tls: bool) -> Callable[[], Lane]:
    """What makes transports of one connection each. `tls`: whether they are to reach a service by TLS."""
    verify = tls_settings(needed=tls)
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    return lambda: httpx.AsyncHTTPTransport(verify=verify, limits=limits)


def tls_settings(*, needed: bool) -> ssl.SSLContext:
    """Those of the HTTP client; where they are not needed, for they take a while to load, some that trust nobody."""
    return httpx.create_ssl_context() if needed else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Lanes(httpx.AsyncBaseTransport):
    """As many lanes as there are requests under way at once."""

    def __init__(self, make: Callable[[], Lane]) -> None:
        """`make` makes a lane; it is called where none is idle."""
        self._make = make
        self._idle: list[Lane] = []
        self._is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it on an idle lane, which is idle again when the answer's stream is closed."""
        lane = self._idle.pop() if self._idle else self._make()
        try:
            answer = await lane.handle_async_request(request)
        except BaseException:
            await self._take_back(lane)  # it has closed its connection, and makes another for the next request
            raise
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        answer.stream = _Lent(answer.stream, lambda: self._take_back(lane))
        return answer

    async def _take_back(self, lane: Lane) -> None:
        if self._is_closed:
            await lane.aclose()
        else:
            self._idle.append(lane)

    async def aclose(self) -> None:
        """Close what is idle; what is under way is closed when those who read it are done."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().aclose()


class _Lent(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, give_back: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._give_back: Callable[[], Awaitable[None]] | None = give_back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            give_back, self._give_back = self._give_back, None
            if give_back is not None:
                await give_back()
