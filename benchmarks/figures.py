"""One figure of a benchmark, the bound that it is measured against, and the file of the last ones that were kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KEPT = Path(__file__).parent / "figures.json"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, smaller is better unless `more_is_better`. `target`: what it has to meet, where something does."""

    bench: str
    name: str
    value: float
    unit: str = ""
    target: float | None = None
    more_is_better: bool = False
    note: str = ""

    @property
    def meets(self) -> bool | None:
        """Whether it is as good as its target; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target

    @property
    def key(self) -> str:
        """What it is called in all files."""
        return f"{self.bench}: {self.name}"


def load() -> float:
    """Load of the machine over the last minute."""
    return round(os.getloadavg()[0], 2)


def shown(value: float, unit: str) -> str:
    """A figure as people read it."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}{f' {unit}' if unit else ''}"


def table(figures: Sequence[Figure], before: dict[str, float]) -> str:
    """Lines for a terminal: name, value, target, and the change against the figures that were kept."""
    lines = []
    for one in figures:
        aim = "" if one.target is None else f"{'at least' if one.more_is_better else 'at most'} {one.target:g}"
        word = {True: "met", False: "MISSED", None: ""}[one.meets]
        old = before.get(one.key)
        change = f"{(one.value / old - 1) * 100:+.0f} %" if old else ""
        lines.append(
            f"{one.key:<66} {shown(one.value, one.unit):>14}  {aim:<14} {word:<7} {change:>7}  {one.note}".rstrip()
        )
    return "\n".join(lines)


def kept() -> dict[str, Any]:
    """The last figures that were kept; empty if there are none."""
    return json.loads(KEPT.read_text()) if KEPT.is_file() else {"figures": [], "series": {}}


ALIKE = ("startup", "fleet")
"""Benchmarks whose `--quick` does the same, less often and with fewer sizes; that of others is another measurement."""


def values(document: dict[str, Any], bench: str, *, quick: bool) -> dict[str, float]:
    """Figures of one benchmark by name, if they can be compared with those of a measurement with or without --quick."""
    taken = document.get("taken", {}).get(bench, {})
    if bench not in ALIKE and taken.get("quick", quick) != quick:
        return {}
    return {f"{bench}: {one['name']}": one["value"] for one in document["figures"] if one["bench"] == bench}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One benchmark as it was run: its figures, the rows behind its charts, and the load before and after."""

    bench: str
    figures: Sequence[Figure]
    rows: Sequence[dict[str, Any]]
    load: tuple[float, float]
    seconds: float
    quick: bool


def document(ran: Sequence[Ran], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """What is kept: figures, each with the one that was kept before, rows, and how busy the machine was.

    What `before` has of benchmarks that did not run now stays.
    """
    old = before or {"figures": [], "series": {}}
    names = {one.bench for one in ran}
    kept_figures = [one for one in old["figures"] if one["bench"] not in names]
    fresh = []
    for one in ran:
        past = values(old, one.bench, quick=one.quick)
        fresh += [asdict(figure) | {"before": past.get(figure.key)} for figure in one.figures]
    taken = {one.bench: {"load": one.load, "seconds": round(one.seconds), "quick": one.quick} for one in ran}
    return {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "taken": {**old.get("taken", {}), **taken},
        "figures": [*kept_figures, *fresh],
        "series": {**old["series"], **{one.bench: list(one.rows) for one in ran}},
    }
