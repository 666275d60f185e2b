"""A comparison for people: cells that every form shares, and the Markdown form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from launcher.plan.words import counted
from launcher.results.compare import Comparison, Flip, Row, RunInfo, Versus
from launcher.results.table import number, whole

HEADS = (
    "task",
    "metric",
    "filter",
    "n",
    "base",
    "new",
    "change",
    "95 % interval",
    "up",
    "down",
    "test",
    "p",
    "p Holm",
    "detectable",
    "verdict",
)
LEFT = ("task", "metric", "filter", "test", "verdict")
"""Columns of text; the others hold numbers."""
FLIP_HEADS = ("id", "base", "new", "prompt", "target", "answer of base", "answer of new")
_INERT = str.maketrans({letter: f"&#{ord(letter)};" for letter in "<>|`&\\*[]#"})
_SHOWN = 60
"""Characters of a text in a table of flips."""


def cells(row: Row) -> list[str]:
    """One row under HEADS."""
    interval = "-" if row.low is None or row.high is None else f"{row.low:+.4f} to {row.high:+.4f}"
    return [
        row.label,
        arrow(row.metric, row.higher_is_better),
        row.filter,
        whole(row.n),
        number(row.baseline_value),
        number(row.candidate_value),
        "-" if row.difference is None else f"{row.difference:+.4f}",
        interval,
        whole(row.rose),
        whole(row.fell),
        row.method.value,
        probability(row.p),
        probability(row.p_holm),
        number(row.detectable),
        row.verdict.value + (" (forced)" if row.forced else ""),
    ]


def flip_cells(flip: Flip) -> list[str]:
    """One sample under FLIP_HEADS."""
    texts = (flip.prompt, flip.target, flip.baseline_answer, flip.candidate_answer)
    return [str(flip.id), f"{flip.baseline_value:g}", f"{flip.candidate_value:g}", *(_start(text) for text in texts)]


def _start(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def arrow(metric: str, higher: bool | None) -> str:
    """A metric with its direction; a question mark where nobody says it."""
    return f"{metric} ?" if higher is None else f"{metric} {'↑' if higher else '↓'}"


def probability(p: float | None) -> str:
    """A p-value as people read it."""
    if p is None:
        return "-"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def title(run: RunInfo) -> str:
    """A run with its model, and whether it is whole."""
    names = ", ".join(name for name in (run.model, run.deployment) if name)
    state = (", taken over" if run.taken_over else "") + ("" if run.complete else ", not complete")
    return run.invocation + (f" ({names})" if names else "") + state


def remarks(versus: Versus) -> Iterator[str]:
    """What a reader must know beside the numbers, one line each; said once of rows that share it."""
    rows_of: dict[str, list[Row]] = {}
    for row in versus.rows:
        for line in (*(f"forced: {one}" for one in row.forced), *row.notes):
            rows_of.setdefault(f"{row.label}\0{line}", []).append(row)
    for key, rows in rows_of.items():
        name, _, line = key.partition("\0")
        every = sum(row.label == name for row in versus.rows) == len(rows)
        which = "" if every else " " + ", ".join(_metric(row) for row in rows)
        yield f"{name}{which}: {line}"
    yield from (f"only in the baseline: {task}" for task in versus.only_baseline)
    yield from (f"only in {versus.candidate.invocation}: {task}" for task in versus.only_candidate)


def _metric(row: Row) -> str:
    return row.metric if row.filter == "none" else f"{row.metric} {row.filter}"


def footer(comparison: Comparison) -> str:
    """How the numbers came about."""
    if not comparison.tests:
        return "Nothing could be tested: no row has samples that pair, or standard errors."
    level = f"{comparison.alpha:g}" + (f" / {comparison.tests}" if comparison.tests > 1 else "")
    return (
        f"p corrected by Holm for {counted(comparison.tests, 'test')}; detectable: the smallest change that as many "
        f"samples show with {comparison.power:.0%} power at {level}; {comparison.resamples} resamples, "
        f"seed {comparison.seed}."
    )


def markdown(comparison: Comparison) -> str:
    """The whole comparison in Markdown."""
    lines = []
    for versus in comparison.candidates:
        lines += [f"## {safe(title(versus.candidate))} against {safe(title(comparison.baseline))}", ""]
        lines += [*table(HEADS, (cells(row) for row in versus.rows), LEFT), ""]
        lines += remark_list(remarks(versus))
        for row in versus.rows:
            if row.flips:
                flips = table(FLIP_HEADS, (flip_cells(flip) for flip in row.flips), FLIP_HEADS)
                lines += ["", f"### {safe(row.label)} {safe(row.metric)} {safe(row.filter)}", "", *flips]
        lines.append("")
    return "\n".join([*lines, footer(comparison)]) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[str]) -> list[str]:
    """A Markdown table; columns that are not `left` are aligned to the right."""
    rule = "|".join("---" if head in left else "---:" for head in heads)
    return [f"| {' | '.join(heads)} |", f"|{rule}|", *(f"| {' | '.join(map(safe, row))} |" for row in rows)]


def remark_list(lines: Iterable[str]) -> list[str]:
    """Lines as a Markdown list."""
    return [f"- {safe(line)}" for line in lines]


def safe(text: str) -> str:
    """Text of others as a cell: nothing in it is markup."""
    return "".join(letter if letter.isprintable() else " " for letter in text).translate(_INERT)


__all__ = [
    "FLIP_HEADS",
    "HEADS",
    "LEFT",
    "cells",
    "flip_cells",
    "footer",
    "markdown",
    "remark_list",
    "remarks",
    "safe",
    "table",
    "title",
]
