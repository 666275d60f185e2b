"""What files hold that decide the scores of a plan: edited in place, they make another measurement of the same config.

A folder of task definitions, the program of the `command` harness, a checkpoint, a tokenizer, a file of a server. What
is no file here, as a repository or a path on another machine, is what its name says.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.plan.identity import identity
from launcher.plan.model import Plan, TaskPlan

SMALL = 2**20
"""Bytes up to which a file is read; of a larger one size and time of change stand for what it holds."""
MOST_BYTES = 2**26
"""Bytes that are read of one folder; its further files are taken for large ones."""
MOST_FILES = 100_000
"""Files that are looked at of one folder, in the order of their paths."""
_MADE_BY_TOOLS = frozenset({"__pycache__", ".cache", ".git", ".ipynb_checkpoints"})
"""Folders that change though nobody edits anything."""


class Contents:
    """Digests of what files and folders hold, for one planning: each is looked at once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def identity(self, plan: Plan) -> str:
        """That of a plan with what its files hold now."""
        return identity(plan, self.of(plan))

    def of(self, plan: Plan) -> dict[str, str]:
        """Digests by config key and path; of a plan that names no file of this machine none."""
        named = {f"{key} {path}": self._digest(path) for key, path in _named(plan)}
        return {name: digest for name, digest in named.items() if digest}

    def _digest(self, path: str) -> str:
        """Empty where there is no such file or folder."""
        if path not in self._known:
            self._known[path] = _read(path)
        return self._known[path]


def _named(plan: Plan) -> Iterator[tuple[str, str]]:
    """What may be the path of a file or folder, with its config key."""
    auxiliary = plan.config.get("auxiliary")
    helpers = auxiliary.items() if isinstance(auxiliary, Mapping) else ()
    yield from _model("deployment", plan.config)
    for name, section in helpers:
        yield from _model(f"auxiliary.{name}.deployment", section)
    for endpoint in plan.endpoints:
        yield from ((f"deployment.{key}", path) for key, path in endpoint.server.files.items())
    for task in plan.tasks:
        yield from _of_task(task)


def _model(key: str, section: Any) -> Iterator[tuple[str, str]]:
    deployment = section.get("deployment") if isinstance(section, Mapping) else None
    model = deployment.get("model_id") if isinstance(deployment, Mapping) else None
    if isinstance(model, str):
        yield f"{key}.model_id", model


def _of_task(task: TaskPlan) -> Iterator[tuple[str, str]]:
    settings = task.settings
    if settings.include_path:
        yield "evaluation.include_path", str(Path(settings.include_path).expanduser())
    if settings.tokenizer:
        yield "evaluation.tokenizer", settings.tokenizer
    if task.harness == "command":
        words = (part for word in task.job.run.argv for part in (word, word.partition("=")[2]))
        yield from (("evaluation.command", word) for word in words if _is_path_of_file(word))


def _is_path_of_file(word: str) -> bool:
    """Whether an argument names a file wherever the program runs, as it does in a folder of its own."""
    found = _seen(word) if Path(word).is_absolute() else None
    return found is not None and stat.S_ISREG(found.st_mode)


def _seen(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116  a path that no file system takes is no error here
    except (OSError, ValueError):
        return None


def _read(path: str) -> str:
    found = _seen(path) if path else None
    if found is None:
        return ""
    if stat.S_ISREG(found.st_mode):
        return _digest_of([_entry(Path(path), "", found, MOST_BYTES)[0]])
    return _digest_of(_entries(Path(path))) if stat.S_ISDIR(found.st_mode) else ""


def _entries(folder: Path) -> Iterator[tuple[str, ...]]:
    """One for each file, in the order of the paths."""
    left = MOST_BYTES
    for number, path in enumerate(_files(folder)):
        if number == MOST_FILES:
            return
        found = _seen(str(path))
        if found is not None and stat.S_ISREG(found.st_mode):
            entry, read = _entry(path, path.relative_to(folder).as_posix(), found, left)
            left -= read
            yield entry


def _files(folder: Path) -> Iterator[Path]:
    """All of a folder, those behind links, too; each folder once, for links may lead in a circle."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(set(folders) - _MADE_BY_TOOLS)
        if real not in seen:
            yield from (Path(parent, name) for name in sorted(names))
        seen.add(real)


def _entry(path: Path, name: str, found: os.stat_result, left: int) -> tuple[tuple[str, ...], int]:
    """What stands for a file, and the bytes that were read."""
    if found.st_size < SMALL and found.st_size <= left:
        with contextlib.suppress(OSError):  # who may not read it is told by whoever needs it
            return (name, hashlib.sha256(path.read_bytes()).hexdigest()), found.st_size
    return (name, str(found.st_size), str(found.st_mtime_ns)), 0


def _digest_of(entries: Iterable[tuple[str, ...]]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(repr(entry).encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]
