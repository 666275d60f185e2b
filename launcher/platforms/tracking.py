"""Endpoints of one invocation in a cloud: made once, watched with one list for all, gone only when the service says so.

What is said here holds for every service; a platform adds its requests and its words.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from launcher.errors import PlatformError
from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.http import RequestFailed
from launcher.platforms.pace import FEW_PLACES, LISTS, Pace

T = TypeVar("T")
E = TypeVar("E", bound="Tracked[Any]")

APPEARS_WITHIN = 60.0
"""Seconds in which a thing whose creation was never answered may still come into being."""
ASK_AGAIN = 30.0
"""Seconds after which a deletion that does not show is asked for again."""
LIST_LAG = 10.0
"""Seconds that a list may be behind: an endpoint that nobody removed is not missed before."""
SETTLED = 3.0
"""Nothing changes while all endpoints serve, or are on their way out: their list may be so much rarer."""
EARLY, FURTHER, MOST_EARLY = 0.3, 3.0, 3
"""Where others wait for its place, what is being deleted is asked for by itself so many seconds after the request, then
so many times as long after it, so many times in all; whatever takes longer, the lists show."""
REMOVED_BY_OTHERS = "somebody else removed it"


@dataclass
class Tracked(ABC, Generic[T]):
    """What is known of one endpoint. Times are seconds of the loop's clock."""

    name: str
    begun: float
    known_at: float = 0.0
    seen: T | None = None
    maybe_until: float | None = None
    """Its creation was not answered: until then it may appear."""
    deletion_asked: float | None = None
    deletion_heard: bool = True
    """False: the service said that there is nothing to delete, which a service that is behind says, too."""
    early_looks: int = 0
    """How often it was asked for by itself since its deletion was asked for."""
    is_gone: bool = False
    """The service's own word, asked for by itself; taken back when it shows the thing again."""

    @property
    @abstractmethod
    def serves(self) -> bool:
        """Whether it can answer, as last seen."""

    @property
    def is_deleting(self) -> bool:
        """Whether the service shows that its deletion has begun."""
        return False

    @abstractmethod
    def resource(self) -> Resource:
        """It in the launcher's words."""

    @property
    def is_starting(self) -> bool:
        """Whether it exists, is wanted and does not serve yet, or no more."""
        return not self.is_gone and self.deletion_asked is None and self.seen is not None and not self.serves

    @property
    def is_settled(self) -> bool:
        """Whether nobody waits for a change of it: it serves, or it leaves."""
        return self.is_gone or self.deletion_asked is not None or self.serves

    def is_leaving(self, now: float) -> bool:
        """Whether its deletion was asked for, and has begun or may not have been seen to begin yet."""
        asked = self.deletion_asked
        if asked is None:
            return False
        if self.is_deleting or self.known_at <= asked:
            return True
        return self.deletion_heard and now - asked < ASK_AGAIN

    def may_appear(self, now: float) -> bool:
        """Whether its creation was asked for, and nobody knows yet what came of it."""
        return self.maybe_until is not None and now < self.maybe_until

    def is_missed(self, now: float) -> bool:
        """Whether a list that was asked for at `now` and does not show it should have."""
        if self.is_gone or self.may_appear(now):
            return False
        is_leaving = self.deletion_asked is not None and self.deletion_heard
        return is_leaving or now - self.known_at >= LIST_LAG

    def may_be_gone(self, now: float) -> bool:
        """Whether it is time to ask if it is gone, without waiting for a list that does not show it."""
        if self.deletion_asked is None or not self.deletion_heard or self.early_looks >= MOST_EARLY:
            return False
        return not self.is_gone and now - self.deletion_asked >= EARLY * FURTHER**self.early_looks

    def take(self, thing: T, now: float) -> None:
        """Note what the service shows."""
        if self.maybe_until is not None or self.is_gone:
            self.deletion_asked = None  # it was asked for before there was anything to delete, or had no effect
        self.seen, self.known_at, self.maybe_until, self.is_gone = thing, now, None, False

    def asked_to_go(self, now: float, *, heard: bool) -> None:
        """Note that deletion was asked for, and whether the service knew what it was asked for."""
        self.deletion_asked, self.deletion_heard, self.early_looks = now, heard, 0

    def exists(self) -> ResourceState | None:
        """Its state where that does not depend on the service's word for it."""
        if self.is_gone:
            return ResourceState.GONE
        if self.seen is None:
            return ResourceState.UNKNOWN
        return ResourceState.RUNNING if self.deletion_asked is not None else None  # it costs until it is gone


