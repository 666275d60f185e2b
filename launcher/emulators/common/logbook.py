"""Collected logs: lines with the time (ns) at which they were seen, kept after their workload is gone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from launcher.platforms.local.logfiles import Follower


@dataclass(frozen=True)
class Line:
    """One line. `time` in ns since 1970, later than that of every line before it."""

    time: int
    replica: str
    text: str


@dataclass
class _Source:
    replica: str
    path: Path
    follower: Follower
    size: int = 0
    rest: str = ""
    is_written: bool = True
    """Whether a process may write to it."""

    def read(self) -> list[str]:
        """Lines that have become whole since the last call."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return []
        if size == self.size:
            return []
        self.size = size
        *lines, self.rest = (self.rest + self.follower.read_text()).split("\n")
        return lines

    def read_rest(self) -> list[str]:
        """The last line, if it lacks its end."""
        lines, self.rest = [self.rest] if self.rest else [], ""
        return lines


@dataclass
class LogBook:
    """The log of one endpoint or job. `delay` in seconds until a line shows; not collected: nothing ever shows."""

    delay: float = 0.0
    is_collected: bool = True
    _lines: list[Line] = field(default_factory=list)
    _sources: dict[str, _Source] = field(default_factory=dict)

    def follow(self, replica: str, path: Path) -> None:
        """Collect what is written to this file."""
        if replica not in self._sources:
            self._sources[replica] = _Source(replica, path, Follower(path))
        self._sources[replica].is_written = True

    def collect(self, now: float) -> None:
        """Take in what was written since the last call."""
        for source in self._sources.values():
            if source.is_written:
                self._add(source, source.read(), now)

    def finish(self, replica: str, now: float) -> None:
        """Take in everything of a replica that writes no more."""
        if (source := self._sources.get(replica)) is not None:
            self._add(source, source.read() + source.read_rest(), now)
            source.is_written = False

    def window(self, start: int, end: int, now: float, replica: str | None, text: str) -> Iterator[Line]:
        """Lines of [start, end) ns that show by now, oldest first, that contain `text`."""
        last = min(end, int((now - self.delay) * 1e9) + 1) if self.delay else end
        for line in self._lines[bisect_left(self._lines, start, key=lambda line: line.time) :]:
            if line.time >= last:
                return
            if replica in (None, line.replica) and text in line.text:
                yield line

    def _add(self, source: _Source, texts: list[str], now: float) -> None:
        time = int(now * 1e9)
        for text in texts:
            if self._lines:
                time = max(time, self._lines[-1].time + 1)
            self._lines.append(Line(time, source.replica, text.rstrip("\r")))
