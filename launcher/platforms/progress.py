"""Reads what the runner prints in a job's log: progress, how it ended, and the results themselves."""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from launcher.errors import PlatformError
from launcher.platforms.base import Progress, RunnerEnd

EVENT = "@nv-eval "
RESULTS_BEGIN = "@nv-eval-results-begin "
RESULTS_END = "@nv-eval-results-end"


class ProgressReader:
    """Follows a job's log, in chunks of any size."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        """What the runner last said."""
        self.end: RunnerEnd | None = None
        """How the runner ended, once it has."""
        self._tail = ""

    def feed(self, text: str) -> None:
        """The next chunk of the log; it may end in the middle of a line."""
        *lines, self._tail = (self._tail + text).split("\n")
        for line in lines:
            event = _event(line)
            if event:
                self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        kind, last = event.get("event"), self.progress or Progress(phase="waiting")
        if kind == "phase":
            detail, phase = str(event.get("detail", "")), str(event.get("phase"))
            self.progress = Progress(phase=phase, detail=detail, done=last.done, total=last.total)
        elif kind == "progress":
            self.progress = Progress(
                phase=last.phase, detail=str(event.get("detail", "")), done=event.get("done"), total=event.get("total")
            )
        elif kind == "end":
            self.end = RunnerEnd(
                reason=str(event.get("reason")), detail=str(event.get("detail", "")), data=event.get("data") or {}
            )
            self.progress = Progress(phase="ended", detail=self.end.detail, done=last.done, total=last.total)


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith(EVENT):
        return None
    try:
        event = json.loads(line[len(EVENT) :])
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def results_from_log(text: str) -> dict[str, bytes]:
    """The results a completed runner printed, by path below its output folder.

    Raises PlatformError if one that the runner announced is missing, cut off or changed on the way.
    """
    found: dict[str, bytes] = {}
    header, block = "", list[str]()
    for line in (raw.rstrip("\r") for raw in text.split("\n")):
        if line.startswith(RESULTS_BEGIN):
            header, block = line[len(RESULTS_BEGIN) :], []
        elif line == RESULTS_END and header:
            name, content = _content(header, "".join(block))
            found[name], header = content, ""
        elif header:
            block.append(line)
    missing = _announced(text) - found.keys()
    if header or missing:
        names = ", ".join(sorted(missing)) or unquote(header.split(" ")[0])
        raise PlatformError(f"the job's log is cut off: {names} is incomplete; read the results from the job's storage")
    return found


def _announced(text: str) -> set[str]:
    reader = ProgressReader()
    reader.feed(text + "\n")
    return set(reader.end.data.get("results", ())) if reader.end else set()


def _content(header: str, block: str) -> tuple[str, bytes]:
    try:
        quoted, size, digest = header.split(" ")
        content = gzip.decompress(base64.b64decode(block, validate=True))
        whole = len(content) == int(size) and hashlib.sha256(content).hexdigest() == digest
    except (ValueError, binascii.Error, OSError, EOFError, zlib.error) as error:
        raise PlatformError(f"results in the job's log cannot be read: {header}: {error}") from error
    name = unquote(quoted)
    if not whole:
        raise PlatformError(f"results in the job's log are damaged: {name} does not have its SHA-256")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise PlatformError(f"results in the job's log have a name outside their folder: {name}")
    return name, content


class LogFilter:
    """A job's log for people: packed results left out, the runner's own lines in words, progress not at all."""

    def __init__(self) -> None:
        self._packed = False

    def line(self, text: str) -> str | None:
        """What to show of the next line; None: nothing."""
        if text.startswith((RESULTS_BEGIN, RESULTS_END)):
            self._packed = text.startswith(RESULTS_BEGIN)
            return None
        return None if self._packed else _in_words(text)


def readable(lines: Iterable[str]) -> list[str]:
    """The lines of a job's log for people. A first part may be missing, even of packed results."""
    return [text for line in without_results(lines) if (text := _in_words(line)) is not None]


def without_results(lines: Iterable[str]) -> list[str]:
    """The lines of a job's log, packed results left out. A first part may be missing, even of packed results."""
    kept: list[str] = []
    begun: bool | None = None
    for line in lines:
        if line.startswith((RESULTS_BEGIN, RESULTS_END)):
            kept = [] if begun is None and line.startswith(RESULTS_END) else kept
            begun = line.startswith(RESULTS_BEGIN)
        elif not begun:
            kept.append(line)
    return kept


def _in_words(line: str) -> str | None:
    event = _event(line)
    if event is None:
        return line
    kind, detail = event.get("event"), event.get("detail")
    if kind == "progress":
        return None
    what = event.get("phase") if kind == "phase" else f"ended: {event.get('reason')}"
    return f"[runner] {what}" + (f": {detail}" if detail else "")
