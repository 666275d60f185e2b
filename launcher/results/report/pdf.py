"""A report as PDF, set by Typst: a wheel without system libraries, and texts reach it as data, never as markup."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import typst

import launcher
from launcher.errors import ResultsError
from launcher.results import compare_text
from launcher.results.compare import Versus
from launcher.results.report import charts
from launcher.results.report.charts import Chart, Style
from launcher.results.report.content import (
    ENDPOINT_HEADS,
    ENDPOINT_LEFT,
    FactGroup,
    Failure,
    Report,
    RunView,
    endpoint_rows,
    time_summary,
)

_STYLE = Style(font="Libertinus Serif", width=480)
"""A font that Typst brings along, and a width at which a page needs not make it smaller."""


def render(report: Report) -> bytes:
    """The report as a PDF of A4 pages. Raises ResultsError if Typst cannot set it."""
    template = (files("launcher.results.report") / "parts" / "report.typ").read_bytes()
    data = json.dumps(_data(report), ensure_ascii=False).encode("utf-8", "replace").decode()
    try:
        made = typst.compile(template, sys_inputs={"report": data})
    except typst.TypstError as error:
        raise ResultsError(f"the report cannot be set as PDF: {error}") from error
    return bytes(made)


def _data(report: Report) -> dict[str, Any]:
    return {
        "title": report.title,
        "written": f"{report.written} by nv-eval {launcher.__version__}",
        "runs": [_run(run) for run in report.runs],
        "marks": [run.mark for run in report.readable],
        "scores": [
            {
                "task": row.label,
                "metric": row.metric + ("" if row.filter in ("none", "-") else f" · {row.filter}"),
                "cells": [[cell.text, ", ".join(text for text in (cell.note, cell.n) if text)] for cell in row.cells],
            }
            for row in report.scores
        ],
        "several": len(report.runs) > 1,
        "no_comparison": report.no_comparison,
        "differences": _differences(report),
        "footer": compare_text.footer(report.comparison) if report.comparison else "",
        "signs": [[sign, verdict.value] for verdict, sign in charts.SIGNS.items()],
        "times": [_time(run) for run in report.readable],
        "phases": [[charts.COLOURS[phase], text] for phase, text in charts.PHASES.items()],
        "failures": [_failure(one) for one in (*report.failures, *report.retried)],
        "all_scored": not report.failures,
        "record_problems": report.record_problems,
        "record": [_group(group) for group in report.record if group.facts],
    }


def _run(run: RunView) -> dict[str, Any]:
    return {
        "mark": run.mark,
        "name": run.name,
        "state": run.state,
        "problem": run.problem,
        "facts": [list(fact) for fact in run.facts],
    }


def _differences(report: Report) -> list[dict[str, Any]]:
    if report.comparison is None:
        return []
    marks = [run.mark for run in report.readable]
    return [
        _difference(versus, f"{mark} against {marks[0]}")
        for mark, versus in zip(marks[1:], report.comparison.candidates, strict=True)
    ]


_LEFT_OUT = ("filter", "test", "p", "detectable", "up", "down")
"""Columns that a page has no room for; a filter stands behind its metric."""


def _difference(versus: Versus, title: str) -> dict[str, Any]:
    kept = [head for head in compare_text.HEADS if head not in _LEFT_OUT]
    rows = []
    for row in versus.rows:
        cells = dict(zip(compare_text.HEADS, compare_text.cells(row), strict=True))
        cells["metric"] += "" if row.filter == "none" else f" · {row.filter}"
        rows.append([cells[head] for head in kept])
    return {
        "title": title,
        "heads": kept,
        "left": [head in compare_text.LEFT for head in kept],
        "rows": rows,
        "chart": _drawing(charts.forest(versus.rows, _STYLE)),
        "refused": versus.refused,
        "remarks": list(compare_text.remarks(versus)),
        "flips": [
            {"title": f"{row.label} {row.metric}", "rows": [compare_text.flip_cells(flip) for flip in row.flips]}
            for row in versus.rows
            if row.flips
        ],
        "flip_heads": list(compare_text.FLIP_HEADS),
    }


def _drawing(chart: Chart | None) -> dict[str, Any] | None:
    return None if chart is None else {"svg": chart.wide, "alt": chart.summary}


def _time(run: RunView) -> dict[str, Any]:
    title = f"{run.mark} {run.name}"
    if run.timeline is None:
        return {"title": title, "summary": f"No time line: {run.no_timeline}", "rows": [], "heads": [], "left": []}
    rows = endpoint_rows(run.timeline)
    return {
        "title": title,
        "summary": time_summary(rows),
        "chart": _drawing(charts.gantt(run.timeline, _STYLE)),
        "heads": list(ENDPOINT_HEADS[1:]),
        "left": [head in ENDPOINT_LEFT for head in ENDPOINT_HEADS[1:]],
        "rows": [row.cells[1:] for row in rows],
    }


def _failure(one: Failure) -> dict[str, Any]:
    return {
        "title": f"{one.mark} {one.task}: {one.reason} ({one.status})",
        "detail": one.detail,
        "advice": one.advice,
        "evidence": [[name, "\n".join(lines)] for name, lines in one.evidence.items()],
    }


def _group(group: FactGroup) -> dict[str, Any]:
    rows = [[("≠ " if fact.differs else "") + fact.name, *fact.values] for fact in group.facts]
    return {"title": group.title, "rows": rows, "left_out": group.left_out}
