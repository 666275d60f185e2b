"""Sweeps in words: their plan, their status, and how they get on. No Hydra: `nv-eval status` shows sweeps, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from launcher.cli.text import plain
from launcher.orchestrator.journal import RunState
from launcher.orchestrator.sweeps import PointState, PointStatus, SweepStatus

_HEADS = ("point", "run", "state", "scored", "cost", "sets")


def lines(status: SweepStatus, ago: str) -> Iterator[str]:
    """The status of a sweep for people. `ago`: when its supervisor showed that it lives."""
    code = "" if status.exit_code is None else f", exit code {status.exit_code}"
    cost = "" if not status.usd else f", {status.usd:.2f} USD"
    done = status.count(PointState.SCORED, PointState.SKIPPED)
    yield f"{status.sweep}  sweep, {status.state.value}{code}, {done} of {len(status.points)} points done{cost}"
    yield from (f"  {line}" for line in table(status.points))
    yield f"  last sign of life {ago}; sweep.json in {status.folder}"
    if status.state in (RunState.INTERRUPTED, RunState.UNKNOWN):
        yield f"  go on: nv-eval resume {status.sweep}; end and remove it: nv-eval stop {status.sweep}"
    elif status.state is RunState.FINISHED and done < len(status.points):
        yield f"  go on: nv-eval resume {status.sweep}"


def table(points: Sequence[PointStatus]) -> list[str]:
    """A line for each point, with a head."""
    rows = [_HEADS, *(_cells(point) for point in points)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(point: PointStatus) -> tuple[str, ...]:
    note = f" ({point.note})" if point.note else ""
    return (
        str(point.number),
        "" if point.state in (PointState.WAITING, PointState.SKIPPED) and not point.tasks else point.invocation,
        point.state.value,
        f"{point.scored}/{point.tasks}" if point.tasks else "",
        "" if point.usd is None else f"{point.usd:.2f}",
        plain(f"{point.words}{note}"),
    )
