"""The scores of all invocations in one table, page by page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import islice
from typing import ClassVar
from urllib.parse import urlencode

from launcher.harnesses.spec import Score
from launcher.results.compare_text import arrow
from launcher.results.model import TaskRecord
from launcher.results.table import label
from launcher.view.listing import whole
from launcher.view.records import Records
from launcher.view.watcher import Run

PAGE = 100
"""Rows of a page."""


@dataclass(frozen=True)
class Asked:
    """Which scores are wanted: of ids that begin so, models and tasks with this text or of this glob, so many days old.

    Globs fit as in `nv-eval results`.
    """

    CHOICES: ClassVar[dict[int, str]] = {0: "at any time", 1: "in the last day", 7: "in 7 days", 30: "in 30 days"}

    id: str = ""
    model: str = ""
    task: str = ""
    days: int = 0
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """As the address says it."""
        id_, model, task = (query.get(name, "").strip() for name in ("id", "model", "task"))
        return cls(id_, model, task, whole(query.get("days", ""), 0), whole(query.get("page", ""), 1))

    def address(self, page: int) -> str:
        """The query of an address that asks for another page."""
        said = {"id": self.id, "model": self.model, "task": self.task, "days": str(self.days or ""), "page": str(page)}
        return urlencode({name: value for name, value in said.items() if value})

    def fits(self, run: Run) -> bool:
        """Whether an invocation may have such scores."""
        is_recent = not self.days or run.status.created >= time.time() - self.days * 86400
        return is_recent and run.id.startswith(self.id) and _fits(run.model, self.model)

    def has(self, task: TaskRecord, score: Score) -> bool:
        """Whether a score is wanted."""
        return any(_fits(name, self.task) for name in (task.key, task.name, score.task))


@dataclass(frozen=True)
class Line:
    """One score, or why an invocation shows none (`problem`)."""

    run: Run
    task: str = ""
    name: str = ""
    metric: str = ""
    score: Score | None = None
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """One page of the table."""

    lines: Sequence[Line]
    has_more: bool


def table(runs: Sequence[Run], records: Records, asked: Asked) -> Table:
    """The page that is wanted; no more results are read than it takes."""
    first = (asked.page - 1) * PAGE
    found = list(islice(_lines(runs, records, asked), first, first + PAGE + 1))
    return Table(found[:PAGE], len(found) > PAGE)


@lru_cache(maxsize=10_000)  # the same few names come in thousands of rows
def _fits(name: str, wanted: str) -> bool:
    return wanted.lower() in name.lower() or fnmatchcase(name, wanted)


def _lines(runs: Sequence[Run], records: Records, asked: Asked) -> Iterator[Line]:
    for run in runs:
        if not asked.fits(run) or run.status.keeps_endpoint:
            continue
        found = records.of(run.folder)
        if found.is_broken:
            yield Line(run, problem=found.problem)
        for task in found.record.tasks if found.record else ():
            for score in task.scores:
                if asked.has(task, score):
                    metric = arrow(score.metric, score.higher_is_better)
                    yield Line(run, task.key, label(task, score), metric, score)
