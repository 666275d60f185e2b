"""From what a person asks for to the plan of a sweep. Everything that is wrong is said before anything is created."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.config import Request, located, typed
from launcher.config.compose import compose, hydra_for
from launcher.config.grid import Point, is_sweep, points
from launcher.config.sweep import Sweep as Settings
from launcher.decoding import convert
from launcher.errors import ConfigError
from launcher.orchestrator.sweeps import new_id
from launcher.plan.build import build as build_plan
from launcher.plan.model import Plan
from launcher.results.write import config_folder
from launcher.sweep.contents import Contents
from launcher.sweep.model import PlannedPoint, SweepPlan
from launcher.sweep.section import section

Completed = Callable[[str], str | None]
"""An invocation that has all scores of this identity, if there is one."""


def asks_for_sweep(request: Request) -> bool:
    """Whether a request gives several values by its overrides. Raises ConfigError for one that cannot be read."""
    return any(is_sweep(text) for text in request.overrides)


def build(request: Request, completed: Completed = lambda _: None, *, skip_done: bool | None = None) -> SweepPlan:
    """The plan of the sweep that a request asks for.

    Raises ConfigError, one line for each problem: of the grid, of a point's config, of two points that would measure
    the same. `skip_done`: instead of the config's.
    """
    base = dataclasses.replace(request, overrides=tuple(text for text in request.overrides if not is_sweep(text)))
    settings = section(base)
    if skip_done is not None:
        settings = dataclasses.replace(settings, skip_done=skip_done)
    with hydra_for(request) as hydra:
        wanted = points(hydra, request.overrides, settings)
    return _planned(request, wanted, settings, completed)


def _planned(request: Request, wanted: Sequence[Point], settings: Settings, completed: Completed) -> SweepPlan:
    id_ = new_id()
    made: list[PlannedPoint] = []
    problems: dict[str, Point] = {}
    contents = Contents()
    for point in wanted:
        try:
            plan = dataclasses.replace(plan_of(request, point), scope=id_)
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, point)
            continue
        identity = contents.identity(plan)
        made.append(PlannedPoint(number=point.number, words=point.words, identity=identity, plan=plan))
    if problems:
        raise ConfigError([f"sweep: point {p.number} ({p.words}): {text}" for text, p in problems.items()])
    refuse_twins(made)
    refuse_reuse(made, settings)
    if settings.skip_done:
        made = [skip_done(point, completed) for point in made]
    folder = Path(made[0].plan.output_dir) / id_
    return SweepPlan(id=id_, folder=str(folder), points=tuple(made), settings=settings)


def refuse_reuse(made: Sequence[PlannedPoint], settings: Settings) -> None:
    """Raises ConfigError where endpoints are to be lent that cannot be."""
    if settings.reuse_endpoints and any(point.plan.helpers for point in made):
        raise ConfigError("sweep.reuse_endpoints: is not for runs with auxiliary endpoints; set it to false")
    if settings.reuse_endpoints and any(map(_is_in_batch_jobs, made)):
        raise ConfigError(
            "sweep.reuse_endpoints: on slurm an endpoint serves the tasks of its own run; set it to false"
        )


def _is_in_batch_jobs(point: PlannedPoint) -> bool:
    """Whether its endpoints are batch jobs of Slurm, where only their own invocation knows their keys."""
    return any(endpoint.request and "sbatch" in endpoint.request for endpoint in point.plan.endpoints)


def plan_of(request: Request, point: Point) -> Plan:
    """The plan of a point, as a new invocation. Raises ConfigError."""
    own = dataclasses.replace(request, overrides=point.overrides)
    config = typed(compose(own), own)
    with located(own):
        return build_plan(config)


def refuse_twins(made: Sequence[PlannedPoint]) -> None:
    """Two points that measure the same would pay twice for one row."""
    seen: dict[str, PlannedPoint] = {}
    for point in made:
        first = seen.setdefault(point.identity, point)
        if first is not point:
            raise ConfigError(
                f"sweep: points {first.number} ({first.words}) and {point.number} ({point.words}) measure the same: "
                "they differ in nothing that changes scores; leave one out, by sweep.exclude or the values"
            )


def skip_done(point: PlannedPoint, completed: Completed) -> PlannedPoint:
    """The point, skipped if its scores are there."""
    found = completed(point.identity)
    if found is None:
        return point
    return dataclasses.replace(point, note=f"has all its scores in {found}", is_skipped=True)


def rebuilt(plan: Plan, overrides: Sequence[str] = (), *, invocation: str | None = None) -> Plan:
    """The plan of the config that another was made of, with `overrides`; as a new invocation unless one is given."""
    with config_folder(plan) as folder:
        request = Request(name="config", overrides=tuple(overrides), config_dir=str(folder))
        made = build_plan(typed(compose(request), request), invocation)
    return dataclasses.replace(made, scope=plan.scope)


def settings_of(data: dict[str, object]) -> Settings:
    """Settings as the journal keeps them."""
    return convert(data.get("settings", {}), Settings)
