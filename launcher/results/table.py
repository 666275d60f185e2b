"""The scores table: one row for each number, the same columns in results.parquet, CSV and the data frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.harnesses.spec import Score
from launcher.results.model import Record, TaskRecord

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "invocation": "string",
    "model": "string",
    "deployment": "string",
    "task_key": "string",
    "task": "string",
    "harness": "string",
    "metric": "string",
    "filter": "string",
    "value": "float64",
    "stderr": "float64",
    "n": "int64",
    "higher_is_better": "bool",
    "num_fewshot": "int64",
    "version": "string",
    "group": "bool",
}
"""Column names and their Arrow types; all may be null."""


def rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """One dictionary for each score, with the keys of COLUMNS."""
    return [_row(record, task, score) for record in records for task in record.tasks for score in task.scores]


def _row(record: Record, task: TaskRecord, score: Score) -> dict[str, Any]:
    return {
        "invocation": record.invocation,
        "model": record.model.served_name,
        "deployment": record.deployment,
        "task_key": task.key,
        "task": score.task,
        "harness": task.harness,
        "metric": score.metric,
        "filter": score.filter,
        "value": score.value,
        "stderr": score.stderr,
        "n": score.n,
        "higher_is_better": score.higher_is_better,
        "num_fewshot": score.num_fewshot,
        "version": score.version,
        "group": score.group,
    }


def write_parquet(records: Sequence[Record], path: Path) -> None:
    """Write the table as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"string": pa.string(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    pq.write_table(pa.Table.from_pylist(rows(records), schema=schema), path)


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """The table as a data frame with nullable column types."""
    import pandas as pd

    kinds = {"string": "string", "float64": "Float64", "int64": "Int64", "bool": "boolean"}
    data = pd.DataFrame(rows(records), columns=list(COLUMNS))
    return data.astype({name: kinds[kind] for name, kind in COLUMNS.items()})


def to_csv(records: Sequence[Record]) -> str:
    """The table as CSV; an empty field where there is no value."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(records))
    return out.getvalue()


def to_markdown(records: Sequence[Record]) -> str:
    """The table for people, in Markdown."""
    lines = ["| task | metric | filter | value | stderr | n | shots |", "|---|---|---|---:|---:|---:|---:|"]
    for record in records:
        for task in record.tasks:
            lines += [_markdown_row(task, score) for score in task.scores]
            if not task.scores:
                lines.append(f"| {task.key} | {task.status}: {task.reason} | | | | | |")
    return "\n".join(lines) + "\n"


def _markdown_row(task: TaskRecord, score: Score) -> str:
    return (
        f"| {label(task, score)} | {score.metric} | {score.filter} | {number(score.value)} | {number(score.stderr)} "
        f"| {whole(score.n)} | {whole(score.num_fewshot)} |"
    )


def label(task: TaskRecord, score: Score) -> str:
    """What a row is called: the task's key, and the sub-task where it is another."""
    return task.key if score.task == task.name else f"{task.key} / {score.task}"


def number(value: float | None) -> str:
    """A score as people read it; a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def whole(value: int | None) -> str:
    """A count as people read it; a dash where there is none."""
    return "-" if value is None else str(value)
