"""Collected logs: windows to ask for, and answers in Loki's shape."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

from launcher.platforms.lepton.types import LogAnswer

MOST_LINES = 10_000
"""Most lines that one request may ask for."""
SECOND = 1_000_000_000
"""Nanoseconds."""
_AHEAD = 60 * SECOND
"""The window reaches this far beyond our clock: the cluster's may run ahead of it."""

Entry = tuple[int, str]
"""Nanoseconds since 1970, and one line."""


@dataclass(frozen=True, kw_only=True)
class LogWindow:
    """Lines with a time in [start, end), in nanoseconds since 1970; `limit` of them, from one of its ends."""

    start: int
    end: int
    limit: int = MOST_LINES
    direction: Literal["forward", "backward"] = "backward"

    @classmethod
    def last(cls, lines: int, *, since: float) -> LogWindow:
        """The last lines since a time, in seconds since 1970."""
        return cls(start=_nanoseconds(since), end=_now(), limit=min(lines, MOST_LINES))

    @classmethod
    def first(cls, *, since: float) -> LogWindow:
        """The first lines since a time, in seconds since 1970."""
        return cls(start=_nanoseconds(since), end=_now(), direction="forward")

    def params(self) -> dict[str, str | int | list[str]]:
        """Its parameters of GET /logs."""
        return {
            "start": str(self.start),
            "end": str(self.end),
            "limit": self.limit,
            "direction": self.direction,
            "timestamps": "True",
        }

    def rest(self, page: list[Entry]) -> tuple[list[Entry], LogWindow | None]:
        """What of a page may be kept, and the window of the next one, None if this was the last.

        A full page may end in the middle of lines of one moment: those are left to the next page.
        """
        if len(page) < self.limit:
            return page, None
        edge = page[-1][0] if self.direction == "forward" else page[0][0]
        whole = [entry for entry in page if entry[0] != edge]
        if not whole:  # more lines of one moment than a page holds: nothing better can be done than to go on
            whole, edge = page, edge + (1 if self.direction == "forward" else -1)
        return whole, replace(self, start=edge) if self.direction == "forward" else replace(self, end=edge + 1)


def entries(answer: LogAnswer, window: LogWindow) -> list[Entry]:
    """Lines of an answer, oldest first; those of one moment stay in the order in which the service has them."""
    found: list[Entry] = []
    for stream in answer.data.result or []:
        values = [(int(value[0]), value[1]) for value in stream.values]
        found += reversed(values) if _newest_first(values, window) else values
    return sorted(found, key=lambda entry: entry[0])


def _newest_first(values: list[Entry], window: LogWindow) -> bool:
    if values and values[0][0] != values[-1][0]:
        return values[0][0] > values[-1][0]
    return window.direction == "backward"


def _nanoseconds(seconds: float) -> int:
    return max(1, int(seconds * SECOND))


def _now() -> int:
    return time.time_ns() + _AHEAD
