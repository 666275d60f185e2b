"""What is kept of a sweep: its points in the journal, and `sweep.json` in its folder for people and programs."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from launcher.decoding import convert, decode
from launcher.errors import LauncherError, PreflightError
from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import Journal
from launcher.orchestrator.sweeps import Sweep
from launcher.plan.model import Plan
from launcher.results.write import write_atomically
from launcher.sweep.build import settings_of
from launcher.sweep.model import SCHEMA, PlannedPoint, Standing, Study, SweepPlan

FILE = "sweep.json"


def begin(plan: SweepPlan, journal: Journal, *, hold: bool = True) -> None:
    """Record a sweep, and take its lease unless another process will. Raises LauncherError if it cannot."""
    folder = Path(plan.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PreflightError(f"{folder}: cannot write results: {error.strerror}; set execution.output_dir") from None
    sweep = Sweep(
        id=plan.id,
        created=time.time(),
        folder=plan.folder,
        data={**_data(plan), "command": sys.argv[1:]},
    )
    sweeps.begin(journal, sweep, [(_point(point), msgspec.json.encode(point.plan)) for point in plan.points])
    if hold:
        journal.take_lease(plan.id)
    write(plan, journal)


def load(journal: Journal, sweep: Sweep) -> SweepPlan:
    """The plan of a sweep as the journal has it. Raises NotFound if it was made by another version."""
    found: list[PlannedPoint] = []
    for point in sweeps.points(journal, sweep.id):
        try:
            plan = decode(sweeps.plan(journal, sweep.id, point.number), Plan)
        except msgspec.DecodeError as error:
            raise LauncherError(f"{sweep.id}: its plan was made by another version of nv-eval: {error}") from None
        found.append(
            PlannedPoint(
                number=point.number,
                words=point.words,
                identity=point.identity,
                plan=plan,
                note=point.note,
                is_skipped=point.is_skipped,
            )
        )
    study = sweep.data.get("study")
    return SweepPlan(
        id=sweep.id,
        folder=sweep.folder,
        points=tuple(found),
        settings=settings_of(sweep.data),
        study=convert(study, Study) if study else None,
    )


def note(plan: SweepPlan, journal: Journal, point: PlannedPoint, text: str) -> None:
    """Keep one line about a point."""
    keep(plan, journal, dataclasses.replace(point, note=text))


def keep(plan: SweepPlan, journal: Journal, point: PlannedPoint) -> None:
    """Keep a point as it is now."""
    sweeps.replace(journal, plan.id, _point(point), msgspec.json.encode(point.plan))


def add(plan: SweepPlan, journal: Journal, points: Sequence[PlannedPoint]) -> None:
    """Keep further points and what has become of the study, all or nothing."""
    data = {**sweeps.find(journal, plan.id).data, **_data(plan)}
    sweeps.add(journal, plan.id, [(_point(point), msgspec.json.encode(point.plan)) for point in points], data=data)


def _data(plan: SweepPlan) -> dict[str, object]:
    study = {"study": msgspec.to_builtins(plan.study)} if plan.study is not None else {}
    return {"settings": msgspec.to_builtins(plan.settings), **study}


def keep_all(plan: SweepPlan, journal: Journal, sweep: Sweep) -> None:
    """Keep a sweep as it goes on."""
    for point in plan.points:
        keep(plan, journal, point)
    sweeps.settle(journal, dataclasses.replace(sweep, data={**sweep.data, **_data(plan)}))


def _point(point: PlannedPoint) -> sweeps.Point:
    return sweeps.Point(
        number=point.number,
        invocation=point.plan.invocation,
        identity=point.identity,
        words=point.words,
        note=point.note,
        is_skipped=point.is_skipped,
    )


def write(plan: SweepPlan, journal: Journal, standing: Standing | None = None) -> None:
    """Write `sweep.json`. That it cannot be written keeps nothing from running: the journal has it all."""
    status = sweeps.status(journal, sweeps.find(journal, plan.id))
    study = {"study": standing} if standing is not None else {}
    document = {"schema": SCHEMA, **dataclasses.asdict(status), **study}
    try:
        write_atomically(Path(plan.folder) / FILE, msgspec.json.format(msgspec.json.encode(document)))
    except OSError:
        return
