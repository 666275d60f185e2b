"""Signs of life of a lease's holder outside the journal: on a full disk the time of a file can still be changed.

One empty file per holder, beside the journal. Standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path


def show(folder: Path, invocation: str, owner: str, now: float) -> None:
    """Show that `owner` lives at `now`, in seconds since 1970. That it cannot be shown is not fatal."""
    path = _path(folder, invocation, owner)
    try:
        path.touch(mode=0o600)
        os.utime(path, (now, now))
    except OSError:
        return


def last(folder: Path, invocation: str, owner: str) -> float:
    """When `owner` showed that it lives, in seconds since 1970; 0 if it never did, or nobody can tell."""
    try:
        return _path(folder, invocation, owner).stat().st_mtime
    except OSError:
        return 0.0


def end(folder: Path, invocation: str, owner: str) -> None:
    """Show no more. A file that cannot be removed is harmless: each holder has one of its own."""
    try:
        _path(folder, invocation, owner).unlink(missing_ok=True)
    except OSError:
        return


def _path(folder: Path, invocation: str, owner: str) -> Path:
    return folder / f"{invocation}-{owner}.alive"
