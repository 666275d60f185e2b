"""What a run has used so far, against the bounds of its plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher.plan.model import Plan
from launcher.plan.words import amount, beyond_limit

if TYPE_CHECKING:
    from launcher.orchestrator.state import TaskState

WARN_AT = 0.8


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One bound: its key, how much of it is used, and both in words."""

    key: str
    used: float
    most: float
    unit: str

    @property
    def share(self) -> float:
        """Part that is used; 1 and more: it is reached."""
        return self.used / self.most

    def __str__(self) -> str:
        return f"{amount(self.used)} of {amount(self.most)} {self.unit} used ({self.key})"


def bounds(plan: Plan, tasks: Iterable[TaskState], *, now: float, elapsed: float) -> list[Bound]:
    """All bounds of a plan with what is used of them. `now` on the run's clock; `elapsed` seconds since its start."""
    tasks = list(tasks)
    found: list[Bound] = []
    if plan.max_cost_usd is not None:
        usd = sum(task.usd(now, plan.usd_per_gpu_hour) or 0.0 for task in tasks)
        found.append(Bound(key="limits.max_cost_usd", used=usd, most=plan.max_cost_usd, unit="USD"))
    if plan.max_gpu_hours is not None:
        hours = sum(task.gpu_seconds(now) for task in tasks) / 3600
        found.append(Bound(key="limits.max_gpu_hours", used=hours, most=plan.max_gpu_hours, unit="GPU hours"))
    if plan.max_duration is not None:
        found.append(Bound(key="limits.max_duration", used=elapsed / 60, most=plan.max_duration / 60, unit="min"))
    return found


def unkeepable(plan: Plan) -> list[str]:
    """Bounds that nobody can keep, one line each."""
    made = [*plan.tasks, *plan.helpers]
    metered = [task for task in made if task.endpoint is not None and task.endpoint.is_metered]
    if plan.max_cost_usd is None or plan.worst_case.usd is not None or len(metered) == len(made):
        return []
    return ["limits.max_cost_usd: no price is known; set execution.usd_per_gpu_hour, or prices of shapes"]


def beyond(plan: Plan) -> list[str]:
    """Bounds that the worst case of a plan breaks, one line each."""
    worst = plan.worst_case
    cases = (
        ("limits.max_cost_usd", worst.usd, plan.max_cost_usd, "USD"),
        ("limits.max_gpu_hours", worst.gpu_hours, plan.max_gpu_hours, "GPU hours"),
    )
    return [
        beyond_limit(key, used, most, unit)
        for key, used, most, unit in cases
        if used is not None and most is not None and used > most
    ]
