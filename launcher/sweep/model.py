"""A sweep as it is planned: its points, each with the plan of an invocation, and what bounds all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from launcher.config.sweep import Sweep as Settings
from launcher.config.sweepers import Choice
from launcher.orchestrator.admission import UNKNOWN_DURATION
from launcher.plan.identity import serving
from launcher.plan.model import EndpointPlan, Plan, TaskPlan

SCHEMA = "nv-eval.sweep/1"


@dataclass(frozen=True, kw_only=True)
class PlannedPoint:
    """One point. `words` are what it sets."""

    number: int
    words: str
    identity: str
    plan: Plan
    note: str = ""
    """Why it is not run, or runs again."""
    is_skipped: bool = False

    @property
    def kind(self) -> str:
        """What tells points apart whose platform has to be asked separately."""
        served = sorted({serving(self.plan, endpoint) for endpoint in self.plan.endpoints})
        return "/".join(served) or self.plan.execution

    @property
    def longest(self) -> float:
        """Expected seconds of its longest task."""
        return max(expected(task) for task in self.plan.tasks)

    @property
    def work(self) -> float:
        """Expected seconds of all its tasks, one after another."""
        return sum(expected(task) for task in self.plan.tasks)


def expected(task: TaskPlan) -> float:
    """Seconds that a task may take, as far as anybody can say."""
    return UNKNOWN_DURATION if task.expected_duration is None else task.expected_duration


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """The most a sweep can use if every time-out runs to its end. `usd` is None without a price."""

    gpu_hours: float
    hours: float
    """From the first request to the last, with all places taken all the time."""
    usd: float | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """What makes a sweeper choose the points of a sweep as results come."""

    choice: Choice
    objective: tuple[str, ...]
    """Scores as `TASK/METRIC`, or `TASK/METRIC/FILTER`."""
    most: int
    """Points that it asks for at most."""
    at_once: int | None = None
    """Points that it asks for at a time; None: nobody can say."""
    space: tuple[str, ...] = ()
    """All that is searched, as far as it is told, as overrides."""
    directions: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    """Numbers of the first points of the batches that there are."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the points of a study have given so far: by number, values of `objective` in its order."""

    objective: tuple[str, ...]
    directions: tuple[str, ...]
    values: dict[int, tuple[float, ...]]
    best: tuple[int, ...]
    """Points that no other beats in every objective; none where a direction is not known."""


def standing(study: Study, values: dict[int, tuple[float, ...]]) -> Standing:
    """Which points are best: of one objective those with the best value, of several those that nothing dominates."""
    best: tuple[int, ...] = ()
    if len(study.directions) == len(study.objective):
        signs = [1.0 if direction == "maximize" else -1.0 for direction in study.directions]
        ranks = {n: [sign * value for sign, value in zip(signs, given, strict=True)] for n, given in values.items()}
        best = tuple(n for n, rank in ranks.items() if not any(_dominates(other, rank) for other in ranks.values()))
    return Standing(objective=study.objective, directions=study.directions, values=values, best=best)


