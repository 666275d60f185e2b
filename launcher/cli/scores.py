"""Scores for people: a table, and under it what went wrong and what to do."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from launcher.cli.text import plain
from launcher.orchestrator.reasons import MEANINGS, Reason
from launcher.plan.render import duration, money
from launcher.results.model import AuxiliaryRecord, Record, TaskRecord
from launcher.results.table_text import LEFT, cells, to_text

EVIDENCE_LINES = 5
LONG = 500
"""Rows that nobody reads on a screen, and that would take seconds to be laid out for one."""
NARROWEST = 110
"""Columns below which a terminal wraps lines of the table rather than the table its cells."""


def print_record(record: Record, *, folder: str) -> None:
    """Print the scores of one invocation and where they are."""
    print_table([record])
    for task in record.tasks:
        if task.status != "scored":
            sys.stdout.write(failure(task))
    for one in record.auxiliary:
        sys.stdout.write(_auxiliary(one))
    if record.left:
        sys.stdout.write(
            f"May still be running: {', '.join(record.left)}. Remove it: nv-eval cleanup {record.invocation}\n"
        )
    scored = sum(task.status == "scored" for task in record.tasks)
    sys.stdout.write(f"{scored} of {len(record.tasks)} tasks scored in {_time_and_cost(record)}.\n")
    sys.stdout.write(f"Results: {folder}\n")


def print_table(records: Sequence[Record], *, macro: bool = False) -> None:
    """Print the scores of several invocations as one table; in plain columns where it is long or goes elsewhere."""
    console = Console(highlight=False)
    rows = sum(max(1, len(task.scores)) for record in records for task in record.tasks)
    if rows > LONG or not console.is_terminal:
        sys.stdout.write("".join(f"{plain(line)}\n" for line in to_text(records, macro=macro).splitlines()))
        return
    console.width = max(console.width, NARROWEST)
    made = cells(records, macro=macro)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in made.heads:
        table.add_column(head, justify="left" if head in LEFT else "right", overflow="fold")
    for row in made.rows:
        table.add_row(*(escape(plain(cell)) for cell in row))
    console.print(table)


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


def _auxiliary(one: AuxiliaryRecord) -> str:
    """One line of an auxiliary endpoint: what it served, for how long, what it cost; and how it ended if not well."""
    name = one.model.served_name or one.model.model_id
    if not one.reason:
        return f"Auxiliary {one.name}: {name}, which exists anyway.\n"
    cost = [] if one.usd is None else [money(one.usd)]
    hours = [f"{one.gpu_seconds / 3600:.3f} GPU-hours"] if one.gpu_seconds else []
    ended = "" if one.reason == Reason.RELEASED else f"; {one.reason.replace('_', ' ')}: {plain(one.detail)}"
    return f"Auxiliary {one.name}: {name}, {', '.join([duration(one.seconds), *hours, *cost])}{ended}.\n"


def _time_and_cost(record: Record) -> str:
    hours = sum(one.gpu_seconds for one in record.spenders) / 3600
    usd = [one.usd for one in record.spenders if one.usd is not None]
    spent = [*([f"{hours:.3f} GPU-hours"] if hours else []), *([money(sum(usd))] if usd else [])]
    if not record.resumed:
        return ", ".join([duration(record.seconds), *spent])
    since = f"{duration(record.seconds)} since it was resumed"
    return f"{since}; {', '.join(spent)} in all" if spent else since
