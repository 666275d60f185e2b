"""Makes the index file from the installed lm-eval; nothing else in the launcher imports lm-eval."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind

from launcher.harnesses.lm_eval.definitions import group_members, output_type_of
from launcher.harnesses.lm_eval.index import OUTPUT_TYPES, SCHEMA, ZERO_SHOT

_TASKS = Path(lm_eval.tasks.__file__).parent
_LETTERS = {word: letter for letter, word in OUTPUT_TYPES.items()}


def build_index() -> str:
    """The whole index file of the installed lm-eval."""
    entries: dict[str, Entry] = TaskManager().task_index
    return _Builder(entries).text()


@dataclass
class _Closure:
    """Everything a name stands for."""

    letters: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    leaves: set[str] = field(default_factory=set)

    def add(self, other: _Closure) -> None:
        self.letters |= other.letters
        self.folders |= other.folders
        self.leaves |= other.leaves


class _Builder:
    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        self._groups = sorted(name for name, entry in entries.items() if entry.kind in (Kind.GROUP, Kind.TAG))
        self._tasks = sorted(entries.keys() - set(self._groups))
        self._closures: dict[str, _Closure] = {}
        self._zero_shots: dict[tuple[str, int | None], bool] = {}

    def text(self) -> str:
        lines = [
            f"{SCHEMA} {version('lm_eval')}",
            "[folders]",
            *self._folders,
            "[groups]",
            *(f"{self._line(name)}\t{len(self._closure(name).leaves)}" for name in self._groups),
            "[tasks]",
            *(self._line(name) for name in self._tasks),
            "[end]",
        ]
        return "\n".join(lines) + "\n"

    def _line(self, name: str) -> str:
        closure = self._closure(name)
        folders = [self._folder_number[folder] for folder in self._ordered_folders(name, closure)]
        parents = sorted(self._group_number[parent] for parent in self._parents[name])
        letters = "".join(sorted(closure.letters)) + (ZERO_SHOT if self._is_zero_shot(name) else "")
        return "\t".join([name, letters, _joined(folders), _joined(parents)])

    def _is_zero_shot(self, name: str, override: int | None = None) -> bool:
        """Whether a task's number of examples, or that of one in a group, is 0 by definition."""
        key = name, override
        if key not in self._zero_shots:
            self._zero_shots[key] = False  # a group that contains itself ends here
            self._zero_shots[key] = self._find_zero_shot(name, override)
        return self._zero_shots[key]

    def _find_zero_shot(self, name: str, override: int | None) -> bool:
        entry = self._entries.get(name)
        if entry is None or entry.kind not in (Kind.GROUP, Kind.TAG):  # none: a task written inside its group
            own = (entry.cfg or {}).get("num_fewshot") if entry else None
            return (own if override is None else override) == 0
        if entry.kind is Kind.TAG:
            return any(self._is_zero_shot(member, override) for member in entry.tags)
        return any(
            self._is_zero_shot(member.name, override if member.num_fewshot is None else member.num_fewshot)
            for member in group_members(entry.cfg or {})
        )

    def _ordered_folders(self, name: str, closure: _Closure) -> list[str]:
        own = _folder(self._entries[name])
        return [*([own] if own is not None else []), *sorted(closure.folders - {own})]

    @cached_property
    def _folders(self) -> list[str]:
        return sorted({folder for entry in self._entries.values() if (folder := _folder(entry)) is not None})

    @cached_property
    def _folder_number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._folders)}

    @cached_property
    def _group_number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self._groups)}

    @cached_property
    def _parents(self) -> dict[str, set[str]]:
        parents: dict[str, set[str]] = defaultdict(set)
        for group in self._groups:
            for member in self._members(group):
                parents[member].add(group)
        return parents

    def _members(self, group: str) -> Iterator[str]:
        """Names in the index that a group or tag lists, those of groups written inside it included."""
        entry = self._entries[group]
        if entry.kind is Kind.TAG:
            yield from sorted(entry.tags)
            return
        for member in group_members(entry.cfg or {}):
            if member.name in self._entries:
                yield member.name

    def _closure(self, name: str) -> _Closure:
        if name not in self._closures:
            self._closures[name] = _Closure()  # a group that contains itself ends here
            self._closures[name] = self._compute(name)
        return self._closures[name]

    def _compute(self, name: str) -> _Closure:
        entry = self._entries[name]
        own = _folder(entry)
        closure = _Closure(folders={own} if own is not None else set())
        if entry.kind not in (Kind.GROUP, Kind.TAG):
            closure.letters, closure.leaves = set(_task_letters(entry)), {name}
            return closure
        for known in self._members(name):
            closure.add(self._closure(known))
        for member in group_members(entry.cfg or {}) if entry.kind is Kind.GROUP else ():
            if member.name not in self._entries:
                closure.leaves.add(f"{name}::{member.name}")
                closure.letters.add(_LETTERS[member.output_type or "generate_until"])
            elif member.output_type is not None:
                closure.letters.add(_LETTERS[member.output_type])
        return closure


def _folder(entry: Entry) -> str | None:
    return None if entry.yaml_path is None else entry.yaml_path.parent.relative_to(_TASKS).as_posix()


def _joined(numbers: Iterable[int]) -> str:
    return ",".join(str(number) for number in numbers)


def _task_letters(entry: Entry) -> Iterable[str]:
    config: dict[str, Any] = entry.cfg or {}
    if entry.kind is Kind.PY_TASK:
        file, _, name = str(config["class"]).rpartition(".")
        return {_LETTERS[word] for word in _request_types(Path(f"{file}.py"), name)} or {"g"}
    return {_LETTERS[output_type_of(config)]}


@cache
def _request_types(module: Path, name: str) -> frozenset[str]:
    """Request types that a task written in Python makes, read from its source: importing it may need more packages."""
    classes = _classes(module)
    own = {
        keyword.value.value
        for call in ast.walk(classes[name])
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "request_type" and isinstance(keyword.value, ast.Constant)
    }
    if own:
        return frozenset(str(word) for word in own)
    bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name) and base.id in classes]
    return frozenset().union(*(_request_types(module, base) for base in bases))


@cache
def _classes(module: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
