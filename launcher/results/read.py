"""Read results back: of invocations by their folder, also of one that never came to write them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import Struct

from launcher.decoding import decode
from launcher.errors import NotFound, ResultsError
from launcher.harnesses.spec import Score
from launcher.results.model import BROKEN, SCHEMA, ModelRecord, Record, TaskRecord

_LONGEST_NAME = 255
"""Bytes that file systems take for a name."""
_MOST = 2**53
"""More than any count; every program holds smaller ones exactly."""
UNFINISHED = "unfinished"
"""Status and reason of a task without scores in a run that has not written its results."""


def load(folder: Path) -> Record:
    """Results of one invocation.

    Raises:
        NotFound: nothing was brought home.
        ResultsError: the file is broken, or of another version.
    """
    path = folder / "results.json"
    if not path.is_file():
        return _partial(folder)
    try:
        record = decode(path.read_bytes(), Record)
    except (OSError, *BROKEN) as error:
        raise ResultsError(f"{path}: broken: {error}") from None
    if record.schema != SCHEMA:
        raise ResultsError(f"{path}: written as {record.schema}, this version reads {SCHEMA}")
    for problem in _problems(record):
        raise ResultsError(f"{path}: broken: {problem}")
    return record


def _problems(record: Record) -> Iterator[str]:
    """What no run writes: names that lead elsewhere as parts of a path, and numbers that cannot be."""
    if not _is_name(record.invocation):
        yield f"invocation: {ascii(record.invocation)[:60]}: cannot be an invocation's folder"
    keys: set[str] = set()
    for place, task in enumerate(record.tasks):
        if not _is_name(task.key):
            yield f"tasks[{place}].key: {ascii(task.key)[:60]}: cannot be a task's folder"
        if task.key in keys:
            yield f"tasks[{place}].key: {ascii(task.key)[:60]}: is there twice"
        keys.add(task.key)
        for score in task.scores:
            counts = [count for count in (score.n, score.num_fewshot) if count is not None]
            if (score.stderr or 0) < 0 or any(not 0 <= count < _MOST for count in counts):
                yield f"tasks[{place}].scores: {ascii(score.metric)[:60]}: a number of it cannot be"


def _is_name(key: str) -> bool:
    """Whether it can be the name of one folder, and leads nowhere else."""
    return key not in ("", ".", "..") and not set("/\\\0") & set(key) and len(key.encode()) <= _LONGEST_NAME


def _partial(folder: Path) -> Record:
    """What tasks have brought home of a run that has not written its results: it runs still, or its launcher died."""
    found = {path.parent.name: path for path in sorted(folder.glob("*/scores.json"))}
    if not found:
        raise NotFound(f"{folder}: no scores have come home")
    plan = _plan(folder)
    planned = {task.key: task for task in plan.tasks}
    scored = {key: _task(path, planned.get(key)) for key, path in found.items()}
    order = [*planned, *(key for key in scored if key not in planned)]
    return Record(
        invocation=folder.name,
        created=_begun(folder),
        execution=plan.execution,
        deployment=plan.deployment,
        model=_model(plan),
        seconds=math.nan,
        complete=False,
        tasks=[scored[key] if key in scored else _unfinished(planned[key]) for key in order],
    )


class _Server(Struct):
    model_id: str | None = None
    served_name: str | None = None
    revision: str | None = None


class _Endpoint(Struct):
    server: _Server


class _Target(Struct):
    model: str | None = None


class _TaskPlan(Struct):
    key: str
    name: str
    harness: str
    target: _Target
    endpoint: _Endpoint | None = None
    settings: dict[str, Any] = {}


class _Plan(Struct):
    """The parts of a plan that say what was to be evaluated."""

    execution: str = ""
    deployment: str = ""
    tasks: list[_TaskPlan] = []


def _plan(folder: Path) -> _Plan:
    """The plan of an invocation; nothing where it cannot be read: scores count without it."""
    try:
        return decode((folder / "plan.json").read_bytes(), _Plan)
    except (OSError, *BROKEN):
        return _Plan()


def _model(plan: _Plan) -> ModelRecord:
    if not plan.tasks:
        return ModelRecord()
    first = plan.tasks[0]
    server = first.endpoint.server if first.endpoint is not None else _Server(served_name=first.target.model)
    return ModelRecord(model_id=server.model_id, served_name=server.served_name, revision=server.revision)


def _begun(folder: Path) -> float:
    """When its first file was written."""
    return min((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)


def _unfinished(task: _TaskPlan) -> TaskRecord:
    settings = {name: value for name, value in task.settings.items() if value is not None}
    return TaskRecord(
        key=task.key, name=task.name, harness=task.harness, status=UNFINISHED, reason=UNFINISHED, settings=settings
    )


def _task(path: Path, planned: _TaskPlan | None) -> TaskRecord:
    try:
        scores = decode(path.read_bytes(), list[Score])
    except (OSError, *BROKEN) as error:
        raise ResultsError(f"{path}: broken: {error}") from None
    if planned is not None:
        return replace(_unfinished(planned), status="scored", reason="completed", scores=scores)
    key = path.parent.name
    name = scores[0].task if scores else key
    return TaskRecord(key=key, name=name, harness="", status="scored", reason="completed", scores=scores)