def _dominates(one: list[float], other: list[float]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """All of a sweep. `folder` holds what is written about it as a whole."""

    id: str
    folder: str
    points: tuple[PlannedPoint, ...]
    settings: Settings = field(default_factory=Settings)
    study: Study | None = None
    """Where a sweeper chooses the points: there are only those that it has asked for."""
    probes: tuple[PlannedPoint, ...] = ()
    """Points that stand for those that a sweeper may ask for; they are not run."""
    schema: str = SCHEMA

    @property
    def open(self) -> tuple[PlannedPoint, ...]:
        """Points that are to be run."""
        return tuple(point for point in self.points if not point.is_skipped)

    @property
    def examples(self) -> tuple[PlannedPoint, ...]:
        """Points by which it is checked and priced: those that are to be run, or those that stand for them."""
        return self.open if self.study is None else self.probes

    def uses(self) -> Counter[str]:
        """How many endpoints tasks ask for of each kind that is served."""
        return Counter(serving(point.plan, endpoint) for point in self.open for endpoint in point.plan.endpoints)

    @property
    def endpoints(self) -> int:
        """Endpoints that are created if nothing has to be tried again."""
        uses = self.uses()
        return sum(min(count, self.at_once) for count in uses.values()) if self.reuses else sum(uses.values())

    @property
    def reuses(self) -> bool:
        """Whether endpoints are lent to one task after another."""
        return self.settings.reuse_endpoints

    @property
    def at_once(self) -> int:
        """Most endpoints at once."""
        most = [self.settings.max_parallel_tasks, self.settings.max_parallel_endpoints]
        return min(bound for bound in most if bound is not None)

    @property
    def gpus_at_once(self) -> int:
        """Most GPUs in use at once."""
        if self.study is None:
            most = self._most_gpus([endpoint.gpus for point in self.open for endpoint in point.plan.endpoints])
        else:
            copies = min(self.study.at_once or self.study.most, self.at_once)
            most = max(self._most_gpus([e.gpus for e in p.plan.endpoints] * copies) for p in self.examples)
        return most if self.settings.max_gpus is None else min(most, self.settings.max_gpus)

    def _most_gpus(self, gpus: list[int]) -> int:
        """GPUs of as many endpoints as may be there at once, the largest of some."""
        return sum(sorted(gpus, reverse=True)[: self.at_once])

    def worst_case(self) -> WorstCase:
        """What it can use at most."""
        if self.study is not None:
            return self._worst_of_study(self.study)
        cases = [point.plan.worst_case for point in self.open]
        usd = [case.usd for case in cases]
        seconds = [_longest(task) * point.plan.max_attempts for point in self.open for task in point.plan.tasks]
        slots = min(self.settings.max_parallel_tasks, max(len(seconds), 1))
        hours = max(sum(seconds) / slots, max(seconds, default=0.0)) / 3600
        if self.settings.max_duration is not None:
            hours = min(hours, self.settings.max_duration / 3600)
        return WorstCase(
            gpu_hours=round(sum(case.gpu_hours for case in cases), 3),
            hours=round(hours, 2),
            usd=None if None in usd else round(sum(amount for amount in usd if amount is not None), 2),
        )

    def _worst_of_study(self, study: Study) -> WorstCase:
        """That of as many points as the sweeper may ask for, each as dear and as long as the worst that is known."""
        cases = [point.plan.worst_case for point in self.examples]
        usd = [case.usd for case in cases]
        seconds = [[_longest(task) * point.plan.max_attempts for task in point.plan.tasks] for point in self.examples]
        hours = self._one_batch_after_another(study, seconds) / 3600
        if self.settings.max_duration is not None:
            hours = min(hours, self.settings.max_duration / 3600)
        return WorstCase(
            gpu_hours=round(study.most * max(case.gpu_hours for case in cases), 3),
            hours=round(hours, 2),
            usd=None if None in usd else round(study.most * max(amount for amount in usd if amount is not None), 2),
        )

    def _one_batch_after_another(self, study: Study, points: list[list[float]]) -> float:
        """Seconds that all batches of the longest of some points take, each given by the seconds of its tasks."""
        size = min(study.at_once or 1, study.most)
        batches = -(-study.most // size)
        return batches * max(max(size * sum(work) / self.settings.max_parallel_tasks, *work) for work in points)

    def expected_seconds(self) -> float:
        """How long it takes if tasks take as long as expected, by list scheduling."""
        if self.study is not None:
            expectations = [[expected(task) for task in point.plan.tasks] for point in self.examples]
            return self._one_batch_after_another(self.study, expectations)
        work = [expected(task) for point in self.open for task in point.plan.tasks]
        return max(sum(work) / self.settings.max_parallel_tasks, max(work, default=0.0))


def _longest(task: TaskPlan) -> float:
    return task.target.start_timeout + task.target.health_timeout + task.job.timeout


def names(plan: Plan) -> dict[str, EndpointPlan]:
    """The endpoints of a plan by their names."""
    return {endpoint.name: endpoint for endpoint in plan.endpoints}
