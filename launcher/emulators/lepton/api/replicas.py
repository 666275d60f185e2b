"""What endpoints and jobs answer about their replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from starlette.responses import Response, StreamingResponse

from launcher.emulators.common.clock import milliseconds
from launcher.emulators.lepton.errors import ApiError, Code, not_found
from launcher.emulators.lepton.replica import Replica
from launcher.emulators.lepton.wire import Json
from launcher.platforms.local.logfiles import POLL, Follower


def listing(replicas: Sequence[Replica]) -> list[Json]:
    """The list of replicas."""
    return [
        {
            "id": replica.id,
            "metadata": {"id": replica.id, "name": replica.id, "created_at": milliseconds(replica.created)},
            "status": {"public_ip": "", "node": {"name": "node-1", "id": "node-1"}, "domains": []},
        }
        for replica in replicas
    ]


def live_log(replicas: Sequence[Replica], id: str) -> Response:
    """What a replica has printed and prints until its process ends. Raises ApiError: 404, 412 before its start."""
    replica = next((replica for replica in replicas if replica.id == id), None)
    if replica is None:
        raise not_found("replica", id)
    if not replica.has_begun:
        raise ApiError(412, Code.INVALID, f"replica {id} is still initializing")
    return StreamingResponse(_follow(replica), media_type="text/plain; charset=utf-8")


async def _follow(replica: Replica) -> AsyncIterator[bytes]:
    follower = Follower(replica.log)
    is_over = False
    while not is_over:
        is_over = not replica.is_running
        if chunk := follower.read():
            yield chunk
        elif not is_over:
            await asyncio.sleep(POLL)
