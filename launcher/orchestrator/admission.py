"""Which queued tasks may start now: within GPUs, memory, CPUs and the limits of the config, the longest first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from launcher.orchestrator.state import TaskState
from launcher.plan.model import Plan
from launcher.platforms.base import Capacity

UNKNOWN_DURATION = 600.0
"""Seconds assumed for a task that says nothing of its duration."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one endpoint occupies."""

    endpoints: int = 1
    gpus: int = 0
    cpus: float = 0.0
    memory_gib: float = 0.0

    def __add__(self, other: Need) -> Need:
        return Need(
            endpoints=self.endpoints + other.endpoints,
            gpus=self.gpus + other.gpus,
            cpus=self.cpus + other.cpus,
            memory_gib=self.memory_gib + other.memory_gib,
        )


class Admitting(Protocol):
    """A run as its admission sees it."""

    plan: Plan
    tasks: list[TaskState]
    capacity: Capacity

    def wake(self) -> None:
        """Look again at once."""
        ...


class Admission(Protocol):
    """Says which tasks may start."""

    minds_others: bool
    """It wakes other runs when their turn has come: it is asked although no task of this one waits."""

    def admit(self, run: Admitting, now: float) -> Sequence[TaskState]:
        """Queued tasks of a run that may start now, longest first."""
        ...

    def is_stuck(self, run: Admitting, now: float) -> bool:
        """Whether nothing goes on by which a place could become free for a run none of whose tasks goes on."""
        ...


class Alone:
    """The admission of a run that shares its limits with no other."""

    minds_others = False

    def admit(self, run: Admitting, now: float) -> Sequence[TaskState]:
        """Queued tasks that may start now, longest first."""
        return admissible(run.tasks, run.plan, run.capacity, now)

    def is_stuck(self, run: Admitting, now: float) -> bool:  # noqa: ARG002  it was asked because the run itself stands still
        """There is nobody else who could give something back."""
        return True


def need(task: TaskState, made: Collection[str] = ()) -> Need:
    """What the endpoint of a task occupies beside those `made`: nothing if it is one of them, or exists anyway."""
    if task.plan.endpoint is None or task.plan.endpoint.name in made:
        return Need(endpoints=0)
    server = task.plan.endpoint.server
    return Need(gpus=task.plan.endpoint.gpus, cpus=server.cpus or 0.0, memory_gib=server.memory_gib or 0.0)


def fits(used: Need, plan: Plan, capacity: Capacity) -> bool:
    """Whether this much may be in use at once."""
    gpus = min((n for n in (plan.max_gpus, capacity.gpus) if n is not None), default=None)
    bounds = (
        (used.endpoints, plan.max_parallel_endpoints),
        (used.gpus, gpus),
        (used.cpus, capacity.cpus),
        (used.memory_gib, capacity.memory_gib),
    )
    return all(bound is None or amount <= bound for amount, bound in bounds)


def admissible(tasks: Iterable[TaskState], plan: Plan, capacity: Capacity, now: float = 0.0) -> list[TaskState]:
    """Queued tasks that may start now, longest first.

    A task that does not fit does not hold back a shorter one that does. One that would never fit alone is let in when
    nothing else runs: preflight has warned, and the platform will say why. What was left over still occupies. Tasks
    that share an endpoint need it once; one that takes the place of another waits until that is gone.

    An auxiliary endpoint is let in with the first task that uses it, if there is room for both.
    """
    tasks = list(tasks)
    if not any(_queued(task, now) for task in tasks):
        return []
    auxiliary = {task.plan.key: task for task in tasks if task.is_auxiliary}
    made, used = _occupied(task for task in tasks if occupies(task))
    idle = not any(map(occupies, tasks))
    chosen = [helper for helper in auxiliary.values() if _queued(helper, now) and _is_missed(helper, tasks)]
    more_made, more_used = _occupied(chosen)
    made, used = made | more_made, used + more_used
    for task in sorted((t for t in tasks if _queued(t, now) and not t.is_auxiliary), key=_longest_first):
        helpers = [auxiliary[name] for name in task.plan.auxiliary if name in auxiliary]
        if not all(_is_there(helper) or _queued(helper, now) for helper in helpers):
            continue
        if _is_shared(task) and made - {_endpoint(task), *map(_endpoint, auxiliary.values())}:
            continue
        new = [helper for helper in helpers if not helper.admitted and _endpoint(helper) not in made]
        more = sum((need(helper, made) for helper in new), need(task, made))
        if fits(used + more, plan, capacity) or (_endpoint(task) in made and not new) or (idle and not chosen):
            chosen += [*new, task]
            made, used = made | set(map(_endpoint, [*new, task])), used + more
    return chosen


def _is_missed(auxiliary: TaskState, tasks: Iterable[TaskState]) -> bool:
    """Whether a task that was let in lacks it, as when a launcher died between the two."""
    users = (task for task in tasks if auxiliary.plan.key in task.plan.auxiliary)
    return any(task.admitted and task.reason is None and not task.done for task in users)


def _is_there(auxiliary: TaskState) -> bool:
    """Whether an auxiliary endpoint exists, or will, for those who use it."""
    return auxiliary.admitted and auxiliary.reason is None


def _occupied(tasks: Iterable[TaskState]) -> tuple[set[str], Need]:
    """Names of the endpoints that exist or will, and what they occupy."""
    made, used = set[str](), Need(endpoints=0)
    for task in tasks:
        used = used + need(task, made)
        made |= {_endpoint(task)} - {""}
    return made, used


def occupies(task: TaskState) -> bool:
    """Whether a task has an endpoint, or will have one, or has left one."""
    if _is_shared(task):
        return task.endpoint_wanted or (task.admitted and task.reason is None)
    return task.admitted and (not task.done or task.leftover)


def _endpoint(task: TaskState) -> str:
    return task.plan.endpoint.name if task.plan.endpoint is not None else ""


def _is_shared(task: TaskState) -> bool:
    return task.plan.endpoint is not None and task.plan.endpoint.is_shared


def _queued(task: TaskState, now: float) -> bool:
    waits = task.not_before is not None and now < task.not_before
    return not task.admitted and task.reason is None and not task.done and not waits


def _longest_first(task: TaskState) -> tuple[float, int]:
    duration = task.plan.expected_duration
    return (-(UNKNOWN_DURATION if duration is None else duration), task.plan.index)
