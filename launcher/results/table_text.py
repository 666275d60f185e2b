"""The scores table for people: cells, and the forms that papers and pull requests take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from launcher.harnesses.spec import Score
from launcher.results.intervals import of
from launcher.results.macro import averages
from launcher.results.model import Record, TaskRecord
from launcher.results.table import label, number, whole
from launcher.text import plain

NONE = "-"
LEFT = frozenset({"run", "model", "task", "metric", "filter"})
"""Columns of text; all others are of numbers."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Cells:
    """The table as text: one list of cells for each row, as many as there are heads."""

    heads: list[str]
    rows: list[list[str]]


def cells(records: Sequence[Record], *, macro: bool = False) -> Cells:
    """The table of several invocations, which has their ids and models, or of one.

    What a task cost and its tokens stand in its first row, in columns that are there if anything is known.
    """
    several = len(records) > 1
    tasks = [task for record in records for task in record.tasks]
    extra = [
        name
        for name, known in (("tokens", any(t.tokens for t in tasks)), ("USD", any(_costs(t) for t in tasks)))
        if known
    ]
    heads = [
        *(("run", "model") if several else ()),
        "task",
        "metric",
        "filter",
        "value",
        "stderr",
        "95 %",
        "n",
        "shots",
    ]
    found = []
    for record in records:
        before = [record.invocation, record.model.served_name or NONE] if several else []
        found += [[*before, *row] for row in _of_record(record, extra, macro=macro)]
    return Cells([*heads, *extra], found)


def _costs(task: TaskRecord) -> bool:
    return task.usd is not None


def _of_record(record: Record, extra: Sequence[str], *, macro: bool) -> Iterator[list[str]]:
    for task in record.tasks:
        told = {"tokens": _tokens(task), "USD": NONE if task.usd is None else f"{task.usd:.2f}"}
        body = [_score(label(task, score), score) for score in task.scores] or [_without(task)]
        yield [*body[0], *(told[name] for name in extra)]
        yield from ([*row, *("" for _ in extra)] for row in body[1:])
    if macro:
        yield from ([*_score(score.task, score), *("" for _ in extra)] for score in averages(record))


def _without(task: TaskRecord) -> list[str]:
    return [task.key, task.reason.replace("_", " "), "", *([NONE] * 5)]


def _score(name: str, score: Score) -> list[str]:
    known = of(score)
    interval = NONE if known.low is None else f"{number(known.low)} to {number(known.high)}"
    numbers = [number(score.value), number(score.stderr), interval, whole(score.n), whole(score.num_fewshot)]
    return [name, arrow(score.metric, score.higher_is_better), score.filter, *numbers]


def arrow(metric: str, higher: bool | None) -> str:
    """A metric with the direction that is better, where somebody says which one that is."""
    return metric if higher is None else f"{metric} {'↑' if higher else '↓'}"


def _tokens(task: TaskRecord) -> str:
    return NONE if task.tokens is None else f"{task.tokens.prompt} + {task.tokens.completion}"


def to_markdown(records: Sequence[Record], *, macro: bool = False) -> str:
    """The table in Markdown."""
    made = cells(records, macro=macro)
    rule = ["---" if head in LEFT else "---:" for head in made.heads]
    lines = [made.heads, rule, *([_markdown(cell) for cell in row] for row in made.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _markdown(text: str) -> str:
    return re.sub(r"([\\|<\[`])", r"\\\1", " ".join(plain(text).split()))


def to_latex(records: Sequence[Record], *, macro: bool = False) -> str:
    """The table as a LaTeX `tabular` with the rules of the package booktabs."""
    made = cells(records, macro=macro)
    columns = "".join("l" if head in LEFT else "r" for head in made.heads)
    head, *body = (_latex_line(line) for line in (made.heads, *made.rows))
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_line(line: Iterable[str]) -> str:
    escaped = ("".join(_LATEX.get(sign, sign) for sign in " ".join(plain(cell).split())) for cell in line)
    return " & ".join(escaped) + r" \\"


def to_text(records: Sequence[Record], *, macro: bool = False) -> str:
    """The table in columns, for pipes and for more rows than anybody looks at."""
    made = cells(records, macro=macro)
    table = [made.heads, *made.rows]
    widths = [max(len(line[place]) for line in table) for place in range(len(made.heads))]
    signs = ["<" if head in LEFT else ">" for head in made.heads]
    form = "  ".join(f"{{:{sign}{width}}}" for sign, width in zip(signs, widths, strict=True))
    return "".join(form.format(*line).rstrip() + "\n" for line in table)
