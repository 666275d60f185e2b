"""A sweep whose points a sweeper of Hydra's plugins chooses as results come: what is known of it before the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.config import Request, sweepers
from launcher.config.grid import Point, as_override
from launcher.config.sweep import Sweep as Settings
from launcher.config.sweepers import GROUP, Choice, Traits
from launcher.errors import ConfigError, ResultsError, nearest
from launcher.harnesses import offline
from launcher.harnesses.spec import Score
from launcher.plan.model import Plan, TaskPlan
from launcher.results.model import Record
from launcher.sweep.build import plan_of, refuse_reuse
from launcher.sweep.contents import Contents
from launcher.sweep.model import PlannedPoint, Study, SweepPlan
from launcher.sweep.section import section

_MOST_PROBES = 60
"""Points that are planned beforehand."""
_MORE_IS_BETTER = frozenset({"acc", "acc_norm", "accuracy", "exact_match", "f1"})


def build(choice: Choice, sweep_id: str, *, skip_done: bool | None = None) -> SweepPlan:
    """The plan of a sweep that a sweeper chooses the points of, which has none yet.

    Raises ConfigError, one line for each problem: of the sweeper, its search space, the objective, or a config that a
    value of the space makes.
    """
    settings = section(choice.base)
    if skip_done is not None:
        settings = dataclasses.replace(settings, skip_done=skip_done)
    _refuse_what_it_chooses(settings)
    composed = sweepers.composed(choice)
    traits = composed.traits()
    most = _most(traits, settings)
    objective = _objective(settings, choice)
    composed.make("", lambda _batch: ())
    probes = _probes(choice, traits, Contents())
    _check_objective(objective, probes[0].plan, traits)
    refuse_reuse(probes, settings)
    seeded = sweepers.seeded(choice, traits.unseeded)
    place = probes[0].plan.output_dir
    study = Study(
        choice=dataclasses.replace(seeded, base=_anywhere(seeded.base, place)),
        objective=objective,
        most=most,
        at_once=traits.at_once,
        space=traits.space,
        directions=traits.directions,
        notes=tuple(_notes(choice, seeded, traits, objective)),
    )
    return SweepPlan(
        id=sweep_id, folder=str(Path(place) / sweep_id), points=(), probes=probes, settings=settings, study=study
    )


def _refuse_what_it_chooses(settings: Settings) -> None:
    for key in ("grids", "points", "exclude"):
        if getattr(settings, key):
            raise ConfigError(f"sweep.{key}: is not for a sweep with {GROUP}, which chooses the points; leave one out")


def _most(traits: Traits, settings: Settings) -> int:
    """Points that it asks for at most. Raises ConfigError for more than a sweep may have."""
    if traits.most is None:
        return settings.max_points
    if traits.most > settings.max_points:
        raise ConfigError(
            f"sweep: {traits.most:,} trials are more than sweep.max_points allows ({settings.max_points:,})"
        )
    return traits.most


def _anywhere(base: Request, output_dir: str) -> Request:
    """A request that asks for the same wherever the sweep is resumed."""

    def absolute(folder: str | None) -> str | None:
        return str(Path(folder).resolve()) if folder else None

    place = f"execution.output_dir={as_override(output_dir)}"
    return dataclasses.replace(
        base,
        overrides=(*base.overrides, place),
        config_dir=absolute(base.config_dir),
        config_path=absolute(base.config_path),
    )


def _notes(choice: Choice, seeded: Choice, traits: Traits, objective: Sequence[str]) -> list[str]:
    """What the person should know of it."""
    drawn = seeded.settings[len(choice.settings) :]
    notes = [f"No seed was set; {' '.join(drawn)} was drawn, so that resume can replay it."] if drawn else []
    if traits.keeps_trials:
        notes.append(f"{traits.keeps_trials} keeps its trials: resume cannot replay it, a new sweep goes on with them.")
    for name, direction in zip(objective, traits.directions, strict=False):
        if direction == "minimize" and _MORE_IS_BETTER & set(name.split("/")):
            notes.append(f"{name} is minimized, although more is better: set the direction in hydra.sweeper.")
    return notes


# --- points -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A point that a sweeper asks for, planned as a new invocation."""

    words: str
    identity: str
    plan: Plan


def planned(choice: Choice, batch: Sequence[Sequence[str]], scope: str) -> list[Wanted]:
    """Points of a batch, each given by its overrides. Raises ConfigError, one line for each that is wrong."""
    return _planned(choice, [_point(choice, number, texts) for number, texts in enumerate(batch, 1)], Contents(), scope)


def _point(choice: Choice, number: int, texts: Sequence[str]) -> Point:
    fixed = {text.partition("=")[0] for text in choice.base.overrides}
    pairs = [(name, value) for name, _, value in (text.partition("=") for text in texts) if name not in fixed]
    return Point(number=number, sets=tuple(pairs), fixed=choice.base.overrides)


def _planned(choice: Choice, points: Sequence[Point], contents: Contents, scope: str) -> list[Wanted]:
    made: list[Wanted] = []
    problems: dict[str, str] = {}
    for point in points:
        try:
            plan = dataclasses.replace(plan_of(choice.base, point), scope=scope)
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, point.words)
            continue
        made.append(Wanted(words=point.words, identity=contents.identity(plan), plan=plan))
    if problems:
        raise ConfigError([f"sweep: a point ({words}): {text}" for text, words in problems.items()])
    return made


