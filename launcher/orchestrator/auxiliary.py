"""Auxiliary endpoints of a run: who needs them, where they are, and what their end means for those who use them.

Each is a task without a job. It is made with the first task that uses it, and goes as soon as no task that uses it can
still come to need it: each is scored, or has failed and is not tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from launcher.orchestrator.decide import Step, failing
from launcher.orchestrator.retry import delay
from launcher.orchestrator.state import TaskState
from launcher.platforms.base import Observation, Resource

Tries = Callable[[TaskState], bool]
"""Whether a task that has ended gets a further attempt."""


class Auxiliaries:
    """Those of a run, and the tasks that use them."""

    def __init__(self, tasks: Iterable[TaskState], most_attempts: int) -> None:
        tasks = list(tasks)
        self._by_name = {task.plan.key: task for task in tasks if task.is_auxiliary}
        self._tasks = [task for task in tasks if not task.is_auxiliary]
        self._most_attempts = most_attempts

    def of(self, task: TaskState) -> list[TaskState]:
        """Those that a task uses and that are made for this run."""
        return [self._by_name[name] for name in task.plan.auxiliary if name in self._by_name]

    def is_needed(self, auxiliary: TaskState, tries_again: Tries) -> bool:
        """Whether a task uses it that is not over: one whose scores are not home, or that is tried again."""
        return any(
            not task.done and (task.reason is None or not task.collected or tries_again(task))
            for task in self._tasks
            if auxiliary.plan.key in task.plan.auxiliary
        )

    def is_over(self, task: TaskState) -> bool:
        """Whether one that a task uses will never serve it (again)."""
        return any(map(self._is_over, self.of(task)))

    def _is_over(self, auxiliary: TaskState) -> bool:
        ended = auxiliary.reason is not None and delay(auxiliary, self._most_attempts) is None
        return auxiliary.done or ended

    def failed(self, task: TaskState, seen: Observation | None) -> Step | None:
        """How a task ends for want of one. A task of which nothing exists yet waits for one that is made again."""
        for auxiliary in self.of(task):
            if task.admitted or self._is_over(auxiliary):
                step = failing(auxiliary, _seen(auxiliary, seen))
                if step is not None:
                    return step
        return None

    def precede(self, task: TaskState) -> bool:
        """Whether one of them has to be made before the endpoint of a task, and is not yet."""
        evaluates = task.plan.endpoint is not None and task.plan.endpoint.evaluates
        return evaluates and not all(auxiliary.endpoint_created for auxiliary in self.of(task))

    def awaited(self, task: TaskState) -> bool:
        """Whether one of them has no URL yet."""
        return any(auxiliary.url is None for auxiliary in self.of(task))

    def may_come(self, task: TaskState, now: float) -> bool:
        """Whether all of them exist, or could be made now."""
        return all((auxiliary.not_before or 0.0) <= now for auxiliary in self.of(task))

    def addresses(self, task: TaskState) -> dict[str, tuple[str, str | None]]:
        """URL and model (None: the planned one) of each."""
        return {auxiliary.plan.key: (auxiliary.url or "", auxiliary.model) for auxiliary in self.of(task)}


def _seen(auxiliary: TaskState, seen: Observation | None) -> Resource | None:
    endpoint = auxiliary.plan.endpoint
    return seen.endpoints.get(endpoint.name) if seen is not None and endpoint is not None else None
