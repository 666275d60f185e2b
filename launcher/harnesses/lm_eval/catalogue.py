"""Every task that can be named: the user's folder first, then the offline tasks, then lm-eval's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from launcher.errors import ConfigError
from launcher.harnesses.lm_eval.definitions import group_members, output_type_of
from launcher.harnesses.lm_eval.index import Index, IndexEntry, load_index
from launcher.harnesses.offline import OUTPUT_TYPES as OFFLINE
from launcher.harnesses.offline import SAMPLES as OFFLINE_SAMPLES

if TYPE_CHECKING:
    from launcher.harnesses.lm_eval.user_tasks import UserFolder

_SAMPLES = {
    "arc_challenge": 1172,
    "arc_easy": 2376,
    "boolq": 3270,
    "gsm8k": 1319,
    "hellaswag": 10042,
    "humaneval": 164,
    "ifeval": 541,
    "lambada_openai": 5153,
    "mbpp": 500,
    "mmlu": 14042,
    "mmlu_pro": 12032,
    "openbookqa": 500,
    "piqa": 1838,
    "truthfulqa_mc1": 817,
    "truthfulqa_mc2": 817,
    "winogrande": 1267,
}
"""Sizes of the evaluated splits as published, for ordering tasks when slots are few."""


def samples(entry: IndexEntry) -> int | None:
    """Samples of a whole task, where known."""
    return entry.samples if entry.include_path or entry.samples else _SAMPLES.get(entry.name)


def find(name: str, include_path: str | None = None) -> IndexEntry:
    """What is known of a name.

    Raises ConfigError, with the nearest names, for one that nothing defines, and for a folder that does not exist.
    """
    folder = _folder(include_path)
    index = load_index()
    entry = _user_entry(name, folder, index) if folder else None
    entry = entry or _offline_entry(name) or index.get(name)
    if entry is None:
        raise ConfigError(_unknown(name, folder, index))
    return entry


def search(pattern: str | None = None, include_path: str | None = None) -> list[IndexEntry]:
    """Tasks and groups whose name contains `pattern` or matches it as a glob, in any case; all without a pattern.

    Where another lm-eval than the shipped index describes is installed, its index is made first, once.
    """
    chosen = {entry.name: entry for entry in _everything(include_path, lambda name: _matches(name, pattern))}
    return [chosen[name] for name in sorted(chosen)]


def _everything(include_path: str | None, wanted: Callable[[str], bool]) -> Iterator[IndexEntry]:
    """All entries whose name is wanted, those that win last."""
    index = load_index(build=True)
    yield from index.entries(wanted)
    yield from filter(None, map(_offline_entry, filter(wanted, OFFLINE)))
    folder = _folder(include_path)
    if folder:
        yield from filter(None, (_user_entry(name, folder, index) for name in filter(wanted, folder.names())))


def _folder(include_path: str | None) -> UserFolder | None:
    if not include_path:
        return None
    from launcher.harnesses.lm_eval.user_tasks import read_folder  # few runs need YAML here

    return read_folder(include_path)


def _matches(name: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    name, pattern = name.lower(), pattern.lower()
    return pattern in name or fnmatchcase(name, pattern)


def _offline_entry(name: str) -> IndexEntry | None:
    if name not in OFFLINE:
        return None
    return IndexEntry(name=name, kind="task", output_types=(OFFLINE[name],), samples=OFFLINE_SAMPLES)


def _user_entry(name: str, folder: UserFolder, index: Index) -> IndexEntry | None:
    if name not in folder.configs and name not in folder.tags:
        return None
    walk = _Walk(folder, index)
    walk.visit(name)
    config = folder.configs.get(name, {})
    return IndexEntry(
        name=name,
        kind="task" if "group" not in config and name in folder.configs else "group",
        output_types=tuple(sorted(walk.output_types)),
        groups=tuple(tag for tag, tasks in sorted(folder.tags.items()) if name in tasks),
        folders=tuple(sorted(walk.folders)),
        tasks=walk.tasks,
        include_path=folder.path,
        is_zero_shot=walk.is_zero_shot,
    )


class _Walk:
    """Collects what a name in the user's folder stands for; its members may be lm-eval's own."""

    def __init__(self, folder: UserFolder, index: Index) -> None:
        self._folder, self._index = folder, index
        self._seen: set[str] = set()
        self.output_types: set[str] = set()
        self.folders: set[str] = set()
        self.tasks = 0
        self.is_zero_shot = False

    def visit(self, name: str, output_type: str | None = None, shots: int | None = None) -> None:
        if name in self._seen:
            return
        self._seen.add(name)
        config = self._folder.configs.get(name)
        if config is None and name in self._folder.tags:
            for task in self._folder.tags[name]:
                self.visit(task, shots=shots)
        elif config is None:
            self._visit_known(name, output_type, shots)
        elif "group" in config:
            for member in group_members(config):
                self.visit(member.name, member.output_type, shots if member.num_fewshot is None else member.num_fewshot)
        else:
            self._add(output_type or output_type_of(config), config.get("num_fewshot") if shots is None else shots)

    def _visit_known(self, name: str, output_type: str | None, shots: int | None) -> None:
        """A member that the folder does not define: lm-eval's own, or one written inside the group."""
        entry = self._index.get(name)
        if entry is None:
            self._add(output_type or "generate_until", shots)
            return
        self.is_zero_shot |= entry.is_zero_shot if shots is None else shots == 0
        self.tasks += entry.tasks
        self.folders.update(entry.folders)
        self.output_types.update([output_type] if output_type else entry.output_types)

    def _add(self, output_type: str, shots: int | None) -> None:
        self.tasks += 1
        self.is_zero_shot |= shots == 0
        self.output_types.add(output_type)


def _unknown(name: str, folder: UserFolder | None, index: Index) -> str:
    where = f", nor in {folder.path}{_broken(folder)}" if folder else ""
    names: Iterable[str] = [*index.names(), *OFFLINE, *(folder.names() if folder else ())]
    close = get_close_matches(name, names, n=3)
    hint = f"did you mean {', '.join(close)}?" if close else "no name is close"
    return f"no task {name!r} in lm-eval {index.version}{where}; {hint} See: nv-eval ls tasks PATTERN"


def _broken(folder: UserFolder) -> str:
    count = len(folder.broken)
    return f" (unreadable files there: {count}; the first: {folder.broken[0]})" if count else ""
