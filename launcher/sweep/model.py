"""A sweep as it is planned: its points, each with the plan of an invocation, and what bounds all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from launcher.config.sweep import Sweep as Settings
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
class SweepPlan:
    """All of a sweep. `folder` holds what is written about it as a whole."""

    id: str
    folder: str
    points: tuple[PlannedPoint, ...]
    settings: Settings = field(default_factory=Settings)
    schema: str = SCHEMA

    @property
    def open(self) -> tuple[PlannedPoint, ...]:
        """Points that are to be run."""
        return tuple(point for point in self.points if not point.is_skipped)

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
        largest = sorted((e.gpus for point in self.open for e in point.plan.endpoints), reverse=True)
        most = sum(largest[: self.at_once])
        return most if self.settings.max_gpus is None else min(most, self.settings.max_gpus)

    def worst_case(self) -> WorstCase:
        """What it can use at most."""
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

    def expected_seconds(self) -> float:
        """How long it takes if tasks take as long as expected, by list scheduling."""
        work = [expected(task) for point in self.open for task in point.plan.tasks]
        return max(sum(work) / self.settings.max_parallel_tasks, max(work, default=0.0))


def _longest(task: TaskPlan) -> float:
    return task.target.start_timeout + task.target.health_timeout + task.job.timeout


def names(plan: Plan) -> dict[str, EndpointPlan]:
    """The endpoints of a plan by their names."""
    return {endpoint.name: endpoint for endpoint in plan.endpoints}
