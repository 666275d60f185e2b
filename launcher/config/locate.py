"""Where a key was set: the file and line, or the command line. Used only to word an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hydra.core.override_parser.types import Override

from launcher.config.compose import (
    Composition,
    Request,
    compose,
    config_name,
    packaged_configs,
    parse_overrides,
    search_folders,
)
from launcher.config.files import find, line_of, shorten, steps
from launcher.config.problems import Problem

Steps = tuple[str, ...]

_COMMAND_LINE = "command line"
_KEY = re.compile(
    r"((?:execution|deployment|target|auxiliary|evaluation|export|limits)(?:\.[^\s.:()\[\]]+|\[\d+\])*)(?= ?[(:])"
)
"""The key that a problem in words begins with."""


@dataclass(frozen=True)
class Source:
    """One YAML file of a composition and the key below which its content lands."""

    path: Path
    package: Steps


class Locator:
    """Finds the places of one request's keys."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def line(self, problem: Problem) -> str:
        """A problem in one line: place, key, what is wrong."""
        parts = (self.where(problem.key), problem.key, problem.message)
        return ": ".join(part for part in parts if part)

    def in_words(self, text: str) -> str:
        """A problem that begins with its key, with its place in front; as it is where it begins with none."""
        key = _KEY.match(text)
        return f"{self.where(key.group(1))}: {text}" if key else text

    def where(self, key: str) -> str:
        """`file:line` or `command line`: where `key` was set, else where something around it was.

        The packaged files are never named: what is wrong is what was made of them.
        """
        wanted = steps(key)
        if any(wanted[: len(parts)] == parts for parts in self._set_on_command_line):
            return _COMMAND_LINE
        exact = self._in_files(wanted)
        if exact:
            return exact
        if any(parts[: len(wanted)] == wanted for parts in self._set_on_command_line):
            return _COMMAND_LINE
        around = (self._in_files(wanted[:length]) for length in range(len(wanted) - 1, 0, -1))
        return next(filter(None, around), None) or self._main_file()

    def _in_files(self, wanted: Steps) -> str | None:
        for source in reversed(self._sources):
            if wanted[: len(source.package)] != source.package:
                continue
            line = line_of(source.path, wanted[len(source.package) :])
            if line is not None:
                return f"{shorten(source.path)}:{line}"
        return None

    def _main_file(self) -> str:
        path = find(search_folders(self.request), config_name(self.request.name))
        return _COMMAND_LINE if path is None or _is_packaged(path) else shorten(path)

    @cached_property
    def _composition(self) -> Composition:
        return compose(self.request)

    @cached_property
    def _set_on_command_line(self) -> list[Steps]:
        return [
            steps(override.key_or_group)
            for override in parse_overrides(self.request.overrides)
            if not _chooses(override, self._composition)
        ]

    @cached_property
    def _sources(self) -> list[Source]:
        return list(_own_files(self._composition, search_folders(self.request)))


def _chooses(override: Override, composition: Composition) -> bool:
    """Whether an override chooses an option of a group rather than a value."""
    return override.key_or_group in composition.choices and not isinstance(override.value(), dict)


def _own_files(composition: Composition, folders: list[Path]) -> Iterator[Source]:
    for entry in composition.files:
        path = find(folders, entry.config_path) if entry.config_path else None
        if path is not None and not _is_packaged(path):
            yield Source(path, steps(entry.package or ""))


def _is_packaged(path: Path) -> bool:
    return path.is_relative_to(packaged_configs())
