"""A report in Markdown: the same as in the HTML form but for charts and the sample browser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import launcher
from launcher.results import compare_text
from launcher.results.compare import Versus
from launcher.results.compare_text import safe, table
from launcher.results.report.content import (
    ENDPOINT_HEADS,
    ENDPOINT_LEFT,
    Failure,
    Report,
    RunView,
    endpoint_rows,
    time_summary,
)

_FENCE = re.compile("`{3,}")


def render(report: Report) -> str:
    """The report as text."""
    parts = (_runs(report), _scores(report), _differences(report), _times(report), _failures(report), _record(report))
    lines = [
        f"# {safe(report.title)}",
        "",
        f"Evaluation report, written {report.written} by nv-eval {launcher.__version__}. Samples are in the HTML form.",
        *(line for part in parts for line in part),
    ]
    return "\n".join(lines) + "\n"


def _runs(report: Report) -> Iterator[str]:
    yield from ("", "## Runs", "")
    for run in report.runs:
        facts = "; ".join(f"{name}: {text}" for name, text in run.facts)
        yield f"- **{run.mark}** {safe(run.name)}: {safe(run.problem or f'{run.state}; {facts}')}"


def _scores(report: Report) -> Iterator[str]:
    yield from ("", "## Scores", "")
    heads = ["task", "metric", "filter"]
    for run in report.readable:
        heads += [run.mark, f"{run.mark}: 95 % interval, samples"]
    rows = (
        [
            row.label,
            row.metric,
            row.filter,
            *(text for cell in row.cells for text in (cell.text, _note(cell.note, cell.n))),
        ]
        for row in report.scores
    )
    yield from table(heads, rows, ("task", "metric", "filter"))


def _note(note: str, count: str) -> str:
    return ", ".join(text for text in (note, count) if text)


def _differences(report: Report) -> Iterator[str]:
    if len(report.runs) < 2:
        return
    yield from ("", "## Differences")
    if report.no_comparison:
        yield from ("", safe(report.no_comparison))
    if report.comparison is None:
        return
    for versus in report.comparison.candidates:
        yield from _versus(versus, compare_text.title(report.comparison.baseline))
    yield from ("", compare_text.footer(report.comparison))


def _versus(versus: Versus, baseline: str) -> Iterator[str]:
    yield from ("", f"### {safe(compare_text.title(versus.candidate))} against {safe(baseline)}", "")
    if versus.rows:
        yield from table(compare_text.HEADS, (compare_text.cells(row) for row in versus.rows), compare_text.LEFT)
    if versus.refused:
        yield from ("", "Not compared, because it does not measure the same or cannot be read:", "")
        yield from compare_text.remark_list(versus.refused)
    yield ""
    yield from compare_text.remark_list(compare_text.remarks(versus))
    for row in versus.rows:
        if row.flips:
            yield from ("", f"#### Samples that changed: {safe(row.label)} {safe(row.metric)} {safe(row.filter)}", "")
            cells = (compare_text.flip_cells(flip) for flip in row.flips)
            yield from table(compare_text.FLIP_HEADS, cells, compare_text.FLIP_HEADS)


def _times(report: Report) -> Iterator[str]:
    yield from ("", "## Time line")
    for run in report.readable:
        yield from ("", f"### {run.mark} {safe(run.name)}", "")
        yield from _time(run)


def _time(run: RunView) -> Iterator[str]:
    if run.timeline is None:
        yield f"No time line: {safe(run.no_timeline)}"
        return
    rows = endpoint_rows(run.timeline)
    yield time_summary(rows)
    if rows:
        yield from ("", *table(ENDPOINT_HEADS, (row.cells for row in rows), ENDPOINT_LEFT))


def _failures(report: Report) -> Iterator[str]:
    yield from ("", "## Failures")
    if not report.failures:
        yield from ("", "Every task that can be read has scores.")
    for one in (*report.failures, *report.retried):
        yield from _failure(one)


def _failure(one: Failure) -> Iterator[str]:
    yield from ("", f"### {one.mark} {safe(one.task)}: {safe(one.reason)} ({safe(one.status)})")
    for text in (one.detail, f"What to do: {one.advice}." if one.advice else ""):
        if text:
            yield from ("", safe(text))
    for name, lines in one.evidence.items():
        yield from ("", f"Last lines of the {safe(name)}:", "", *_fenced("\n".join(lines)))


def _fenced(text: str) -> tuple[str, str, str]:
    """A block that nothing in the text can end."""
    longest = max((len(found) for found in _FENCE.findall(text)), default=2)
    fence = "`" * (longest + 1)
    shown = "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in text)
    return f"{fence}text", shown, fence


def _record(report: Report) -> Iterator[str]:
    yield from ("", "## Reproducibility record")
    for problem in report.record_problems:
        yield from ("", safe(problem))
    marks = [run.mark for run in report.readable]
    for group in report.record:
        if group.facts:
            yield from ("", f"### {safe(group.title)}", "")
            rows = ([("≠ " if fact.differs else "") + fact.name, *fact.values] for fact in group.facts)
            yield from table(("", *marks), rows, ("", *marks))
        if group.left_out:
            yield from ("", f"{group.left_out} more lines are in provenance.json and results.json.")
