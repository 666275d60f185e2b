"""Removes what carries our mark on one platform, and believes that it is gone only when looks show nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from launcher.config.places import AnyPlace
from launcher.config.pricing import Pricing
from launcher.errors import PlatformError, PreflightError
from launcher.platforms import open_platform
from launcher.platforms.base import Leftover, Platform

FIRST_PAUSE, LONGEST_PAUSE, LONGER = 0.2, 5.0, 1.5
"""Seconds between two looks, and by how much they grow."""
ASK_AGAIN = 10.0
"""Seconds after which the removal of something that is still there is asked for again."""
EMPTY_LOOKS = 2
"""Looks in a row that must show nothing where there was something: a list may be a moment behind."""
_LAST = ("network", "storage")
"""Kinds that endpoints and jobs use, so that they go after these."""


@asynccontextmanager
async def opened(places: Iterable[AnyPlace], pricing: Pricing | None = None) -> AsyncIterator[list[Platform]]:
    """The platforms of some places. Raises PreflightError for one that has no credentials."""
    platforms: list[Platform] = []
    try:
        for place in places:
            platforms.append(open_platform(place, pricing))
        yield platforms
    finally:
        for platform in platforms:
            await platform.close()


@dataclass(frozen=True, kw_only=True)
class Cleared:
    """What became of what was wanted gone on one platform."""

    platform: str
    removed: tuple[Leftover, ...] = ()
    """Looks show that it is gone."""
    left: tuple[Leftover, ...] = ()
    """It was still there at the last look."""
    refusals: tuple[str, ...] = ()
    """What the platform last said to requests to remove what is left."""
    unknown: str = ""
    """Why the platform could not be asked (any more); empty if it could."""
    unseen: tuple[str, ...] = ()
    """What nobody can see from here."""

    @property
    def usd(self) -> float | None:
        """What the removed things have cost by the platform's meter; None where it has told nothing."""
        told = [left.usd for left in self.removed if left.usd is not None]
        return sum(told) if told else None


@dataclass(kw_only=True)
class Removal:
    """Removes what `wanted` says from one platform. Times are seconds.

    `grace`: so long after the youngest creation, or after `last_sign` (seconds since the launcher's last sign of life),
    more may still appear that was asked for before.
    """

    platform: Platform
    wanted: Callable[[Leftover], bool]
    invocation: str = ""
    timeout: float = 300.0
    grace: float = 0.0
    last_sign: float | None = None
    say: Callable[[str], None] = lambda _: None
    """Told once when nothing is left to see and the grace is waited for."""
    _known: dict[str, Leftover] = field(default_factory=dict)
    _present: dict[str, Leftover] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)
    _refusals: dict[str, str] = field(default_factory=dict)
    _quiet_until: float = 0.0
    _empty_looks: int = 0
    _has_said: bool = False

    async def run(self) -> Cleared:
        """Until everything is gone, the time is over, or the platform cannot be asked."""
        deadline = _now() + self.timeout
        if self.last_sign is not None:
            self._quiet_until = _now() + self.grace - self.last_sign
        pause = FIRST_PAUSE
        try:
            unseen = await self.platform.unseen()
            while not await self._step() and _now() < deadline:
                await asyncio.sleep(pause)
                pause = min(pause * LONGER, LONGEST_PAUSE)
        except (PlatformError, PreflightError) as error:
            return self._cleared(unknown=str(error))
        return self._cleared(unseen=unseen)

    async def _step(self) -> bool:
        """Look, ask for what has to be asked for; whether nothing is left to do."""
        found = await self.platform.sweep(self.invocation)
        self._present = {_key(left): left for left in found if self.wanted(left)}
        for key, left in self._present.items():
            if key not in self._known:
                self._note_age(left)
            self._known[key] = _with_last_cost(left, self._known.get(key))
        self._empty_looks = 0 if self._waited_for() else self._empty_looks + 1
        if self._empty_looks >= (EMPTY_LOOKS if self._known else 1):
            if _now() >= self._quiet_until:
                return True
            self._say_grace()
        await asyncio.gather(*(self._ask(key, left) for key, left in self._due()))
        return False

    def _say_grace(self) -> None:
        seconds = round(self._quiet_until - _now())
        if not self._has_said and seconds >= 1:
            where = f"{self.invocation}: {self.platform.name}: "
            self.say(f"{where}looking again for {seconds} s: what was asked for last may still appear")
            self._has_said = True

    def _note_age(self, left: Leftover) -> None:
        if left.kind not in _LAST and left.age is not None:
            self._quiet_until = max(self._quiet_until, _now() + self.grace - left.age)

    def _waited_for(self) -> list[Leftover]:
        return [left for left in self._present.values() if not left.is_record]

    def _due(self) -> list[tuple[str, Leftover]]:
        is_in_use = any(left.kind not in _LAST for left in self._waited_for())
        return [
            (key, left)
            for key, left in self._present.items()
            if not (is_in_use and left.kind in _LAST) and _now() - self._asked.get(key, -ASK_AGAIN) >= ASK_AGAIN
        ]

    async def _ask(self, key: str, left: Leftover) -> None:
        try:
            await self.platform.remove(left)
        except PlatformError as error:
            self._refusals[key] = str(error)
            return  # asked again at the next look
        self._refusals.pop(key, None)
        self._asked[key] = _now()

    def _cleared(self, *, unknown: str = "", unseen: list[str] | None = None) -> Cleared:
        left = self._waited_for()
        return Cleared(
            platform=self.platform.name,
            removed=tuple(thing for key, thing in self._known.items() if key not in self._present),
            left=tuple(left),
            refusals=tuple(dict.fromkeys(self._refusals[key] for key in map(_key, left) if key in self._refusals)),
            unknown=unknown,
            unseen=tuple(unseen or ()),
        )


def _with_last_cost(left: Leftover, before: Leftover | None) -> Leftover:
    """A meter may fall silent, or go back to zero, while its thing is being deleted: what it told last counts."""
    if before is None or before.usd is None or (left.usd or 0.0) >= before.usd:
        return left
    return replace(left, usd=before.usd)


def _key(left: Leftover) -> str:
    return f"{left.kind}/{left.id or left.name}"


def _now() -> float:
    return asyncio.get_running_loop().time()
