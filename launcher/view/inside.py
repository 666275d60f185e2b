"""Files of an invocation's folder, and nothing outside it.

Jobs write into these folders: a link that leads out of one must not show a file that the job could not have read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from launcher.errors import NotFound, ResultsError

SCORES = ("results.json", "provenance.json", "*/scores.json")
SAMPLES = ("*/output", "*/output/**/results_*.json", "*/output/**/samples_*.jsonl")
"""What launcher.results opens by itself."""


def open_inside(folder: Path, *names: str) -> BinaryIO:
    """Open a regular file below `folder` for reading. Raises NotFound for everything else, links that lead out too."""
    path = folder.joinpath(*names)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}") from None
    try:
        is_ours = stat.S_ISREG(os.fstat(descriptor).st_mode) and _is_below(_opened(descriptor), folder)
    except OSError:
        is_ours = False
    if not is_ours:
        os.close(descriptor)
        raise NotFound(f"{path}: is no file of this invocation's folder")
    return os.fdopen(descriptor, "rb")


def refuse_links_out(folder: Path, *patterns: str) -> None:
    """Raises ResultsError if a file of these patterns lies outside of `folder`."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            if not _is_below(path.resolve(), folder):
                raise ResultsError(f"{path}: leads out of the invocation's folder; it is not read")


def _opened(descriptor: int) -> Path:
    """Where an open file really lies, whatever its path has become meanwhile."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _is_below(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder.resolve())
