"""Write what an invocation brought home: the record for programs, the table for data frames, what reproduces it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from launcher.orchestrator.reasons import Reason, Status
from launcher.orchestrator.state import Attempt, RunOutcome, TaskOutcome
from launcher.plan.model import Plan, TaskPlan
from launcher.results import provenance, table, table_text
from launcher.results.model import AttemptRecord, AuxiliaryRecord, ModelRecord, Record, TaskRecord


def begin(plan: Plan, folder: Path) -> None:
    """Make the invocation's folder and write what is known before it runs: the resolved config and the plan."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.yaml", yaml.safe_dump(_without_unset(plan.config), sort_keys=False).encode())
    write_atomically(folder / "plan.json", msgspec.json.format(msgspec.json.encode(plan)))


@contextmanager
def config_folder(plan: Plan) -> Iterator[Path]:
    """A folder with the plan's resolved config as `config.yaml`, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="nv-eval-") as folder:
        (Path(folder) / "config.yaml").write_text(yaml.safe_dump(_without_unset(plan.config), sort_keys=False))
        yield Path(folder)


@dataclass(frozen=True)
class Written:
    """The record of an invocation, and which of its files could not be written, one line each."""

    record: Record
    problems: tuple[str, ...]
    saved: bool
    """Whether results.json, the record itself, is on disk."""


def finish(plan: Plan, outcome: RunOutcome, folder: Path, *, began: float | None = None) -> Written:
    """Write results.json, results.parquet, provenance.json and the forms that `export` asks for.

    `began`: when a resumed invocation began, in seconds since 1970. A file that cannot be written is a problem in the
    answer and keeps no other file from being written.
    """
    record = build(plan, outcome, began)
    problems: dict[str, str] = {}
    for name, write in _files(plan, outcome, folder, record).items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / name)
        except Exception as error:  # whatever one file meets, the others count
            reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{error}"
            problems[name] = f"{folder / name}: cannot be written: {reason or type(error).__name__}"
    return Written(record, tuple(problems.values()), saved="results.json" not in problems)


def _files(plan: Plan, outcome: RunOutcome, folder: Path, record: Record) -> dict[str, Callable[[Path], None]]:
    """What writes each file; the most important one first."""

    def write_provenance(path: Path) -> None:
        found = provenance.collect(plan, folder, {task.key for task in outcome.tasks if task.scores})
        write_atomically(path, msgspec.json.format(msgspec.json.encode(found, enc_hook=str)))

    files: dict[str, Callable[[Path], None]] = {
        "results.json": lambda path: write_atomically(path, msgspec.json.format(msgspec.json.encode(record)))
    }
    if "csv" in plan.export_formats:
        files["scores.csv"] = lambda path: write_atomically(path, table.to_csv([record]).encode())
    if "markdown" in plan.export_formats:
        files["scores.md"] = lambda path: write_atomically(path, table_text.to_markdown([record]).encode())
    files["results.parquet"] = lambda path: table.write_parquet([record], path)
    files["provenance.json"] = write_provenance
    return files


def build(plan: Plan, outcome: RunOutcome, began: float | None = None) -> Record:
    """The record of an invocation that has ended; `began` as in `finish`."""
    plans = {task.key: task for task in plan.tasks}
    return Record(
        invocation=plan.invocation,
        created=time.time() - outcome.seconds if began is None else began,
        execution=plan.execution,
        deployment=plan.deployment,
        model=_model(plan, Path(outcome.folder)),
        seconds=round(outcome.seconds, 3),
        resumed=began is not None,
        complete=all(task.status is Status.SCORED for task in outcome.tasks),
        tasks=[_task(task, plans[task.key], Path(outcome.folder)) for task in outcome.tasks],
        auxiliary=_auxiliary(plan, outcome),
        exit_code=outcome.exit_code,
        left=outcome.leftovers,
    )


def _model(plan: Plan, folder: Path) -> ModelRecord:
    first = plan.tasks[0]
    server = first.endpoint.server if first.endpoint else None
    said = provenance.served_revision(plan, folder)
    return ModelRecord(
        model_id=server.model_id if server else None,
        served_name=server.served_name if server else first.target.model,
        revision=(server.revision if server else None) or said,
    )


def _auxiliary(plan: Plan, outcome: RunOutcome) -> list[AuxiliaryRecord]:
    """The endpoints that tasks used beside their own, those that existed anyway too."""
    ended = {one.key: one for one in outcome.auxiliary}
    return [
        AuxiliaryRecord(
            name=one.key,
            tasks=[task.key for task in plan.tasks if one.key in task.auxiliary],
            model=_served(one, plan, Path(outcome.folder)),
            **(_made(ended[one.key]) if one.key in ended else {}),
        )
        for one in plan.auxiliary
    ]


def _made(outcome: TaskOutcome) -> dict[str, Any]:
    """How an auxiliary endpoint went that was made for the run."""
    return {
        "reason": outcome.reason.value,
        "detail": outcome.detail,
        "seconds": round(outcome.seconds, 3),
        "gpu_seconds": round(outcome.gpu_seconds, 3),
        "usd": None if outcome.usd is None else round(outcome.usd, 4),
        "attempts": [_attempt(attempt) for attempt in outcome.attempts],
        "evidence": {} if outcome.reason is Reason.RELEASED else outcome.evidence.lines(),
    }


def _served(task: TaskPlan, plan: Plan, folder: Path) -> ModelRecord:
    server = task.endpoint.server if task.endpoint else None
    said = provenance.auxiliary_revision(task, plan, folder)
    return ModelRecord(
        model_id=server.model_id if server else None,
        served_name=server.served_name if server else task.target.model,
        revision=(server.revision if server else None) or said,
    )


def _task(outcome: TaskOutcome, plan: TaskPlan, folder: Path) -> TaskRecord:
    return TaskRecord(
        key=outcome.key,
        name=outcome.name,
        harness=outcome.harness,
        status=outcome.status.value,
        reason=outcome.reason.value,
        detail=outcome.detail,
        seconds=round(outcome.seconds, 3),
        gpu_seconds=round(outcome.gpu_seconds, 3),
        usd=None if outcome.usd is None else round(outcome.usd, 4),
        tokens=provenance.tokens(plan, folder) if outcome.scores else None,
        attempts=[_attempt(attempt) for attempt in outcome.attempts],
        scores=list(outcome.scores),
        evidence=outcome.evidence.lines(),
        settings=_without_unset(msgspec.to_builtins(plan.settings)),
    )


def _attempt(attempt: Attempt) -> AttemptRecord:
    return AttemptRecord(
        number=attempt.number,
        reason=attempt.reason.value,
        detail=attempt.detail,
        endpoint_seconds=round(attempt.endpoint_seconds, 3),
        evidence=attempt.evidence.lines(),
    )


def _without_unset(value: Any) -> Any:
    """Without keys that hold nothing; a reference in its YAML form, so that the file can be run again."""
    if isinstance(value, dict):
        if set(value) == {"env", "secret"}:
            return f"${{oc.env:{value['env']}}}" if value["env"] else {"secret": value["secret"]}
        return {name: _without_unset(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_unset(item) for item in value]
    return value


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


__all__ = ["Written", "begin", "build", "config_folder", "finish", "write_atomically"]
