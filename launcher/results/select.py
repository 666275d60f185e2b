"""Which invocations are meant: by id, unique prefix or folder, by a sweep, or all that fit filters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from launcher.errors import NotFound, ResultsError, nearest
from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import Journal
from launcher.results import read
from launcher.results.model import Record


@dataclass(frozen=True)
class Filters:
    """What invocations must be like; all of them without filters.

    `since`: begun at that time or later, in seconds since 1970. `models`, `tasks`: patterns (`*`, `?`, `[]`), of which
    one must fit the model's id or served name, or a task's key or name; the tasks that fit none are left out.
    """

    since: float | None = None
    models: Sequence[str] = ()
    tasks: Sequence[str] = ()

    @property
    def chooses(self) -> bool:
        """Whether any is set."""
        return self.since is not None or bool(self.models) or bool(self.tasks)


@dataclass(frozen=True)
class Picked:
    """One invocation that was asked for, by its folder. `problem`: why its results cannot be read, in a line."""

    id: str
    folder: Path
    filters: Filters = field(default_factory=Filters)

    @cached_property
    def _read(self) -> Record | _Unreadable:
        try:
            return read.load(self.folder)
        except (NotFound, ResultsError) as error:
            return _Unreadable(str(error), is_broken=isinstance(error, ResultsError))
        except OSError as error:
            return _Unreadable(f"{self.folder}: cannot be read: {error.strerror}", is_broken=True)

    @property
    def record(self) -> Record | None:
        """What it brought home, as far as the filters choose it; None if that cannot be read."""
        found = self._read
        return _chosen(found, self.filters) if isinstance(found, Record) else None

    @property
    def problem(self) -> str:
        """Why there is no record; empty if there is one."""
        return "" if isinstance(self._read, Record) else self._read.text

    @property
    def is_broken(self) -> bool:
        """Whether there are results and they are damaged."""
        return not isinstance(self._read, Record) and self._read.is_broken


@dataclass(frozen=True)
class _Unreadable:
    """Why an invocation has no record."""

    text: str
    is_broken: bool


def pick(ids: Sequence[str] = (), filters: Filters | None = None) -> list[Picked]:
    """The invocations of these ids, prefixes, folders or sweeps, in that order; without any all that fit, oldest first.

    Raises NotFound for an id that is none, and for a pattern that fits nothing.
    """
    filters = filters or Filters()
    found = list(_named(ids, filters) if ids else _all(filters))
    fitting = [one for one in found if _fits(one, filters)]
    _refuse_misspelt(found, fitting, filters)
    return fitting


def select(
    ids: Sequence[str] = (), *, since: float | None = None, model: Sequence[str] = (), task: Sequence[str] = ()
) -> list[Path]:
    """Folders of the invocations that `pick` finds."""
    return [found.folder for found in pick(ids, Filters(since, model, task))]


def _named(ids: Sequence[str], filters: Filters) -> Iterator[Picked]:
    journal: Journal | None = None
    for name in ids:
        folder = Path(name)
        if (folder / "plan.json").is_file() or (folder / "results.json").is_file():
            yield Picked(folder.resolve().name, folder, filters)
            continue
        journal = journal or Journal.default()
        for id_ in sweeps.expand(journal, [name], taken_over=True):
            invocation = journal.find(id_)
            yield Picked(invocation.id, Path(invocation.folder), filters)


def _all(filters: Filters) -> Iterator[Picked]:
    for invocation in reversed(Journal.default().invocations()):
        if filters.since is None or invocation.created >= filters.since:
            yield Picked(invocation.id, Path(invocation.folder), filters)


def _fits(found: Picked, filters: Filters) -> bool:
    """One that cannot be read fits where nothing but its time is asked for: what is broken is not passed over."""
    record = found.record
    if record is None:
        return not filters.models and not filters.tasks
    names = (record.model.model_id, record.model.served_name)
    return (not filters.models or _any(names, filters.models)) and (not filters.tasks or bool(record.tasks))


def _chosen(record: Record, filters: Filters) -> Record:
    if not filters.tasks:
        return record
    fitting = [task for task in record.tasks if _any((task.key, task.name), filters.tasks)]
    return replace(record, tasks=fitting)


def _any(names: Iterable[str | None], patterns: Sequence[str]) -> bool:
    return any(name is not None and fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _refuse_misspelt(found: list[Picked], fitting: list[Picked], filters: Filters) -> None:
    if fitting or not found:
        return
    if filters.models:
        known = {name for one in found if (record := one.record) for name in _models(record)}
        raise NotFound(f"no invocation of a model {', '.join(filters.models)}{nearest(filters.models[0], known)}")
    known = {task.key for one in found if isinstance(one._read, Record) for task in one._read.tasks}
    raise NotFound(f"no invocation with a task {', '.join(filters.tasks)}{nearest(filters.tasks[0], known)}")


def _models(record: Record) -> list[str]:
    return [name for name in (record.model.model_id, record.model.served_name) if name]


__all__ = ["Filters", "Picked", "pick", "select"]
