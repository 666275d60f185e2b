"""What it would have cost: seconds in which instances ran x GPUs x price.

An instance is billed from the moment it runs, that is when its server is ready, until it is told to end: the guide says
that only running instances are billed, and not whether loading the weights counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from launcher.emulators.common.clock import Clock

HOUR = 3600.0


@dataclass
class Rent:
    """One instance. Times in seconds since 1970; `usd_per_hour` of all of its GPUs."""

    deploy_id: str
    usd_per_hour: float
    began: float
    _now: Callable[[], float]
    ended: float | None = None

    def end(self) -> None:
        """The instance is told to end. Only the first time counts."""
        if self.ended is None:
            self.ended = self._now()

    def seconds(self, start: float = 0.0, end: float = float("inf")) -> float:
        """So far, within a period."""
        last = self._now() if self.ended is None else self.ended
        return max(0.0, min(last, end) - max(self.began, start))


@dataclass(frozen=True, kw_only=True)
class MeterLine:
    """What one deployment has used: seconds summed over its instances, and their price in USD."""

    deploy_id: str
    seconds: float
    usd: float


@dataclass(frozen=True)
class Meter:
    """What everything has used so far, also what is deleted."""

    lines: tuple[MeterLine, ...]

    @property
    def usd(self) -> float:
        """Sum of all prices."""
        return sum(line.usd for line in self.lines)

    def of(self, deploy_id: str) -> MeterLine:
        """The line of one deployment; zero if it never ran."""
        nothing = MeterLine(deploy_id=deploy_id, seconds=0.0, usd=0.0)
        return next((line for line in self.lines if line.deploy_id == deploy_id), nothing)


class Ledger:
    """All rents."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rents: list[Rent] = []

    def begin(self, deploy_id: str, usd_per_hour: float) -> Rent:
        """An instance runs."""
        rent = Rent(deploy_id, usd_per_hour, self._clock.now(), self._clock.now)
        self._rents.append(rent)
        return rent

    def open_rents(self) -> list[str]:
        """Deployments that cost money now, one entry per instance."""
        return [rent.deploy_id for rent in self._rents if rent.ended is None]

    def seconds(self, start: float, end: float) -> dict[str, float]:
        """Seconds of instances in a period, by deployment; those without any are left out."""
        sums = _sums((rent.deploy_id, rent.seconds(start, end)) for rent in self._rents)
        return {deploy_id: seconds for deploy_id, seconds in sums.items() if seconds > 0}

    def usd(self, deploy_id: str, start: float, end: float) -> float:
        """Price of one deployment in a period."""
        return sum(
            rent.seconds(start, end) / HOUR * rent.usd_per_hour for rent in self._rents if rent.deploy_id == deploy_id
        )

    def meter(self) -> Meter:
        """The sums per deployment."""
        seconds = _sums((rent.deploy_id, rent.seconds()) for rent in self._rents)
        usd = _sums((rent.deploy_id, rent.seconds() / HOUR * rent.usd_per_hour) for rent in self._rents)
        return Meter(tuple(MeterLine(deploy_id=id_, seconds=seconds[id_], usd=usd[id_]) for id_ in seconds))


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in pairs:
        found[key] = found.get(key, 0.0) + value
    return found
