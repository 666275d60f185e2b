"""Windows of a deployment's log. The service gives the oldest lines of a window first, and at most 1000."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from launcher.platforms.deepinfra.reading import moment
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
        stamps = [at(entry) for entry in page]
        last = next((stamp for stamp in reversed(stamps) if stamp is not None), None)
        if last is None:
            return replace(self, skip=max(self.skip, len(page)))
        again = len(page) - stamps.index(last)
        if again >= self.limit:  # more lines of one moment than a page holds: nothing better can be done than to go on
            return replace(self, start=last + _NANOSECOND, skip=0)
        return replace(self, start=last, skip=again)

    def is_full(self, page: list[LogEntry]) -> bool:
        """Whether there may be more in the window than the page shows."""
        return len(page) >= self.limit and any(at(entry) is not None for entry in page)


def at(entry: LogEntry) -> Decimal | None:
    """When a line was written, in seconds since 1970; None where that cannot be read."""
    return Decimal(entry[0]) if entry[0] else None


def entries(listed: list[Any]) -> list[LogEntry]:
    """Lines as the service gives them, their stamps as seconds since 1970. A line is kept whatever its stamp."""
    return [_entry(one) for one in listed]


def _entry(given: Any) -> LogEntry:
    stamp, text = given if isinstance(given, list) and len(given) == 2 else (None, given)
    time = moment(str(stamp))
    return (f"{time:f}" if time is not None else "", text if isinstance(text, str) else str(text or ""))
