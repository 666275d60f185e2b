"""The parts of an invocation's page, each of which is sent again by itself when it has changed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from launcher.errors import LauncherError
from launcher.orchestrator.journal import Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.status import TaskStatus
from launcher.results import timeline
from launcher.results.compare_text import arrow
from launcher.results.model import AuxiliaryRecord, TaskRecord
from launcher.results.table import label
from launcher.results.timeline import Span, Timeline
from launcher.view import listing
from launcher.view.records import Found, Records, document, text
from launcher.view.shown import dom, render
from launcher.view.watcher import Run, Watcher

_FINE = ("", Reason.COMPLETED, Reason.RELEASED)
WIDTH = 1000
"""Of a time line, in units of its drawing."""


@dataclass(frozen=True)
class Bar:
    """One endpoint or job in a time line: it exists from `x`, works from `ready`, and ends `wide` units after `x`."""

    span: Span
    x: float
    ready: float
    wide: float
    seconds: float
    idle: float | None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.span.ended is not None


def parts(records: Records, watcher: Watcher, run: Run, *, is_update: bool = False) -> dict[str, Markup]:
    """All parts by their ids on the page; `is_update`: to be put into a page that is open."""
    found = records.of(run.folder)
    values = {"run": run, "found": found, "is_update": is_update, "listing": listing}
    tokens = {task.key: task.tokens for task in found.record.tasks} if found.record else {}
    lines = {
        dom("task", task.task): _part("part_task.html", task=task, tokens=tokens.get(task.task), **values)
        for task in run.status.tasks
    }
    return {
        "head": _part("part_head.html", **values),
        **lines,
        "scores": _part("part_scores.html", label=label, arrow=arrow, **values),
        "timeline": _part("part_timeline.html", **_timeline(watcher, run), **values),
        "failures": _part("part_failures.html", endings=list(_endings(run, found)), **values),
        "files": _part("part_files.html", files=list(_files(run)), **values),
    }


def task_part(run: Run, task: TaskStatus, *, is_update: bool = False) -> Markup:
    """How one task stands, for its own page."""
    return _part("part_task_head.html", run=run, task=task, is_update=is_update, listing=listing)


def _part(template: str, **values: object) -> Markup:
    return Markup(render(template, **values))  # noqa: S704 - a template of ours, which escapes what it is given


def _endings(run: Run, found: Found) -> Iterator[dict[str, object]]:
    """Tasks that ended without scores, and attempts that came before others, with the last lines of their logs."""
    known: dict[str, TaskRecord | AuxiliaryRecord] = {}
    if found.record:
        known = {task.key: task for task in found.record.tasks} | {one.name: one for one in found.record.auxiliary}
    for task in run.status.tasks:
        record = known.get(task.task)
        for attempt in record.attempts if record else ():
            yield {"task": task.task, "attempt": attempt.number, "said": attempt, "is_last": False}
        said = record or task
        if said.reason not in _FINE:
            yield {"task": task.task, "attempt": task.attempt, "said": said, "is_last": True}


def _files(run: Run) -> Iterator[tuple[str, str, str]]:
    """Name, meaning and content of what makes the scores reproducible."""
    for name, meaning in (
        ("config.yaml", "the resolved config"),
        ("provenance.json", "versions, digests, revisions, fingerprints, seeds"),
    ):
        content = text(run.folder, name)
        if content:
            yield name, meaning, _pretty(run, name, content)


def _pretty(run: Run, name: str, content: str) -> str:
    if not name.endswith(".json"):
        return content
    value, problem = document(run.folder, name)
    return f"{problem}\n{content}".strip() if problem else json.dumps(value, indent=2, ensure_ascii=False)


def _timeline(watcher: Watcher, run: Run) -> dict[str, object]:
    try:
        journal = Journal.reading(watcher.path)
        try:
            found = timeline.of(journal, journal.find(run.id))
        finally:
            journal.close()
    except LauncherError as error:
        return {"bars": [], "length": 0.0, "problem": str(error)}
    now = time.time()
    over = max([found.until(now), *(span.ended or 0.0 for span in found.spans)])
    length = max(1.0, over - found.began)
    return {"bars": [_bar(found, span, length, now) for span in found.spans], "length": length, "problem": ""}


def _bar(found: Timeline, span: Span, length: float, now: float) -> Bar:
    seconds = span.seconds(found.until(now))
    scale = WIDTH / length
    x = max(0.0, (span.began - found.began) * scale)
    wide = max(1.5, seconds * scale)
    ready = wide if span.ready is None else min(wide, max(0.0, (span.ready - span.began) * scale))
    idle = found.idle(span, found.until(now)) if span.kind == "endpoint" else None
    return Bar(span, round(x, 2), round(ready, 2), round(wide, 2), seconds, idle)
