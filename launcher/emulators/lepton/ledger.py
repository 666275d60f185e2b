"""What it would have cost: minutes x replicas x price of the shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from launcher.emulators.common.clock import Clock


@dataclass
class Charge:
    """One replica on a node. Times in seconds since 1970."""

    name: str
    kind: str
    shape: str
    group: str
    """Id of the node group that it is in."""
    began: float
    _now: Callable[[], float]
    ended: float | None = None

    def end(self) -> None:
        """The replica has left its node."""
        self.ended = self._now()

    @property
    def minutes(self) -> float:
        """So far."""
        return ((self._now() if self.ended is None else self.ended) - self.began) / 60


@dataclass(frozen=True, kw_only=True)
class MeterLine:
    """What one endpoint or job has used: `replica_minutes` over all its replicas, and their price in USD."""

    name: str
    kind: str
    shape: str
    replica_minutes: float
    usd: float


@dataclass(frozen=True)
class Meter:
    """What everything has used so far."""

    lines: tuple[MeterLine, ...]

    @property
    def usd(self) -> float:
        """Sum of all prices."""
        return sum(line.usd for line in self.lines)


class Ledger:
    """All charges. `price` is in USD per hour of a shape."""

    def __init__(self, clock: Clock, price: Callable[[str], float]) -> None:
        self._clock = clock
        self._price = price
        self._charges: list[Charge] = []

    def begin(self, name: str, kind: str, shape: str, group: str) -> Charge:
        """A replica has got a node of a group."""
        charge = Charge(name, kind, shape, group, self._clock.now(), self._clock.now)
        self._charges.append(charge)
        return charge

    def open_charges(self) -> list[Charge]:
        """Replicas that are on a node now."""
        return [charge for charge in self._charges if charge.ended is None]

    def meter(self) -> Meter:
        """The sums per endpoint and job."""
        minutes: dict[tuple[str, str, str], float] = {}
        for charge in self._charges:
            key = (charge.name, charge.kind, charge.shape)
            minutes[key] = minutes.get(key, 0.0) + charge.minutes
        return Meter(tuple(self._line(*key, used) for key, used in minutes.items()))

    def _line(self, name: str, kind: str, shape: str, minutes: float) -> MeterLine:
        usd = minutes / 60 * self._price(shape)
        return MeterLine(name=name, kind=kind, shape=shape, replica_minutes=minutes, usd=usd)
