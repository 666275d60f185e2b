"""What lm-eval knows, without importing lm-eval: a text file with one line per task and group.

The file has four sections, each sorted, after a first line `nv-eval.lm-eval-index/2 VERSION`:

    [folders]  one folder below lm_eval/tasks per line; its number is its place, from 0
    [groups]   name, output types, folders (numbers), parents (numbers of groups), count of tasks
    [tasks]    name, output types, folders, parents
    [end]

Fields are separated by tabs, numbers by commas. Output types are letters (see OUTPUT_TYPES), followed by ZERO_SHOT
where a definition says `num_fewshot: 0`. The folders of a group are its own and those of everything in it, so that one
line says all that must be loaded to run it. A group here is whatever stands for several tasks: lm-eval's groups and its
tags.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

_FORM = 2
SCHEMA = f"nv-eval.lm-eval-index/{_FORM}"

SHIPPED_VERSION = "0.4.13"
"""Version of lm-eval that the index inside this package describes."""

OUTPUT_TYPES = {"g": "generate_until", "l": "loglikelihood", "m": "multiple_choice", "r": "loglikelihood_rolling"}
"""Letter in the index file: lm-eval's word."""
ZERO_SHOT = "0"


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """One task or group.

    `output_types` are lm-eval's words. `groups` are the groups and tags it is directly in. `folders` are those below
    lm_eval/tasks that must be loaded to run it, its own first. `tasks` counts what a group expands to, 1 for a task.
    `include_path` is the user's folder that defines it, if one does. `samples` is None where it is not known.
    `is_zero_shot`: the definition, or one in the group, says `num_fewshot: 0`, which lm-eval lets no setting change.
    """

    name: str
    kind: Literal["task", "group"]
    output_types: tuple[str, ...]
    groups: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    tasks: int = 1
    include_path: str | None = None
    samples: int | None = None
    is_zero_shot: bool = False

    @property
    def needs_loglikelihood(self) -> bool:
        """At least one part scores given answers rather than generated ones."""
        return any(output_type != "generate_until" for output_type in self.output_types)

    @property
    def folder(self) -> str:
        """Where its definition is: below lm_eval/tasks, or the user's folder."""
        return self.include_path or (self.folders[0] if self.folders else "")


class Index:
    """One index file. A look-up searches the bytes for one line and parses that line alone."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        header = self._data[: self._data.index(b"\n")].decode().split()
        if len(header) != 2 or header[0] != SCHEMA:
            raise ValueError(f"{path}: is not an index of {SCHEMA}")
        self.version = header[1]

    def get(self, name: str) -> IndexEntry | None:
        """The entry of that name, or None."""
        start = self._data.find(f"\n{name}\t".encode()) + 1
        if start == 0:
            return None
        line = self._data[start : self._data.index(b"\n", start)].decode()
        return self._entry(line)

    def __iter__(self) -> Iterator[IndexEntry]:
        return self.entries(lambda _: True)

    def entries(self, wanted: Callable[[str], bool]) -> Iterator[IndexEntry]:
        """Those whose name is wanted; only their lines are parsed."""
        for section in ("groups", "tasks"):
            for line in self._section(section):
                if wanted(line.partition("\t")[0]):
                    yield self._entry(line)

    def names(self) -> list[str]:
        """All names, groups first."""
        return [line.partition("\t")[0] for section in ("groups", "tasks") for line in self._section(section)]

    def _entry(self, line: str) -> IndexEntry:
        name, types, folders, parents, *count = line.split("\t")
        return IndexEntry(
            name=name,
            kind="group" if count else "task",
            output_types=tuple(OUTPUT_TYPES[letter] for letter in types.rstrip(ZERO_SHOT)),
            groups=tuple(self._group_names[number] for number in _numbers(parents)),
            folders=tuple(self._folders[number] for number in _numbers(folders)),
            tasks=int(count[0]) if count else 1,
            is_zero_shot=types.endswith(ZERO_SHOT),
        )

    @cached_property
    def _folders(self) -> list[str]:
        return self._section("folders")

    @cached_property
    def _group_names(self) -> list[str]:
        return [line.partition("\t")[0] for line in self._section("groups")]

    def _section(self, name: str) -> list[str]:
        start = self._data.index(f"\n[{name}]\n".encode()) + len(name) + 4
        return self._data[start : self._data.index(b"\n[", start - 1)].decode().splitlines()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")] if text else []


@cache
def installed_version() -> str | None:
    """Version of the lm-eval beside the launcher; None where there is none."""
    try:
        return version("lm_eval")
    except PackageNotFoundError:
        return None


def cache_file(lm_eval_version: str) -> Path:
    """Where the index of another version than the shipped one is kept."""
    own, xdg = os.environ.get("NV_EVAL_HOME"), os.environ.get("XDG_CACHE_HOME")
    folder = Path(own) / "cache" if own else (Path(xdg) if xdg else Path.home() / ".cache") / "nv-eval"
    return folder / f"lm_eval-{lm_eval_version}.{_FORM}.txt"


def shipped_file() -> Path:
    """The index inside this package."""
    return Path(__file__).with_name(f"lm_eval-{SHIPPED_VERSION}.txt")


def load_index(*, build: bool = False) -> Index:
    """The index of the installed lm-eval if there is one, else the shipped one.

    With `build`, the index of another installed version is made once and kept in the cache folder, which takes seconds.
    """
    installed = installed_version()
    if installed in (None, SHIPPED_VERSION):
        return _read(shipped_file())
    kept = cache_file(str(installed))
    if build and not kept.exists():
        from launcher.harnesses.lm_eval.index.build import build_index  # imports lm-eval, for seconds

        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}.tmp")
        unfinished.write_text(build_index(), encoding="utf-8")
        unfinished.replace(kept)
    return _read(kept if kept.exists() else shipped_file())


@cache
def _read(path: Path) -> Index:
    return Index(path)
