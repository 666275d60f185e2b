"""Windows of a deployment's log. The service gives the oldest lines of a window first, and at most 1000."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from launcher.platforms.deepinfra.types import LogEntry

MOST_LINES = 1000
_NANOSECOND = Decimal("1e-9")


@dataclass(frozen=True, kw_only=True)
class LogWindow:
    """Lines from `start` on, in seconds since 1970, less the first `skip`, which were read before.

    It has no end: that could only be told by our clock, and the service's may run ahead of it.
    """

    start: Decimal
    limit: int = MOST_LINES
    skip: int = 0

    @classmethod
    def since(cls, start: float) -> LogWindow:
        """Everything since a time."""
        return cls(start=Decimal(f"{max(0.0, start):.6f}"))

    def params(self, deploy_id: str) -> dict[str, str | int | list[str]]:
        """Its parameters of both routes."""
        return {"deploy_id": deploy_id, "from": f"{self.start:f}", "limit": self.limit}

    def fresh(self, page: list[LogEntry]) -> list[LogEntry]:
        """What of a page was not read before."""
        return page[self.skip :]

    def after(self, page: list[LogEntry]) -> LogWindow:
        """The window of what follows a page, in which lines of its last moment come again."""
        if not page:
            return self
        last = Decimal(page[-1][0])
        again = sum(Decimal(stamp) == last for stamp, _ in page)
        if again == self.limit:  # more lines of one moment than a page holds: nothing better can be done than to go on
            return replace(self, start=last + _NANOSECOND, skip=0)
        return replace(self, start=last, skip=again)

    def is_full(self, page: list[LogEntry]) -> bool:
        """Whether there may be more in the window than the page shows."""
        return len(page) >= self.limit