def _probes(choice: Choice, traits: Traits, contents: Contents) -> tuple[PlannedPoint, ...]:
    """Points that stand for all: the first value of each key, and each other value of one of them.

    The last one has of each key the value that costs most by itself.
    """
    axes = sweepers.axes(traits.space)
    first = tuple(axis[0] for axis in axes)
    varied = [(*first[:i], pair, *first[i + 1 :]) for i, axis in enumerate(axes) for pair in axis[1:]]
    sets = [first, *varied[: _MOST_PROBES - 1]]
    points = [Point(number=n, sets=pairs, fixed=choice.base.overrides) for n, pairs in enumerate(sets, 1)]
    made = _planned(choice, points, contents, "")
    dearest = tuple(_dearest(place, sets, made) for place in range(len(axes)))
    if dearest not in sets:
        made += _if_possible(choice, Point(number=len(sets) + 1, sets=dearest, fixed=choice.base.overrides), contents)
    return tuple(
        PlannedPoint(number=n, words=one.words, identity=one.identity, plan=one.plan) for n, one in enumerate(made, 1)
    )


def _dearest(place: int, sets: Sequence[tuple[tuple[str, str], ...]], made: Sequence[Wanted]) -> tuple[str, str]:
    """Of a key the value with which a point can use most."""
    alike = [
        (pairs, one)
        for pairs, one in zip(sets, made, strict=True)
        if (*pairs[:place], *pairs[place + 1 :]) == (*sets[0][:place], *sets[0][place + 1 :])
    ]
    pairs, _ = max(alike, key=lambda both: (both[1].plan.worst_case.usd or 0.0, both[1].plan.worst_case.gpu_hours))
    return pairs[place]


def _if_possible(choice: Choice, point: Point, contents: Contents) -> list[Wanted]:
    try:
        return _planned(choice, [point], contents, "")
    except ConfigError:
        return []


# --- objectives ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A score of a task. Without a filter the only one of its metric."""

    task: str
    metric: str
    filter: str = ""

    def value(self, record: Record) -> float:
        """Its value in the results of a point. Raises ResultsError if they have none, or several."""
        scores = [score for task in record.tasks if self.task in (task.key, task.name) for score in task.scores]
        alike = [score for score in scores if score.metric == self.metric and self.filter in ("", score.filter)]
        found = [score for score in alike if score.task == self.task] or alike
        values = [score.value for score in found if score.value is not None]
        if len(found) > 1:
            raise ResultsError(f"{self}: has several filters: {_filters(found)}; name one: {self}/FILTER")
        if found and not values:
            raise ResultsError(f"{self}: its value is no number")
        if not found:
            has = ", ".join(sorted({score.metric for score in scores})) or "none"
            raise ResultsError(f"{self}: no such score; there are: {has}")
        return values[0]

    def __str__(self) -> str:
        return "/".join(part for part in (self.task, self.metric, self.filter) if part)


def _filters(scores: Sequence[Score]) -> str:
    return ", ".join(sorted({score.filter for score in scores}))


def _objective(settings: Settings, choice: Choice) -> tuple[str, ...]:
    given = settings.objective
    names = (given,) if isinstance(given, str) else tuple(given or ())
    if not names:
        raise ConfigError(f"sweep.objective: is not set; name the score that {choice.name} optimizes, as TASK/METRIC")
    return names


def _check_objective(names: Sequence[str], plan: Plan, traits: Traits) -> None:
    if traits.directions and len(traits.directions) != len(names):
        raise ConfigError(
            f"sweep.objective: has {len(names)} where hydra.sweeper has {len(traits.directions)} directions: "
            f"{', '.join(traits.directions)}"
        )
    for name in names:
        _check_score(name, plan.tasks)


def _check_score(name: str, tasks: Sequence[TaskPlan]) -> None:
    """Raises ConfigError for a task that is not run, or a score that it is known not to give."""
    found = objective(name, tasks)
    task = next(one for one in tasks if found.task in (one.key, one.name))
    known = offline.scores(task.name) if task.harness == "lm_eval" else ()
    metrics = {metric for metric, _ in known}
    filters = sorted({filter_ for metric, filter_ in known if metric == found.metric})
    if known and found.metric not in metrics:
        raise ConfigError(f"sweep.objective: {name}: no such score{nearest(found.metric, metrics)}")
    if known and found.filter and found.filter not in filters:
        raise ConfigError(f"sweep.objective: {name}: no such filter{nearest(found.filter, filters)}")
    if len(filters) > 1 and not found.filter:
        names = ", ".join(filters)
        raise ConfigError(f"sweep.objective: {name}: has several filters: {names}; name one: {name}/FILTER")


def objective(name: str, tasks: Sequence[TaskPlan]) -> Objective:
    """What `TASK/METRIC[/FILTER]` says. Raises ConfigError if it names no task."""
    keys = sorted({key for task in tasks for key in (task.key, task.name)}, key=len, reverse=True)
    task = next((key for key in keys if f"{name}/".startswith(f"{key}/")), None)
    if task is None:
        hint = nearest(name.partition("/")[0], keys)
        raise ConfigError(f"sweep.objective: {name}: names no task of this config; write TASK/METRIC{hint}")
    metric, _, filter_ = name[len(task) + 1 :].partition("/")
    if not metric:
        raise ConfigError(f"sweep.objective: {name}: names no metric; write {task}/METRIC")
    return Objective(task=task, metric=metric, filter=filter_)


def values(names: Sequence[str], plan: Plan, record: Record) -> tuple[float, ...]:
    """Values of the objectives in the results of a point. Raises ResultsError if one is missing."""
    return tuple(objective(name, plan.tasks).value(record) for name in names)
