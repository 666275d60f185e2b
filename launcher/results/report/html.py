"""A report as one HTML file that needs nothing beside itself: no server, no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import launcher
from launcher.plan.words import counted
from launcher.results import compare_text
from launcher.results.compare import Row, Verdict, Versus
from launcher.results.report import charts
from launcher.results.report.charts import Chart
from launcher.results.report.content import (
    ENDPOINT_HEADS,
    ENDPOINT_LEFT,
    EndpointRow,
    Report,
    RunView,
    endpoint_rows,
    time_summary,
)
from launcher.results.report.samples import Packed, pack

_RESERVE = 12_000
"""Bytes for what a page says of its samples beside them."""
_SWATCHES = {"working": "better"}
"""Phases whose colour goes by another name in the styles."""
_HEADS = ("task", "metric", "n", "base", "new", "change", "95 % interval", "up", "down", "p Holm", "verdict")
"""Columns of a comparison that come first, of compare_text.HEADS."""
_MORE_HEADS = ("p", "test", "detectable")
_KINDS = {Verdict.BETTER: "better", Verdict.WORSE: "worse", Verdict.DIFFERENT: "different"}


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """One candidate against the baseline; `place`: which of the readable runs it is."""

    run: RunView
    baseline: RunView
    place: int
    versus: Versus
    chart: Chart | None
    rows: list[tuple[Row, dict[str, str]]]
    remarks: list[str]

    @property
    def counts(self) -> str:
        """How many scores are better, worse and so on, in words."""
        if not self.versus.rows:
            return "nothing can be compared"
        verdicts = [row.verdict for row in self.versus.rows]
        said = [f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict if verdict in verdicts]
        return f"of {counted(len(verdicts), 'score')} " + ", ".join(said)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """The time line of one run."""

    summary: str
    chart: Chart | None
    rows: list[EndpointRow]


def render(report: Report, *, max_bytes: int, text_limit: int) -> str:
    """The page, in UTF-8 at most `max_bytes` long where what is no sample leaves room for the samples' scores."""
    shown = _shown(report)
    page = _page(shown, report, Packed())
    room = max_bytes - len(page.encode("utf-8", "replace")) - _RESERVE
    return _page(shown, report, pack(report.runs, budget=room, text_limit=text_limit))


def _page(shown: dict[str, Any], report: Report, packed: Packed) -> str:
    """`shown`: what does not depend on samples."""
    closing, about = _closing(packed), _about(report, packed)
    return str(shown["template"].render(**shown, packed=packed, about=about, closing=closing))


def _shown(report: Report) -> dict[str, Any]:
    style, script = _part("report.css"), _part("report.js")
    return {
        "template": _environment().from_string(_part("report.html.j2")),
        "report": report,
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "version": launcher.__version__,
        "differences": _differences(report),
        "lines": [(run, _line(run)) for run in report.readable],
        "signs": [(verdict.value, sign, _KINDS.get(verdict, "plain")) for verdict, sign in charts.SIGNS.items()],
        "kinds": {verdict: _KINDS.get(verdict, "plain") for verdict in Verdict},
        "heads": _HEADS,
        "more_heads": _MORE_HEADS,
        "left": compare_text.LEFT,
        "footer": compare_text.footer(report.comparison) if report.comparison else "",
        "phases": [(_SWATCHES.get(phase, phase), text) for phase, text in charts.PHASES.items()],
        "endpoint_heads": ENDPOINT_HEADS,
        "endpoint_left": ENDPOINT_LEFT,
    }


def _environment() -> Environment:
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["drawn"] = Markup  # only for what this room has made itself
    return made


def _part(name: str) -> str:
    return (files("launcher.results.report") / "parts" / name).read_text()


def _policy(style: str, script: str) -> str:
    """The page may run its own script and use its own styles, and load nothing."""
    return (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _about(report: Report, packed: Packed) -> str:
    """What the sample browser must know, as JSON that no HTML parser takes for markup."""
    data = {
        "runs": [{"mark": run.mark, "name": run.name} for run in report.readable],
        "sets": packed.sets,
        "without_text": packed.without_text,
    }
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _differences(report: Report) -> list[_Difference]:
    if report.comparison is None:
        return []
    baseline, *others = report.readable
    return [
        _Difference(
            run=run,
            baseline=baseline,
            place=place,
            versus=versus,
            chart=charts.forest(versus.rows),
            rows=[(row, _cells(row)) for row in versus.rows],
            remarks=list(compare_text.remarks(versus)),
        )
        for place, (run, versus) in enumerate(zip(others, report.comparison.candidates, strict=True), start=1)
    ]


def _cells(row: Row) -> dict[str, str]:
    """By column; a filter stands behind its metric."""
    cells = dict(zip(compare_text.HEADS, compare_text.cells(row), strict=True))
    return {**cells, "metric": cells["metric"] if row.filter == "none" else f"{cells['metric']} · {row.filter}"}


def _line(run: RunView) -> _Line | None:
    if run.timeline is None:
        return None
    rows = endpoint_rows(run.timeline)
    return _Line(summary=time_summary(rows), chart=charts.gantt(run.timeline), rows=rows)


def _closing(packed: Packed) -> list[str]:
    lines = ["This file is whole: it loads nothing and sends nothing."]
    if packed.samples:
        lines.append(
            f"Samples are texts of models and of benchmarks, shown as they are, up to {packed.text_limit:,} characters."
        )
    return lines
