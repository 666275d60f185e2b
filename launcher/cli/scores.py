"""Scores for people: a table, and under it what went wrong and what to do."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher.cli.text import plain
from launcher.harnesses.spec import Score
from launcher.orchestrator.reasons import MEANINGS, Reason
from launcher.plan.render import duration, money
from launcher.results.model import Record, TaskRecord
from launcher.results.table import label, number, whole

EVIDENCE_LINES = 5
WIDTH_OF_A_PIPE = 160
NARROWEST = 90
"""Columns below which a terminal wraps lines of the table rather than the table its cells."""


def print_record(record: Record, *, folder: str) -> None:
    """Print the scores of one invocation and where they are."""
    print_table([record])
    for task in record.tasks:
        if task.status != "scored":
            sys.stdout.write(failure(task))
    if record.left:
        sys.stdout.write(
            f"May still be running: {', '.join(record.left)}. Remove it: nv-eval cleanup {record.invocation}\n"
        )
    scored = sum(task.status == "scored" for task in record.tasks)
    sys.stdout.write(f"{scored} of {len(record.tasks)} tasks scored in {_time_and_cost(record)}.\n")
    sys.stdout.write(f"Results: {folder}\n")


def print_table(records: Sequence[Record]) -> None:
    """Print the scores of several invocations as one table."""
    console = Console(highlight=False)
    console.width = max(console.width, NARROWEST) if console.is_terminal else WIDTH_OF_A_PIPE
    table = Table(box=None, pad_edge=False, header_style="bold")
    several = len(records) > 1
    for name in (*(("run",) if several else ()), "task", "metric", "filter"):
        table.add_column(name, overflow="fold")
    for name in ("value", "stderr", "n", "shots"):
        table.add_column(name, justify="right")
    for record in records:
        for task in record.tasks:
            for row in _rows(task):
                table.add_row(*([record.invocation] if several else []), *(escape(cell) for cell in row))
    console.print(table)


def _rows(task: TaskRecord) -> list[list[str]]:
    if not task.scores:
        return [[task.key, task.reason.replace("_", " "), "", "-", "-", "-", "-"]]
    return [_row(task, score) for score in task.scores]


def _row(task: TaskRecord, score: Score) -> list[str]:
    metric = _arrow(score.metric, score.higher_is_better)
    numbers = [number(score.value), number(score.stderr), whole(score.n), whole(score.num_fewshot)]
    return [label(task, score), metric, score.filter, *numbers]


def _arrow(metric: str, higher: bool | None) -> str:
    return metric if higher is None else f"{metric} {'↑' if higher else '↓'}"


def failure(task: TaskRecord) -> str:
    """How a task ended that has no scores, what to do, and the last lines of its logs."""
    advice = MEANINGS[Reason(task.reason)].advice
    if task.status == "stopped":
        return f"{task.key}: {task.detail or advice}\n"
    lines = [f"{task.key}: {task.reason.replace('_', ' ')}: {plain(task.detail) or advice}"]
    if task.detail and advice:
        lines.append(f"  {advice}")
    for source, text in task.evidence.items():
        lines += [f"  {source} | {plain(line)}" for line in text[-EVIDENCE_LINES:]]
    return "\n".join(lines) + "\n"


def _time_and_cost(record: Record) -> str:
    hours = sum(task.gpu_seconds for task in record.tasks) / 3600
    usd = [task.usd for task in record.tasks if task.usd is not None]
    spent = [*([f"{hours:.3f} GPU-hours"] if hours else []), *([money(sum(usd))] if usd else [])]
    if not record.resumed:
        return ", ".join([duration(record.seconds), *spent])
    since = f"{duration(record.seconds)} since it was resumed"
    return f"{since}; {', '.join(spent)} in all" if spent else since
