"""Charts as SVG, drawn by Vega-Lite when the report is written: a reader needs no script for them.

Colours stand in a chart as names. The HTML report turns them into classes, so that one drawing serves light and dark;
the PDF report into those of a white page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import vl_convert

from launcher.plan.words import duration
from launcher.results.compare import Row, Verdict
from launcher.results.report.content import words
from launcher.results.timeline import Span, Timeline

WIDE, NARROW = 780, 300
"""Width of the plot in pixels, beside its labels, and below them on a phone."""
MOST_ROWS = 60
"""Of one chart; a table has them all."""
SIGNS = {
    Verdict.BETTER: "▲",
    Verdict.WORSE: "▼",
    Verdict.DIFFERENT: "◆",
    Verdict.NOT_SHOWN: "●",
    Verdict.NOT_TESTED: "○",
}
"""Verdicts that a forest plot shows, with what stands for each in a legend."""
PHASES = {
    "starting": "endpoint starts",
    "idle": "endpoint idle",
    "busy": "endpoint evaluates",
    "waiting": "job waits",
    "working": "job evaluates",
}
_SHAPES = {
    Verdict.BETTER: "triangle-up",
    Verdict.WORSE: "triangle-down",
    Verdict.DIFFERENT: "diamond",
    Verdict.NOT_SHOWN: "circle",
    Verdict.NOT_TESTED: "circle",
}
COLOURS = {
    "ink": "#1b1f24",
    "muted": "#59636e",
    "grid": "#d9dee3",
    "better": "#0b62a4",
    "worse": "#b3470b",
    "different": "#7a3f9d",
    "neutral": "#59636e",
    "starting": "#c98f14",
    "idle": "#959fa9",
    "busy": "#2f7ab8",
    "waiting": "#c9d1d9",
    "working": "#0b62a4",
}
"""Names of colours, and what they are on white paper. None stands alone: verdicts have shapes, phases an order."""
_VERDICT_COLOURS = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.DIFFERENT: "different",
    Verdict.NOT_SHOWN: "neutral",
    Verdict.NOT_TESTED: "neutral",
}
_TAGS = frozenset({"svg", "g", "path", "line", "rect", "text", "tspan", "title", "defs", "clipPath"})
_KEPT = frozenset(
    [
        "d",
        "x",
        "y",
        "x1",
        "x2",
        "y1",
        "y2",
        "width",
        "height",
        "viewBox",
        "transform",
        "text-anchor",
        "font-size",
        "font-weight",
        "fill",
        "stroke",
        "stroke-width",
        "stroke-dasharray",
        "stroke-linecap",
        "opacity",
        "fill-opacity",
        "stroke-opacity",
        "clip-path",
        "id",
    ]
)
_ZERO = "datum.value === 0 ? '0' : datum.label"
_LONG_NUMBER = re.compile(r"(\d+\.\d{2})\d+")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One drawing in two widths. `summary`: what it shows, for those who cannot see it; `left_out`: rows not in it."""

    wide: str
    narrow: str
    summary: str
    left_out: int = 0


@dataclass(frozen=True)
class Style:
    """How a drawing gets its colours: by classes, or fixed, in a font that the PDF has. `width`: of its wide form."""

    font: str = ""
    width: int = WIDE

    @property
    def is_fixed(self) -> bool:
        """Whether colours stand in the drawing itself."""
        return bool(self.font)


THEMED = Style()


# --- forest plot ------------------------------------------------------------------------------------------------------


def forest(rows: Sequence[Row], style: Style = THEMED) -> Chart | None:
    """Differences with their intervals, those of shares: other units have no place on the same axis. None for none."""
    fit = [row for row in rows if _is_share(row)]
    shown = sorted(fit, key=lambda row: -abs(row.difference or 0.0))[:MOST_ROWS] if len(fit) > MOST_ROWS else fit
    if not shown:
        return None
    data = [_forest_datum(row) for row in shown]
    return Chart(
        wide=_draw(_forest_spec(data, style.width, beside=True), style),
        narrow=_draw(_forest_spec(data, NARROW, beside=False), style),
        summary=_forest_summary(shown),
        left_out=len(rows) - len(shown),
    )


def _is_share(row: Row) -> bool:
    values = (row.baseline_value, row.candidate_value)
    return row.difference is not None and all(value is not None and 0 <= value <= 1 for value in values)


def _forest_datum(row: Row) -> dict[str, Any]:
    name = _printable(" ".join((row.label, row.metric, *([] if row.filter == "none" else [row.filter]))))
    bounds = "" if row.low is None or row.high is None else f", {row.low:+.4f} to {row.high:+.4f}"
    return {
        "name": name,
        "x": row.difference,
        "low": row.low,
        "high": row.high,
        "verdict": row.verdict.value,
        "said": f"{name}: {row.difference:+.4f}{bounds}, {row.verdict}",
    }


