"""Time as the emulator sees it, and the gates that decide when a state may advance."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime


class Clock:
    """The real time, which a test can move forward: time-outs of an hour pass in no time."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._ahead += seconds


@dataclass(frozen=True, kw_only=True)
class After:
    """When a state may advance: after that many reads of the resource and that many seconds. `After()`: at once."""

    reads: int = 0
    seconds: float = 0.0


class Gate:
    """Closed until its `After` has come true, counted from the moment it was made."""

    def __init__(self, after: After, now: float) -> None:
        self._reads = after.reads
        self._opens = now + after.seconds

    def read(self) -> None:
        """Count a read of the resource."""
        self._reads -= 1

    def is_open(self, now: float) -> bool:
        """Whether the state may advance."""
        return self._reads <= 0 and now >= self._opens


def milliseconds(seconds: float) -> int:
    """Time as metadata has it."""
    return int(seconds * 1000)


def iso(seconds: float) -> str:
    """Time as events and readiness issues have it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
