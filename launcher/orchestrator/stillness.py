"""Tasks on which nothing moves: a look passes them over, so that it costs what has changed and not what there is.

A task stands still if its next step was "wait", and neither it nor what the world shows under its names has changed
since: the same question has the same answer until a time-out comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from launcher.platforms.base import Observation, Resource

if TYPE_CHECKING:
    from launcher.plan.model import TaskPlan


@dataclass(frozen=True, slots=True)
class Still:
    """What was seen when a task was told to wait."""

    endpoint_name: str
    job_name: str
    endpoint: Resource | None
    job: Resource | None
    until: float
    """When a time-out may have come; seconds of the run's clock."""

    def holds(self, seen: Observation, now: float) -> bool:
        """Whether that is still all there is to see."""
        endpoint, job = seen.endpoints.get(self.endpoint_name), seen.jobs.get(self.job_name)
        return (
            now < self.until
            and (endpoint is self.endpoint or endpoint == self.endpoint)
            and (job is self.job or job == self.job)
        )


def seen_of(task: TaskPlan, seen: Observation, until: float) -> Still:
    """What an observation shows of a task."""
    endpoint, job = task.endpoint.name if task.endpoint else "", task.job.name
    return Still(endpoint, job, seen.endpoints.get(endpoint), seen.jobs.get(job), until)


def depends_on_itself(task: TaskPlan) -> bool:
    """Whether nothing but the task and its own endpoint and job decides its next step."""
    is_shared = task.endpoint is not None and task.endpoint.is_shared
    return not (is_shared or task.auxiliary or task.job.queue_timeout > 0)  # what waits in a queue has its own clock
