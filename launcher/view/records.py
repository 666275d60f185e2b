"""Results of invocations as they lie on disk; a file is read again when it has changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError, NotFound
from launcher.results import read
from launcher.results.model import Record
from launcher.view.inside import SCORES, open_inside, refuse_links_out

LONGEST_FILE = 400_000
"""Bytes of a config or a provenance record that a page shows."""
_KEPT = 5000


@dataclass(frozen=True)
class Found:
    """Results of one invocation, or why there are none; `is_broken` if that is a fault."""

    record: Record | None = None
    problem: str = ""
    is_broken: bool = False


class Records:
    """Reads results and keeps them as long as their files stay the same."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[object, Found]] = {}
        self._lock = threading.Lock()

    def of(self, folder: Path) -> Found:
        """Results of the invocation in `folder`."""
        mark = tuple(_marks(folder))
        with self._lock:
            kept = self._kept.get(folder)
        if kept is not None and kept[0] == mark:
            return kept[1]
        found = _read(folder)
        with self._lock:
            if len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[folder] = (mark, found)
        return found


def _marks(folder: Path) -> Iterator[object]:
    """What changes when results do."""
    for path in (folder, folder / "results.json"):
        yield _mark(path)
    if not (folder / "results.json").is_file():
        yield from (_mark(path) for path in sorted(folder.glob("*/scores.json")))


def _mark(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(folder: Path) -> Found:
    if not folder.is_dir():
        return Found(problem=f"The folder of this invocation is gone: {folder}", is_broken=True)
    try:
        refuse_links_out(folder, *SCORES)
        return Found(read.load(folder))
    except NotFound:
        return Found(problem="No scores have come home.")
    except LauncherError as error:
        return Found(problem=str(error), is_broken=True)
    except (OSError, ValueError, RecursionError) as error:
        return Found(problem=f"{folder / 'results.json'}: cannot be read: {error}", is_broken=True)


def text(folder: Path, name: str) -> str:
    """A file of the folder as text, cut where it is very long; empty if there is none."""
    try:
        with open_inside(folder, name) as file:
            data = file.read(LONGEST_FILE + 1)
    except NotFound:
        return ""
    more = "\n… cut off here: the file is longer" if len(data) > LONGEST_FILE else ""
    return data[:LONGEST_FILE].decode(errors="replace") + more


def document(folder: Path, name: str) -> tuple[dict[str, Any], str]:
    """A JSON object of the folder, and what is wrong with it; an empty one if there is none."""
    found = text(folder, name)
    if not found:
        return {}, ""
    try:
        value = json.loads(found)
    except (ValueError, RecursionError) as error:
        return {}, f"{folder / name}: broken: {error}"
    return (value, "") if isinstance(value, dict) else ({}, f"{folder / name}: is no JSON object")
