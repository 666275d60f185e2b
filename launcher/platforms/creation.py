"""Creation that makes one thing, whatever happens to the request or its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from launcher.errors import PlatformError
from launcher.platforms.http import RequestFailed

T = TypeVar("T")

PATIENCE = 180.0
"""Seconds that a name may stay taken by something that is being deleted, or a service may not answer."""
GRACE = (1.0, 2.0, 4.0)
"""Seconds between the looks for a thing that may have been created; absent after all of them, it was not."""
NAME_TAKEN = 409


async def create_once(
    create: Callable[[], Awaitable[T]],
    read_back: Callable[[], Awaitable[T | None]],
    *,
    describe: str,
    is_ours: Callable[[T], bool],
    is_leaving: Callable[[T], bool],
    waits_for_name: bool = True,
) -> T:
    """Create a thing, or adopt the one that an earlier request of ours made.

    `describe`: service and thing, for errors. `waits_for_name`: a name that is taken though nothing is seen under it
    gets free soon, so that it is asked for again; without, only a request that was not answered can have taken it.

    Raises PlatformError if the service refuses, if the name belongs to somebody else, or if nobody can say in time
    whether it exists; in the last case `maybe_done` of the RequestFailed is true.
    """
    clock = asyncio.get_running_loop()
    deadline = clock.time() + PATIENCE
    may_be_ours = waits_for_name
    while True:
        try:
            return await create()
        except RequestFailed as error:
            if not error.maybe_done and error.status != NAME_TAKEN:
                raise
            refusal = error
        may_be_ours = may_be_ours or refusal.maybe_done  # who takes the name later is not seen yet
        is_taken = refusal.status == NAME_TAKEN
        found = await _look(read_back, 1 if is_taken and waits_for_name else len(GRACE), refusal, deadline)
        if found is None and is_taken and not may_be_ours:
            raise refusal
        if found is not None and not is_ours(found):
            raise PlatformError(f"{describe} exists already and is not of this invocation") from refusal
        if found is not None and not is_leaving(found):
            return found
        if clock.time() > deadline:
            raise refusal
        await asyncio.sleep(GRACE[0])


async def _look(
    read_back: Callable[[], Awaitable[T | None]], looks: int, refusal: RequestFailed, deadline: float
) -> T | None:
    """What is there under the name; looks again for a while before it believes that nothing is.

    Raises `refusal` if nobody can say until the deadline: to create again, blindly, could make a second one.
    """
    absent = 0
    while True:
        try:
            found = await read_back()
        except RequestFailed:
            if asyncio.get_running_loop().time() > deadline:
                raise refusal from None
        else:
            absent += 1
            if found is not None or absent == looks:
                return found
        await asyncio.sleep(GRACE[min(absent, len(GRACE)) - 1])
