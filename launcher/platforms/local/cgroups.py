"""A control group (cgroup v2) for each server and job, where this user may make one.

A process may leave its parent, its session and its environment; it stays in its group. So what outlives launcher and
supervisor, both killed at the same moment, is found by the group's name even where it has shed the mark in its
environment. Without groups all else works: they can be made by the superuser and in what systemd has delegated
(`systemd-run --user --scope nv-eval ...`, a desktop's terminal), not in an ordinary login over ssh.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from launcher.platforms.local.launchers import Launcher

PREFIX = "nv-eval"
_SEPARATOR = "~"
_LONGEST_NAME = 255


def home() -> Path | None:
    """The group of this process, if groups can be made below it."""
    own = _own()
    if own is None or not (os.access(own, os.W_OK) and os.access(own / "cgroup.procs", os.W_OK)):
        return None
    return own


def _own() -> Path | None:
    path = _path_of("self")
    for root, mount in _mounts():
        if path is not None and ".." not in path and Path(path).is_relative_to(root):
            return mount / Path(path).relative_to(root)
    return None


def _mounts() -> Iterator[tuple[str, Path]]:
    """Where cgroup v2 is mounted: which group is its root there, and the folder."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields, _, kind = line.partition(" - ")
            if kind.startswith("cgroup2 "):
                yield fields.split()[3], Path(fields.split()[4])


def _path_of(pid: int | str) -> str | None:
    """The group of a process, as the kernel calls it."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)


def make(words: Sequence[str]) -> Path | None:
    """A group named after these words, the last three of which are its launcher's; None where there can be none."""
    parent, name = home(), _SEPARATOR.join((PREFIX, *words))
    if parent is None or len(name.encode()) > _LONGEST_NAME or "/" in name:
        return None
    _tidy(parent)
    try:
        (parent / name).mkdir(exist_ok=True)
    except OSError:
        return None
    return parent / name


def _tidy(parent: Path) -> None:
    """Remove groups in which nothing lives, of launchers that live no more: their supervisors were killed with them."""
    for old in parent.glob(f"{PREFIX}{_SEPARATOR}*"):
        launcher = Launcher.parse("/".join(old.name.split(_SEPARATOR)[-3:]))
        if launcher is not None and launcher.is_alive is False:
            remove(old)


def words_of(pid: int) -> list[str]:
    """The words of the group of ours that a process is in; empty if it is in none."""
    for part in (_path_of(pid) or "").split("/"):
        prefix, *words = part.split(_SEPARATOR)
        if prefix == PREFIX and words:
            return words
    return []


def remove(group: Path | None) -> None:
    """Remove a group in which nothing lives; any other stays."""
    if group is not None:
        with contextlib.suppress(OSError):
            group.rmdir()
