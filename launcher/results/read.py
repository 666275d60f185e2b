"""Read results back: of invocations by their folder, also of one that never came to write them."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from launcher.errors import NotFound, ResultsError
from launcher.harnesses.spec import Score
from launcher.results.model import SCHEMA, ModelRecord, Record, TaskRecord


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
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except msgspec.DecodeError as error:
        raise ResultsError(f"{path}: broken: {error}") from None
    if record.schema != SCHEMA:
        raise ResultsError(f"{path}: written as {record.schema}, this version reads {SCHEMA}")
    return record


def _partial(folder: Path) -> Record:
    """What tasks had brought home before the launcher died."""
    found = sorted(folder.glob("*/scores.json"))
    if not found:
        raise NotFound(f"{folder}: no scores have come home")
    tasks = [_task(path) for path in found]
    return Record(
        invocation=folder.name,
        created=folder.stat().st_mtime,
        execution="",
        deployment="",
        model=ModelRecord(),
        seconds=math.nan,
        complete=False,
        tasks=tasks,
    )


def _task(path: Path) -> TaskRecord:
    try:
        scores = msgspec.json.decode(path.read_bytes(), type=list[Score])
    except msgspec.DecodeError as error:
        raise ResultsError(f"{path}: broken: {error}") from None
    key = path.parent.name
    name = scores[0].task if scores else key
    return TaskRecord(key=key, name=name, harness="", status="scored", reason="completed", scores=scores)
