"""What resuming a sweep does with each of its points, and why."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from launcher.config.problems import Invalid
from launcher.config.sweep import Sweep as Settings
from launcher.config.sweepers import composed, is_of_sweeper
from launcher.config.validate import sweep_section
from launcher.errors import ConfigError
from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import Journal
from launcher.plan.changes import changes
from launcher.plan.identity import changed, differ_in_files, is_of_this_version, versions
from launcher.plan.model import Plan
from launcher.sweep.build import rebuilt, refuse_twins, skip_done
from launcher.sweep.contents import Contents
from launcher.sweep.model import PlannedPoint, Study, SweepPlan

_OF_THE_SWEEP = re.compile(r"[+]{0,2}sweep\.(\w+)=(.*)", re.DOTALL)
_OF_ITS_POINTS = ("grids", "points", "exclude", "skip_done", "max_points", "objective")


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """A sweep as it goes on: its plan now, which points are done, and what to say of each."""

    plan: SweepPlan
    done: frozenset[int]
    why: dict[int, str]
    """One line for each point that is not simply gone on with."""


def decide(plan: SweepPlan, journal: Journal, overrides: Sequence[str] = ()) -> Resumption:
    """What to do with each point of a sweep.

    One with all its scores stays; one that measures something else by now (a setting of `overrides`, a file that was
    edited, another version of its harness) runs again as a new invocation; any other goes on. Raises ConfigError for
    overrides that are wrong.
    """
    settings, rest = _settings(plan.settings, overrides)
    contents = Contents()
    if plan.study is not None:
        return _of_study(dataclasses.replace(plan, settings=settings), plan.study, journal, rest, contents)
    points, done, why = list[PlannedPoint](), set[int](), dict[int, str]()
    for point in plan.points:
        now = _now(point, rest, contents)
        if now.identity == point.identity and sweeps.is_complete(journal, point.plan.invocation):
            done.add(point.number)
            why[point.number] = f"has all its scores ({point.plan.invocation})"
        elif now.identity == point.identity and point.is_skipped:
            why[point.number] = point.note
        else:
            now = skip_done(now, lambda identity: sweeps.completed(journal, identity))
            if now.note:
                why[point.number] = now.note
        points.append(now)
    refuse_twins(points)
    return Resumption(
        plan=dataclasses.replace(plan, points=tuple(points), settings=settings), done=frozenset(done), why=why
    )


def _of_study(
    plan: SweepPlan, study: Study, journal: Journal, overrides: Sequence[str], contents: Contents
) -> Resumption:
    """As `decide` where a sweeper chooses the points: it is asked again, and points are what they were."""
    own = tuple(text for text in overrides if is_of_sweeper(text))
    rest = tuple(text for text in overrides if text not in own)
    choice = study.choice
    base = dataclasses.replace(choice.base, overrides=(*choice.base.overrides, *rest))
    choice = dataclasses.replace(choice, base=base, settings=(*choice.settings, *own))
    found = composed(choice).traits()
    if found.keeps_trials and plan.points:
        raise ConfigError(
            f"{plan.id}: {found.keeps_trials} keeps the trials, so that its sweeper cannot be asked again; "
            "start a new sweep, which goes on with them"
        )
    points = [_same(point, rest, contents) for point in plan.points]
    done = {point.number for point in points if sweeps.is_complete(journal, point.plan.invocation)}
    most = plan.settings.max_points if found.most is None else found.most
    return Resumption(
        plan=dataclasses.replace(
            plan, points=tuple(points), study=dataclasses.replace(study, choice=choice, most=most)
        ),
        done=frozenset(done),
        why={p.number: f"has all its scores ({p.plan.invocation})" for p in points if p.number in done},
    )


def _same(point: PlannedPoint, overrides: Sequence[str], contents: Contents) -> PlannedPoint:
    """A point with other operational settings. Raises ConfigError for any that would change what is measured."""
    if not overrides:
        return point
    plan = rebuilt(point.plan, overrides, invocation=point.plan.invocation)
    if contents.identity(plan) != contents.identity(point.plan):
        raise ConfigError(
            f"{_difference(point, plan, '', {})}: its sweeper has chosen points by scores without it; run another sweep"
        )
    return dataclasses.replace(point, plan=plan)


def _now(point: PlannedPoint, overrides: Sequence[str], contents: Contents) -> PlannedPoint:
    """A point as it would be planned today: the same invocation, or a new one if it measures something else."""
    plan = rebuilt(point.plan, overrides, invocation=point.plan.invocation) if overrides else point.plan
    today, files = contents.identity(plan), contents.of(plan)
    if differ_in_files(point.identity, today) and not changed(point.identity, files):
        today = point.identity  # files are gone, which says nothing against the scores that they led to
    if today == point.identity:
        return dataclasses.replace(point, plan=plan, note=point.note if point.is_skipped else "")
    fresh = rebuilt(point.plan, overrides)
    return PlannedPoint(
        number=point.number,
        words=point.words,
        identity=today,
        plan=fresh,
        note=f"runs again: {_difference(point, fresh, today, files)}",
    )


def _difference(before: PlannedPoint, after: Plan, identity: str, files: Mapping[str, str]) -> str:
    found = [str(change) for change in changes(before.plan.config, after.config) if not change.is_operational]
    if found:
        return found[0] + (f" and {len(found) - 1} more" if len(found) > 1 else "")
    if not is_of_this_version(before.identity):
        return "it was planned by another version of nv-eval, which cannot tell whether it measures the same"
    if differ_in_files(before.identity, identity):
        return f"changed on disk: {', '.join(changed(before.identity, files))}"
    return f"another version of its harness: {', '.join(f'{k} {v}' for k, v in versions(after).items())}"


def _settings(settings: Settings, overrides: Sequence[str]) -> tuple[Settings, list[str]]:
    """The settings with what overrides change of them, and the overrides of the points."""
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    rest: list[str] = []
    for text in overrides:
        found = _OF_THE_SWEEP.fullmatch(text)
        if found is None:
            rest.append(text)
        elif found[1] in _OF_ITS_POINTS:
            raise ConfigError(
                f"command line: sweep.{found[1]}: the points of a sweep are what they are; run another one"
            )
        else:
            tree[found[1]] = _value(text, found[2])
    try:
        return sweep_section(tree), rest
    except Invalid as invalid:
        raise ConfigError([f"command line: {p.key}: {p.message}" for p in invalid.problems]) from None


def _value(text: str, value: str) -> Any:
    try:
        return OverridesParser.create().parse_override(f"key={value}").value()
    except (HydraException, ValueError):
        raise ConfigError(f"command line: {text}: cannot be read") from None