class Tracker(ABC, Generic[T, E]):
    """All endpoints of one invocation, by name."""

    def __init__(self, now: float, begun: float | None = None, *, places_are_few: bool = False) -> None:
        """`begun`: when the run began whose pace this is, if it is one of several that look together.

        `places_are_few`: others may wait for the place of one that leaves.
        """
        self._is_alone = begun is None or begun == now
        self._places_are_few = places_are_few
        self._pace = Pace(now if begun is None else begun, FEW_PLACES if places_are_few else LISTS)
        self._since = now
        self._tracked: dict[str, E] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._may_show_more_until = now + APPEARS_WITHIN

    # --- the service: all raise RequestFailed where it refuses or does not answer -------------------------------------

    @abstractmethod
    def _entry(self, name: str) -> E:
        """One that nothing is known of yet."""

    @abstractmethod
    async def _list(self) -> dict[str, T]:
        """Everything of this invocation, by name, with one request."""

    async def _listed(self, since: float) -> tuple[float, dict[str, T]]:  # noqa: ARG002  nobody else has asked
        """The same, and when it was asked for: not before `since`."""
        return loop_time(), await self._list()

    @abstractmethod
    async def _read(self, name: str) -> T | None:
        """One of this invocation; None is the service's word that there is no such thing."""

    @abstractmethod
    async def _ask_to_go(self, name: str) -> bool:
        """Ask for deletion; False if the service says that there is no such thing."""

    # --- the same for all ---------------------------------------------------------------------------------------------

    async def _make(self, name: str, create: Callable[[], Awaitable[T]]) -> Resource:
        """Create one, once. Raises PlatformError."""
        async with self._locks[name]:
            entry = self._tracked.get(name)
            if entry is None or entry.is_gone:
                entry = self._tracked[name] = self._entry(name)
                entry.maybe_until = math.inf
                await self._create(entry, create)
            return entry.resource()

    async def _create(self, entry: E, create: Callable[[], Awaitable[T]]) -> None:
        try:
            made = await create()
        except PlatformError as error:
            self._not_created(entry, certain=not (isinstance(error, RequestFailed) and error.maybe_done))
            raise
        except BaseException:  # cancelled, or a defect: the request may have left
            self._not_created(entry, certain=False)
            raise
        entry.take(made, loop_time())

    def _not_created(self, entry: E, *, certain: bool) -> None:
        """After a creation that failed: unless it certainly had no effect, the endpoint may still appear."""
        if certain:
            del self._tracked[entry.name]
        else:
            entry.maybe_until = loop_time() + APPEARS_WITHIN

    async def delete(self, name: str) -> None:
        """Ask for deletion; whatever the answer, only a look tells that it is gone. Raises RequestFailed."""
        entry, now = self._tracked.get(name), loop_time()
        if entry is not None and (entry.is_gone or entry.is_leaving(now)):
            return
        if entry is None:
            found = await self._read(name)
            if found is None:
                return
            entry = self._tracked.setdefault(name, self._entry(name))
            entry.take(found, now)
        entry.asked_to_go(now, heard=await self._ask_to_go(name))

    async def _look(self) -> bool:
        """Look at all endpoints if that is due; whether it was. Raises RequestFailed if the service cannot be asked."""
        now = loop_time()
        if self._places_are_few:
            await asyncio.gather(*(self._look_early(e) for e in self._tracked.values() if e.may_be_gone(now)))
        alive = [entry for entry in self._tracked.values() if not entry.is_gone]
        is_awaited = self._places_are_few and any(entry.deletion_asked is not None for entry in alive)
        slower = SETTLED if not is_awaited and all(entry.is_settled for entry in alive) else 1.0
        if self._is_alone:
            self._pace.count_from(self.oldest())
        leaving = leaving_since(alive)
        nothing_to_see = not alive and now > self._may_show_more_until  # until then: what an earlier launcher asked for
        if nothing_to_see or not self._pace.is_due(now, slower=slower, leaving_since=leaving):
            return False
        fresh = self._pace.fresh_after(now, slower=slower, leaving_since=leaving)
        asked, found = await self._listed(max(fresh, self._since))
        self._pace.asked(asked)
        for name, thing in found.items():
            entry = self._tracked.setdefault(name, self._entry(name))
            if not (entry.is_gone and asked < entry.known_at):  # its own route has said since that it is gone
                entry.take(thing, asked)
        await asyncio.gather(*(self._confirm(e) for e in alive if e.name not in found and e.is_missed(asked)))
        return True

    async def _look_early(self, entry: E) -> None:
        entry.early_looks += 1
        await self._confirm(entry)

    async def _confirm(self, entry: E) -> None:
        """A list without it is a hint; that its own route says that it is gone is the proof."""
        found = await self._read(entry.name)
        if found is None:
            entry.is_gone, entry.known_at = True, loop_time()
        else:
            entry.take(found, loop_time())

    def oldest(self) -> float:
        """When the oldest of those that are there was begun; the beginning of the run where there is none."""
        return min((entry.begun for entry in self._tracked.values() if not entry.is_gone), default=self._since)

    def known(self, name: str) -> bool:
        """Whether there is, or was, an endpoint of this name."""
        return name in self._tracked

    def is_over(self, name: str) -> bool:
        """Whether its log will not grow any more."""
        return self._tracked[name].is_gone

    def resources(self) -> dict[str, Resource]:
        """All endpoints in the launcher's words."""
        return {name: entry.resource() for name, entry in self._tracked.items()}


def loop_time() -> float:
    """Seconds of the loop's clock."""
    return asyncio.get_running_loop().time()


def leaving_since(alive: list[E]) -> float | None:
    """When the last deletion was asked for, if there is nothing that is not leaving."""
    asked = [entry.deletion_asked for entry in alive if entry.deletion_asked is not None]
    return max(asked) if asked and len(asked) == len(alive) else None
