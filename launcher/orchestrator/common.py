"""Admission of several runs at once, under limits that all of them share.

A free place goes to the run with the fewest tasks under way, and of its tasks to the longest: no run that has begun
waits for another, and all of them end about when the first of them can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from launcher.orchestrator.admission import Admitting, Need, admissible, fits, need, occupies
from launcher.orchestrator.state import TaskState
from launcher.plan.model import EndpointPlan, Plan
from launcher.platforms import RENTED
from launcher.platforms.base import Capacity


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Most that all runs together may use at once; None: no bound."""

    tasks: int | None = None
    endpoints: int | None = None
    gpus: int | None = None


class Lender(Protocol):
    """Has endpoints that tasks of several runs use one after another."""

    def reserve(self, endpoint: EndpointPlan) -> bool:
        """Whether the borrower of this name gets an endpoint as soon as it asks; from then on one is kept for it."""
        ...


class Common:
    """See the module. Runs join when they begin to look, and leave when they have ended."""

    minds_others = True

    def __init__(self, shares: Shares, lender: Lender | None = None) -> None:
        """`lender`: lends endpoints to the runs, which make none of their own then."""
        self._shares = shares
        self._lender = lender
        self._runs: list[Admitting] = []

    def join(self, run: Admitting) -> None:
        """A run takes part from now on."""
        self._runs.append(run)

    def leave(self, run: Admitting) -> None:
        """A run has ended; the others look whether there is a place for them."""
        self._runs.remove(run)
        self.wake()

    def wake(self) -> None:
        """There may be a place for somebody."""
        for run in self._runs:
            run.wake()

    def open_tasks(self) -> int:
        """Tasks of all runs that are not over; endpoints that are auxiliary to them take no place."""
        return sum(not (task.done or task.is_auxiliary) for task in self._tasks())

    def _tasks(self) -> Iterator[TaskState]:
        return (task for run in self._runs for task in run.tasks)

    def admit(self, run: Admitting, now: float) -> Sequence[TaskState]:
        """Tasks of this run whose turn it is; runs that others' turn has come for are woken."""
        chosen = _Turns(self._runs, self._shares, self._lender, now).take()
        for other in {id(r): r for r, _ in chosen if r is not run}.values():
            other.wake()
        return [task for r, task in chosen if r is run]

    def is_stuck(self, run: Admitting, now: float) -> bool:  # noqa: ARG002  what others do counts, too
        """Whether no task of any run goes on or may, and nobody lends anything that may become free.

        One whose turn has come is not there yet where its run has not looked since.
        """
        if self._lender is not None or any(task.admitted and not task.done for task in self._tasks()):
            return False
        return not _Turns(self._runs, self._shares, None, now).take()


class _Turns:
    """Whose turn it is now."""

    def __init__(self, runs: Sequence[Admitting], shares: Shares, lender: Lender | None, now: float) -> None:
        self._runs = {id(run): run for run in runs}
        self._shares = shares
        self._lender = lender
        self._under_way = {id(run): sum(map(_goes_on, run.tasks)) for run in runs}
        self._waiting = {
            id(run): admissible(run.tasks, run.plan, run.capacity, now) if _waits(run) else [] for run in runs
        }
        places = {_place(run) for run in runs}
        self._used = {place: _used([run for run in runs if _place(run) == place]) for place in places}
        self._chosen: list[tuple[Admitting, TaskState]] = []

    def take(self) -> list[tuple[Admitting, TaskState]]:
        """Tasks that may start, with their runs."""
        while any(self._waiting.values()) and self._has_slot():
            key = min((key for key, queue in self._waiting.items() if queue), key=self._under_way.__getitem__)
            group = self._next(key)
            if self._get_endpoints(self._runs[key], group):
                self._chosen += [(self._runs[key], task) for task in group]
                self._under_way[key] += sum(not task.is_auxiliary for task in group)
        return self._chosen

    def _next(self, key: int) -> list[TaskState]:
        """The next task of a run, with the auxiliary endpoints that are let in for it."""
        queue, group = self._waiting[key], list[TaskState]()
        while queue and (not group or group[-1].is_auxiliary):
            group.append(queue.pop(0))
        return group

    def _has_slot(self) -> bool:
        return self._shares.tasks is None or sum(self._under_way.values()) < self._shares.tasks

    def _get_endpoints(self, run: Admitting, group: list[TaskState]) -> bool:
        """Whether there are endpoints for these, or room for them; of what fits nowhere the platform says why."""
        wanted = [task.plan.endpoint for task in group if task.plan.endpoint is not None]
        if self._lender is not None and wanted:
            return self._lender.reserve(wanted[-1])  # a sweep that lends has nothing auxiliary
        place, more = _place(run), _need(run, group, [other for r, other in self._chosen if r is run])
        if not self._fits(place, more, run.capacity) and any(self._under_way.values()):
            return False
        self._used[place] = self._used[place] + more
        return True

    def _fits(self, place: str, more: Need, capacity: Capacity) -> bool:
        """Whether so much more may be used: of all places by the limits, of one by what it has."""
        total = sum(self._used.values(), Need(endpoints=0)) + more
        bounds = ((total.endpoints, self._shares.endpoints), (total.gpus, self._shares.gpus))
        in_limits = all(most is None or amount <= most for amount, most in bounds)
        return more.endpoints == 0 or (in_limits and fits(self._used[place] + more, _UNBOUNDED, capacity))


_UNBOUNDED = Plan(invocation="", execution="", deployment="", output_dir="", storage="", tasks=())


def _place(run: Admitting) -> str:
    """What tells apart the places whose capacity runs share."""
    return f"{run.plan.execution}/{run.plan.deployment if run.plan.deployment in RENTED else ''}"


def _waits(run: Admitting) -> bool:
    return any(not task.admitted and task.reason is None and not task.done for task in run.tasks)


def _goes_on(task: TaskState) -> bool:
    return task.admitted and not task.done and not task.is_auxiliary


def _used(runs: Sequence[Admitting]) -> Need:
    """What the endpoints of some runs occupy."""
    used = Need(endpoints=0)
    for run in runs:
        made = set[str]()
        for task in filter(occupies, run.tasks):
            used = used + need(task, made)
            made |= _names(task)
    return used


def _need(run: Admitting, group: Sequence[TaskState], chosen: Sequence[TaskState]) -> Need:
    """What some tasks need beside those of their run that have, or get, a place."""
    made = {name for other in (*filter(occupies, run.tasks), *chosen) for name in _names(other)}
    return sum((need(task, made) for task in group), Need(endpoints=0))


def _names(task: TaskState) -> set[str]:
    return {task.plan.endpoint.name} if task.plan.endpoint is not None else set()
