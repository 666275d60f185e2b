"""The front of a control plane: the log of requests, and the faults of routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from launcher.emulators.common.clock import Clock
from launcher.emulators.common.faults import FaultBook, LateEffect, LoseAnswer, SlowAnswer

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
HOP_BY_HOP = {
    "connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
"""Headers that are between two neighbours only."""

Disconnect = Callable[[Request], None]
"""Closes the connection of a request at once."""


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request. `path` below the base of the control plane, without the query; `time` in seconds since 1970.

    `status` is what was or would have been answered; `lost`: the connection was closed instead.
    """

    method: str
    path: str
    query: str
    time: float
    status: int
    lost: bool = False


class Front:
    """Stands between requests and what answers them."""

    def __init__(self, clock: Clock, faults: FaultBook, disconnect: Disconnect) -> None:
        self.requests: list[RequestRecord] = []
        self._clock = clock
        self._faults = faults
        self._disconnect = disconnect

    async def respond(
        self, request: Request, path: str, resource: str, answer: Callable[[], Awaitable[Response]]
    ) -> Response:
        """The answer, after the faults of this route. `resource` is what faults call what the request is about."""
        time = self._clock.now()
        route = f"{request.method} {path}"
        await self._hold(resource, route)
        response = await answer()
        lost = response.status_code < 400 and self._faults.pick(LoseAnswer, resource, route) is not None
        self.requests.append(
            RequestRecord(
                method=request.method,
                path=path,
                query=request.url.query,
                time=time,
                status=response.status_code,
                lost=lost,
            )
        )
        await self._delay(resource, route)
        if lost:
            self._disconnect(request)
        return response

    async def _hold(self, resource: str, route: str) -> None:
        if (late := self._faults.pick(LateEffect, resource, route)) is not None:
            await asyncio.sleep(late.seconds)

    async def _delay(self, resource: str, route: str) -> None:
        if (slow := self._faults.pick(SlowAnswer, resource, route)) is not None:
            await asyncio.sleep(slow.seconds)


def bearer(header: str) -> str | None:
    """The token of an Authorization header."""
    kind, _, value = header.partition(" ")
    return value.strip() if kind.lower() == "bearer" else None