def _forest_summary(rows: Sequence[Row]) -> str:
    counts = {verdict: sum(row.verdict is verdict for row in rows) for verdict in SIGNS}
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return f"Differences from the baseline with 95 % intervals: {said}."


def _forest_spec(data: list[dict[str, Any]], width: int, *, beside: bool) -> dict[str, Any]:
    y = _rows("name", beside=beside)
    verdicts = [verdict.value for verdict in SIGNS]
    colour = {
        "field": "verdict",
        "legend": None,
        "scale": {"domain": verdicts, "range": [COLOURS[_VERDICT_COLOURS[verdict]] for verdict in SIGNS]},
    }
    shape = {
        "field": "verdict",
        "legend": None,
        "scale": {"domain": verdicts, "range": [_SHAPES[verdict] for verdict in SIGNS]},
    }
    x = {
        "type": "quantitative",
        "axis": {
            "title": "candidate minus baseline",
            "format": "+~g",
            "tickCount": 7 if beside else 4,
            "labelOverlap": "greedy",
            "grid": True,
            "labelExpr": _ZERO,
        },
    }
    filled = {"condition": {"test": "datum.verdict === 'not tested'", "value": None}, **colour}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rule", "color": COLOURS["muted"], "strokeWidth": 1, "aria": False},
            "encoding": {"x": {"datum": 0}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2.5, "strokeCap": "round", "aria": False},
            "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
            "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "size": 90, "strokeWidth": 2, "opacity": 1},
            "encoding": {
                "y": y,
                "x": {"field": "x", **x},
                "stroke": colour,
                "fill": filled,
                "shape": shape,
                "description": {"field": "said"},
            },
        },
        *([] if beside else [_labels("name", y)]),
    ]
    return _spec(data, layers, width, step=24 if beside else 40)


# --- Gantt chart ------------------------------------------------------------------------------------------------------


def gantt(line: Timeline, style: Style = THEMED) -> Chart | None:
    """When each endpoint and each job of a run did what; None for a run that made none."""
    bars = list(_bars(line))
    names = list(dict.fromkeys(bar["row"] for bar in bars))
    shown = [bar for bar in bars if bar["row"] in names[:MOST_ROWS]]
    if not shown:
        return None
    unit, seconds = _unit(max(bar["to"] for bar in shown))
    data = [{**bar, "from": bar["from"] / seconds, "to": bar["to"] / seconds} for bar in shown]
    return Chart(
        wide=_draw(_gantt_spec(data, unit, style.width, beside=True), style),
        narrow=_draw(_gantt_spec(data, unit, NARROW, beside=False), style),
        summary=f"Time line of {len(names)} tasks; the table below has the same times.",
        left_out=len(names) - len(names[:MOST_ROWS]),
    )


def _unit(seconds: float) -> tuple[str, float]:
    if seconds < 300:
        return "seconds", 1
    return ("minutes", 60) if seconds < 3 * 3600 else ("hours", 3600)


def _bars(line: Timeline) -> Iterator[dict[str, Any]]:
    """Pieces of time, in seconds since the run began, each with its row and its lane in it."""
    last = max((moment for span in line.spans for moment in (span.began, span.ready, span.ended) if moment), default=0)
    now = line.until(last)
    for span in line.spans:
        pieces = _endpoint(line, span, now) if span.kind == "endpoint" else _job(span, now)
        task = _printable(span.task)
        for phase, began, ended in pieces:
            if ended > began:
                yield {
                    "row": task if span.attempt == 1 else f"{task}, attempt {span.attempt}",
                    "lane": span.kind,
                    "phase": phase,
                    "from": began - line.began,
                    "to": ended - line.began,
                    "said": f"{task}: {PHASES[phase]} for {duration(ended - began)}, "
                    f"from {duration(max(0.0, began - line.began))}. {_printable(words(span.reason))}".rstrip(". "),
                }


def _job(span: Span, now: float) -> Iterator[tuple[str, float, float]]:
    ended = now if span.ended is None else span.ended
    ready = ended if span.ready is None else span.ready
    yield "waiting", span.began, ready
    yield "working", ready, ended


def _endpoint(line: Timeline, span: Span, now: float) -> Iterator[tuple[str, float, float]]:
    """Starting until it answered, then evaluating while a job does, and idle between."""
    ended = now if span.ended is None else span.ended
    at = min(ended, ended if span.ready is None else span.ready)
    yield "starting", span.began, at
    jobs = [job for job in line.spans if job.kind == "job" and job.task in span.users and job.ready is not None]
    for job in sorted(jobs, key=lambda job: job.ready or 0.0):
        began, over = max(at, job.ready or at), min(ended, now if job.ended is None else job.ended)
        if over > began:
            yield "idle", at, began
            yield "busy", began, over
            at = over
    yield "idle", at, ended


