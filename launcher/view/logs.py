"""A log file in pieces: its last lines, those before, and what is added while somebody looks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from launcher.errors import NotFound
from launcher.platforms.progress import RESULTS_BEGIN, RESULTS_END, LogFilter, readable
from launcher.text import plain
from launcher.view.inside import open_inside

PIECE = 128 * 1024
"""Bytes of a log that are read, and shown, at once."""
LONGEST_LINE = 4000
"""Characters of a line that are shown."""
SOURCES = ("job", "endpoint")


@dataclass(frozen=True)
class Piece:
    """Lines for people, which lie in the file from byte `start` to byte `end`; `file` tells it from a later file."""

    lines: list[str]
    start: int
    end: int
    file: str = ""
    is_packed: bool = False
    """Whether packed results had begun and not ended."""


def last(folder: Path, task: str, source: str) -> Piece:
    """The last lines of a log. Raises NotFound if there is no such file."""
    with open_inside(folder, task, f"{source}.log") as file:
        return _piece(file, os.fstat(file.fileno()).st_size)


def before(folder: Path, task: str, source: str, end: int) -> Piece:
    """The lines before byte `end`. Raises NotFound if there is no such file."""
    with open_inside(folder, task, f"{source}.log") as file:
        return _piece(file, min(max(0, end), os.fstat(file.fileno()).st_size))


def _piece(file: BinaryIO, end: int) -> Piece:
    start = max(0, end - PIECE)
    file.seek(start)
    data = file.read(end - start)
    if start and (cut := data.find(b"\n")) >= 0:  # a line that began before; one that fills the piece is shown cut
        data, start = data[cut + 1 :], start + cut + 1
    whole = data.rfind(b"\n") + 1 or len(data)
    lines = _lines(data[:whole])
    return Piece([_shown(line) for line in readable(lines)], start, start + whole, _identity(file), _ends_packed(lines))


def _lines(data: bytes) -> list[str]:
    return data.decode(errors="replace").removesuffix("\n").split("\n") if data else []


def _ends_packed(lines: list[str]) -> bool:
    marks = [line.startswith(RESULTS_BEGIN) for line in lines if line.startswith((RESULTS_BEGIN, RESULTS_END))]
    return bool(marks) and marks[-1]


def _shown(line: str) -> str:
    """A line as a terminal would leave it: of a progress bar that was written over and over, the last form."""
    forms = [form for form in line.split("\r") if form]
    text = plain(forms[-1]) if forms else ""
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]} … {len(text) - LONGEST_LINE} more characters"


def _identity(file: BinaryIO) -> str:
    found = os.fstat(file.fileno())
    return f"{found.st_dev:x}-{found.st_ino:x}"


class Tail:
    """Follows a log that grows, is cut off, is replaced, goes away and comes back."""

    def __init__(self, folder: Path, task: str, source: str, *, file: str, end: int, is_packed: bool = False) -> None:
        self._where = folder, task, source
        self._file, self._end = file, end
        self._filter = _filter(is_packed)

    def read(self) -> tuple[list[str], bool]:
        """Lines that have come since the last time, and whether they are a new beginning: those before are gone."""
        try:
            with open_inside(self._where[0], self._where[1], f"{self._where[2]}.log") as file:
                size = os.fstat(file.fileno()).st_size
                if _identity(file) != self._file or size < self._end:
                    return self._begin_anew(file, size)
                return self._go_on(file, size), False
        except NotFound:
            return [], False

    def _begin_anew(self, file: BinaryIO, size: int) -> tuple[list[str], bool]:
        piece = _piece(file, size)
        self._file, self._end, self._filter = piece.file, piece.end, _filter(piece.is_packed)
        return piece.lines, True

    def _go_on(self, file: BinaryIO, size: int) -> list[str]:
        if size == self._end:
            return []
        file.seek(self._end)
        data = file.read(min(PIECE, size - self._end))
        whole = data.rfind(b"\n") + 1
        if not whole:  # half a line waits for its end, unless it is longer than any that is shown
            if len(data) < PIECE:
                return []
            whole = len(data)
        self._end += whole
        found = (self._filter.line(line) for line in _lines(data[:whole]))
        return [_shown(line) for line in found if line is not None]

    @property
    def has_begun(self) -> bool:
        """Whether there has been a file."""
        return bool(self._file)


def _filter(is_packed: bool) -> LogFilter:
    made = LogFilter()
    if is_packed:
        made.line(RESULTS_BEGIN)
    return made
