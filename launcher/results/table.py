"""The scores table: one row for each number, the same columns in results.parquet, CSV and the data frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.harnesses.spec import Score
from launcher.results import parquet
from launcher.results.intervals import of
from launcher.results.macro import averages
from launcher.results.model import Record, TaskRecord
from launcher.text import plain

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "invocation": "string",
    "created": "float64",
    "model": "string",
    "model_id": "string",
    "revision": "string",
    "execution": "string",
    "deployment": "string",
    "task_key": "string",
    "task": "string",
    "harness": "string",
    "status": "string",
    "reason": "string",
    "metric": "string",
    "filter": "string",
    "value": "float64",
    "stderr": "float64",
    "low": "float64",
    "high": "float64",
    "interval": "string",
    "n": "int64",
    "higher_is_better": "bool",
    "num_fewshot": "int64",
    "version": "string",
    "group": "bool",
    "gpu_seconds": "float64",
    "usd": "float64",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
}
"""Column names and their Arrow types; all may be null."""

AVERAGE = "average"
"""What stands for the task in a row that is a macro average."""


def rows(records: Iterable[Record], *, macro: bool = False) -> list[dict[str, Any]]:
    """One dictionary for each score, with the keys of COLUMNS, and one for each task without scores.

    `macro`: also one for each macro average, see `launcher.results.macro`.
    """
    found = []
    for record in records:
        for task in record.tasks:
            found += [_row(record, task, of(score)) for score in task.scores] or [_row(record, task, None)]
        if macro:
            found += [_average(record, score) for score in averages(record)]
    return found


def _row(record: Record, task: TaskRecord, score: Score | None) -> dict[str, Any]:
    tokens = task.tokens
    return {
        **_of_run(record),
        "task_key": task.key,
        "harness": task.harness,
        "status": task.status,
        "reason": task.reason,
        **({"task": task.name} if score is None else _of_score(score)),
        "gpu_seconds": task.gpu_seconds,
        "usd": task.usd,
        "prompt_tokens": tokens.prompt if tokens else None,
        "completion_tokens": tokens.completion if tokens else None,
    }


def _average(record: Record, score: Score) -> dict[str, Any]:
    made = record.complete and score.value is not None
    said = {
        "task_key": AVERAGE,
        "status": "scored" if made else "failed",
        "reason": "" if made else "tasks_without_scores",
    }
    return dict.fromkeys(COLUMNS) | _of_run(record) | _of_score(score) | said


def _of_run(record: Record) -> dict[str, Any]:
    model = record.model
    return dict.fromkeys(COLUMNS) | {
        "invocation": record.invocation,
        "created": record.created,
        "model": model.served_name,
        "model_id": model.model_id,
        "revision": model.revision,
        "execution": record.execution,
        "deployment": record.deployment,
    }


def _of_score(score: Score) -> dict[str, Any]:
    return {
        "task": score.task,
        "metric": score.metric,
        "filter": score.filter,
        "value": score.value,
        "stderr": score.stderr,
        "low": score.low,
        "high": score.high,
        "interval": score.interval or None,
        "n": score.n,
        "higher_is_better": score.higher_is_better,
        "num_fewshot": score.num_fewshot,
        "version": score.version,
        "group": score.group,
    }


def write_parquet(records: Sequence[Record], path: Path, *, macro: bool = False) -> None:
    """Write the table as Parquet."""
    parquet.write(rows(records, macro=macro), COLUMNS, path)


def frame(records: Sequence[Record], *, macro: bool = False) -> pd.DataFrame:
    """The table as a data frame with nullable column types."""
    import pandas as pd

    kinds = {"string": "string", "float64": "Float64", "int64": "Int64", "bool": "boolean"}
    data = pd.DataFrame(rows(records, macro=macro), columns=list(COLUMNS))
    return data.astype({name: kinds[kind] for name, kind in COLUMNS.items()})


def to_csv(records: Sequence[Record], *, macro: bool = False) -> str:
    """The table as CSV; an empty field where there is no value.

    Text that a spreadsheet would compute has an apostrophe before it.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in rows(records, macro=macro))
    return out.getvalue()


def cell(value: Any) -> Any:
    """A value for CSV: text of others commands neither a terminal nor a spreadsheet."""
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def label(task: TaskRecord, score: Score) -> str:
    """What a row is called: the task's key, and the sub-task where it is another."""
    return task.key if score.task == task.name else f"{task.key} / {score.task}"


def number(value: float | None) -> str:
    """A score as people read it; a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def whole(value: int | None) -> str:
    """A count as people read it; a dash where there is none."""
    return "-" if value is None else str(value)