def _gantt_spec(data: list[dict[str, Any]], unit: str, width: int, *, beside: bool) -> dict[str, Any]:
    lanes = ["endpoint", "job"] if beside else ["name", "endpoint", "job"]
    y = _rows("row", beside=beside)
    offset = {"field": "lane", "scale": {"domain": lanes, "paddingInner": 0.12}}
    bars = {
        "mark": {"type": "bar", "cornerRadius": 1.5},
        "encoding": {
            "y": y,
            "yOffset": offset,
            "x": {
                "field": "from",
                "type": "quantitative",
                "axis": {"title": f"{unit} since the run began", "orient": "top", "tickCount": 8},
            },
            "x2": {"field": "to"},
            "color": {
                "field": "phase",
                "legend": None,
                "scale": {"domain": list(PHASES), "range": [COLOURS[phase] for phase in PHASES]},
            },
            "description": {"field": "said"},
        },
    }
    names = {**_labels("row", y), "transform": [{"aggregate": [], "groupby": ["row"]}]}
    names["encoding"] = {**names["encoding"], "yOffset": {"datum": "name", "scale": offset["scale"]}}
    return _spec(data, [bars] if beside else [bars, {**names, "mark": {**names["mark"], "dy": 0}}], width, step=None)


# --- parts ------------------------------------------------------------------------------------------------------------


def _rows(field: str, *, beside: bool) -> dict[str, Any]:
    axis = {"title": None, "labelLimit": 230, "domain": False, "ticks": False, "labelPadding": 10}
    return {"field": field, "type": "nominal", "sort": None, "axis": axis if beside else None}


def _labels(field: str, y: dict[str, Any]) -> dict[str, Any]:
    """Names of rows above what they are of, where there is no room beside it."""
    mark = {"type": "text", "align": "left", "dy": -13, "limit": NARROW, "fontSize": 12, "color": COLOURS["ink"]}
    return {"mark": {**mark, "aria": False}, "encoding": {"y": y, "x": {"value": 0}, "text": {"field": field}}}


def _spec(data: list[dict[str, Any]], layers: list[dict[str, Any]], width: int, *, step: int | None) -> dict[str, Any]:
    height = {"step": step} if step else {"step": 44 if width == NARROW else 26, "for": "position"}
    axis = {
        "gridColor": COLOURS["grid"],
        "domainColor": COLOURS["grid"],
        "tickColor": COLOURS["grid"],
        "labelColor": COLOURS["muted"],
        "titleColor": COLOURS["muted"],
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": width,
        "height": height,
        "data": {"values": data},
        "layer": layers,
        "config": {
            "background": None,
            "padding": {"left": 14 if width == NARROW else 30, "right": 10, "top": 10, "bottom": 8},
            "view": {"stroke": None},
            "axis": axis,
            "axisY": {"labelColor": COLOURS["ink"], "grid": False},
        },
    }


def _printable(text: str) -> str:
    """Without what XML cannot hold: control characters and halves of characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _draw(spec: dict[str, Any], style: Style) -> str:
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))  # noqa: S314 - drawn here
    _clean(root, style)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, style: Style) -> None:
    """Leave shapes, texts and what says how they look; names of things become titles, which a pointer shows."""
    for child in list(element):
        tag = child.tag.rpartition("}")[2]
        if tag not in _TAGS or child.get("display") == "none" or _is_empty(child, tag):
            element.remove(child)
        else:
            _clean(child, style)
    said = element.get("aria-label") if element.get("role") == "graphics-symbol" else None
    is_mark = said is not None and element.get("aria-roledescription") not in ("axis", "legend")
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = dict(_attributes(element, style))
    if is_mark:
        title = ElementTree.Element("title")
        title.text = said
        element.insert(0, title)


def _is_empty(element: ElementTree.Element, tag: str) -> bool:
    return tag == "path" and element.get("class") in ("background", "foreground")


def _attributes(element: ElementTree.Element, style: Style) -> Iterator[tuple[str, str]]:
    names = {colour: name for name, colour in COLOURS.items() if name not in ("neutral", "working")}
    names |= {COLOURS["neutral"]: "muted", COLOURS["working"]: "better"}
    classes = []
    for name, value in element.attrib.items():
        if name in ("fill", "stroke") and value in names and not style.is_fixed:
            classes.append(f"{name[0]}-{names[value]}")
        elif name in _KEPT:
            yield name, _LONG_NUMBER.sub(r"\1", value)
    if classes:
        yield "class", " ".join(classes)
    if element.tag == "svg":
        yield "xmlns", "http://www.w3.org/2000/svg"
        if style.is_fixed:
            yield "font-family", style.font


__all__ = ["COLOURS", "MOST_ROWS", "PHASES", "SIGNS", "THEMED", "Chart", "Style", "forest", "gantt"]
