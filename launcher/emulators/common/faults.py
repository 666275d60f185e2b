"""Faults that every emulator knows, and the book that decides when one strikes. The same seed gives the same faults."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeVar

from launcher.emulators.common.clock import After


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What all faults have in common: which occasions they hit."""

    resource: str = "*"
    """Name of the endpoint, the job (without its id suffix), the secret or the file, as a shell pattern."""
    skip: int = 0
    """Occasions to let pass first."""
    times: int | None = None
    """Occasions to hit after that; None: all."""
    probability: float = 1.0
    """Of hitting an occasion that is not excluded by the above."""
    lasts: float = math.inf
    """Seconds from its first hit after which it is over."""


@dataclass(frozen=True, kw_only=True)
class SlowDelete(Fault):
    """The resource stays in Deleting this long."""

    after: After = field(default_factory=After)


@dataclass(frozen=True, kw_only=True)
class LateListing(Fault):
    """Lists show the endpoint or job only so many seconds after its creation; its own route shows it at once."""

    seconds: float = 5.0


@dataclass(frozen=True, kw_only=True)
class RouteFault(Fault):
    """Hits one request. `route` is `METHOD /path` below the workspace, as a shell pattern: `POST /jobs`, `GET *`."""

    route: str = "*"


@dataclass(frozen=True, kw_only=True)
class Refuse(RouteFault):
    """Answer with this status and do nothing. `retry_after` in seconds becomes the header."""

    status: int = 503
    retry_after: int | None = None
    message: str = "try again later"


@dataclass(frozen=True, kw_only=True)
class LoseAnswer(RouteFault):
    """Do what was asked and close the connection without an answer."""


@dataclass(frozen=True, kw_only=True)
class SlowAnswer(RouteFault):
    """Do what was asked at once and answer after so many seconds."""

    seconds: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LateEffect(RouteFault):
    """Do what was asked only after so many seconds, also if the client is gone by then: a gateway that queues."""

    seconds: float = 1.0


F = TypeVar("F", bound=Fault)


class _Count:
    """One fault, how many occasions it has seen, and its own dice."""

    def __init__(self, fault: Fault, seed: str) -> None:
        self.fault = fault
        self._dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._seen = self._hits = 0
        self._ends = math.inf

    def hits(self, now: float) -> bool:
        """Count an occasion that matches; says whether the fault strikes."""
        self._seen += 1
        if self._seen <= self.fault.skip or self._dice.random() >= self.fault.probability:
            return False
        if now >= self._ends or (self.fault.times is not None and self._hits >= self.fault.times):
            return False
        if not self._hits:
            self._ends = now + self.fault.lasts
        self._hits += 1
        return True


class FaultBook:
    """All faults of one emulator. `now`: its clock, in seconds."""

    def __init__(self, faults: Sequence[Fault], seed: int, now: Callable[[], float] = time.time) -> None:
        self._seed = seed
        self._now = now
        self._counts: list[_Count] = []
        self.add(faults)

    def add(self, faults: Sequence[Fault]) -> None:
        """More faults, after those there are."""
        for fault in faults:
            self._counts.append(_Count(fault, f"{self._seed}/{len(self._counts)}"))

    def pick(self, kind: type[F], resource: str, route: str | None = None) -> F | None:
        """The first fault of this kind that strikes now. An occasion is counted for each that matches until then."""
        for count in self._counts:
            fault = count.fault
            if isinstance(fault, kind) and _matches(fault, resource, route) and count.hits(self._now()):
                return fault
        return None


def _matches(fault: Fault, resource: str, route: str | None) -> bool:
    if not fnmatchcase(resource, fault.resource):
        return False
    return route is None or (isinstance(fault, RouteFault) and fnmatchcase(route, fault.route))
