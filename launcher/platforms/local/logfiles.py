"""Reading log files that somebody else is writing."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from launcher.platforms.base import LogLine

POLL = 0.1
"""Seconds between two looks at a file that grows."""
TAIL_BYTES = 128 * 1024


class Follower:
    """Reads a file piece by piece, from its beginning; a file that does not exist yet is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> bytes:
        """What was written since the last call. Once the middle of a long file was left out, its end comes again."""
        try:
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < self._position:
                    self._position = max(0, size - TAIL_BYTES)
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return b""
        self._position += len(data)
        return data

    def read_text(self) -> str:
        """What was written since the last call; a character that is not whole yet comes with the next."""
        return self._decoder.decode(self.read())


async def lines(path: Path, is_over: Callable[[], bool], *, follow: bool) -> AsyncIterator[LogLine]:
    """Whole lines in the order they were written; with `follow` until `is_over`. The last one may lack its end."""
    follower = Follower(path)
    rest = b""
    while True:
        over = not follow or is_over()
        *complete, rest = (rest + follower.read()).split(b"\n")
        for line in complete:
            yield _line(line)
        if over:
            break
        await asyncio.sleep(POLL)
    if rest:
        yield _line(rest)


def tail(path: Path, count: int) -> list[str]:
    """The last lines of a file, within its last 128 KiB; empty without a file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return []
    found = [_text(line) for line in data.splitlines() if line.strip()]
    return found[-count:] if count > 0 else []


def _line(data: bytes) -> LogLine:
    return LogLine(_text(data))


def _text(data: bytes) -> str:
    """What a terminal would show of a line: of a progress bar its last state."""
    return data.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
