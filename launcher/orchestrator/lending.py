"""Endpoints that outlive a run: kept by invocations of their own, and lent to tasks of one run after another.

A borrower sees an endpoint of its own name, which it creates and deletes like any other; only that what is created is a
loan, and what is deleted is its return. So a run that borrows is like every run, also when it is recovered: a loan that
nobody knows any more is an endpoint that is gone. What really exists belongs to its keeper, an invocation whose
journal, lease and teardown are those of every endpoint that is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.errors import NotFound, PlatformError
from launcher.orchestrator.common import Shares
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import TaskState
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.platforms.base import (
    Capacity,
    Check,
    Leftover,
    LogLine,
    Observation,
    Resource,
    ResourceState,
)


@dataclass(kw_only=True, eq=False)
class Kept:
    """One endpoint and who has it. Its keeper tells of it by `task`, from the moment its run begins."""

    serving: str
    plan: Plan
    borrower: str = ""
    """Name by which a run knows it; empty: it is free."""
    is_leaving: bool = False
    is_over: bool = False
    why: str = ""
    """Why its keeper ended."""
    task: TaskState | None = None
    end: Callable[[], None] = lambda: None
    tail: Callable[[str, int], Coroutine[Any, Any, list[str]]] | None = None

    @property
    def is_free(self) -> bool:
        """Whether it can be lent."""
        return not (self.borrower or self.is_leaving or self.is_over)

    @property
    def gpus(self) -> int:
        """GPUs that it occupies."""
        return sum(endpoint.gpus for endpoint in self.plan.endpoints)

    def resource(self, name: str) -> Resource:
        """It, as its borrower sees it."""
        task = self.task
        if self.is_over or self.is_leaving or (task is not None and task.reason is not None):
            detail = self.why or (task.detail if task is not None else "")
            ended = f"{self.plan.invocation}, which kept it, ended{f': {detail}' if detail else ''}"
            preempted = task is not None and task.reason is Reason.PREEMPTED
            return Resource(name=name, state=ResourceState.FAILED, detail=ended, preempted=preempted)
        if task is None or task.url is None:
            said = task.waiting_for if task is not None else ""
            return Resource(name=name, state=ResourceState.PENDING, detail=said or f"kept by {self.plan.invocation}")
        return Resource(name=name, state=ResourceState.RUNNING, id=self.plan.invocation, url=task.url, model=task.model)


Keep = Callable[[Kept], None]
"""Begins to keep an endpoint, in the background."""


@dataclass(kw_only=True)
class Pool:
    """All endpoints that are lent.

    `serving` says of the endpoint of a borrower what it serves, `make` plans a further one that serves it, `wanted` how
    many borrowers there will be of it, those that have one included.
    """

    shares: Shares
    serving: Callable[[EndpointPlan], str]
    make: Callable[[str], Plan]
    wanted: Callable[[str], int]
    keep: Keep
    changed: Callable[[], None] = lambda: None
    """Told when an endpoint has become free, or gone: somebody may be waiting."""
    kept: list[Kept] = field(default_factory=list)

    def reserve(self, endpoint: EndpointPlan) -> bool:
        """Whether the borrower of this name has an endpoint, or one that is being made; it is its own from now on."""
        if any(one.borrower == endpoint.name for one in self.kept):
            return True
        serving = self.serving(endpoint)
        found = next((one for one in self.kept if one.is_free and one.serving == serving), None)
        if found is None and self._has_room(endpoint):
            found = Kept(serving=serving, plan=self.make(serving))
            self.kept.append(found)
            self.keep(found)
        if found is not None:
            found.borrower = endpoint.name
        else:
            self._make_room()
        return found is not None

    def _has_room(self, endpoint: EndpointPlan) -> bool:
        alive = [one for one in self.kept if not one.is_over]
        bounds = (
            (len(alive) + 1, self.shares.endpoints),
            (sum(one.gpus for one in alive) + endpoint.gpus, self.shares.gpus),
        )
        return not alive or all(most is None or amount <= most for amount, most in bounds)

    def _make_room(self) -> None:
        """One that is free serves something else than what is wanted now; unless one is leaving already, it goes."""
        free = [one for one in self.kept if one.is_free]
        if free and not any(one.is_leaving and not one.is_over for one in self.kept):
            self._end(free[0])

    def borrowed(self, name: str) -> Kept | None:
        """What a borrower has."""
        return next((one for one in self.kept if one.borrower == name), None)

    def give_back(self, name: str, *, serves: bool = True) -> None:
        """A borrower needs its endpoint no more; what nobody will need, or has not served, is ended at once.

        Its keeper may call an endpoint running that answers nobody any more: what its borrower has seen counts.
        """
        found = self.borrowed(name)
        if found is not None:
            found.borrower = ""
            if not serves:
                self._end(found)
            self.kept = [one for one in self.kept if not one.is_over or one.borrower]
            self.trim()
            self.changed()

    def trim(self) -> None:
        """End what is free and not wanted by anybody who has none yet."""
        for one in [one for one in self.kept if one.is_free]:
            alike = [other for other in self.kept if other.serving == one.serving and not other.is_over]
            if len([other for other in alike if not other.is_leaving]) > self.wanted(one.serving):
                self._end(one)

    def end_all(self) -> None:
        """End all of them."""
        for one in self.kept:
            self._end(one)

    def _end(self, one: Kept) -> None:
        if not one.is_over:
            one.is_leaving = True
            one.end()

    def over(self, one: Kept, why: str) -> None:
        """An endpoint is gone, or its keeper is."""
        one.is_over, one.why = True, why
        self.kept = [other for other in self.kept if not other.is_over or other.borrower]
        self.changed()


Serves = Callable[[str], bool]
"""Whether a borrower has no complaint of its endpoint."""

UNFIT = frozenset(
    {
        Reason.ENDPOINT_EXITED,
        Reason.ENDPOINT_START_TIMEOUT,
        Reason.ENDPOINT_NOT_SERVING,
        Reason.ENDPOINT_DIED,
        Reason.ENDPOINT_OUT_OF_MEMORY,
        Reason.PREEMPTED,
    }
)
"""Ends of a task that say of its endpoint that it serves nobody.

Not those that say what it serves (another model, no log-probabilities): another one of the kind would be no better.
"""


def serves(tasks: Iterable[TaskState], name: str) -> bool:
    """Whether no task that has the endpoint of this name ended since it did not serve."""
    return not any(t.plan.endpoint is not None and t.plan.endpoint.name == name and t.reason in UNFIT for t in tasks)


class Borrowed:
    """The half of a platform whose endpoints are lent by a pool."""

    name = "sweep"
    create_grace = 0.0
    close_ends_all = close_ends_jobs = False
    poll_interval = 1.0

    def __init__(self, pool: Pool, serves: Serves = lambda _: True) -> None:
        """`serves` is asked of an endpoint that is returned."""
        self._pool = pool
        self._serves = serves
        self._names: set[str] = set()

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:  # noqa: ARG002
        """Borrow one. Raises PlatformError if none was reserved, or it could not be made."""
        if not self._pool.reserve(spec):
            raise PlatformError(f"{spec.name}: no endpoint of the sweep is free")
        self._names.add(spec.name)
        found = self._pool.borrowed(spec.name)
        assert found is not None
        made = found.resource(spec.name)
        if made.state is ResourceState.FAILED:
            raise PlatformError(made.detail)
        return made

    async def observe(self) -> Observation:
        """What was borrowed and not returned."""
        found = {name: kept for name in self._names if (kept := self._pool.borrowed(name)) is not None}
        return Observation(endpoints={name: kept.resource(name) for name, kept in found.items()})

    async def delete_endpoint(self, name: str) -> None:
        """Return it."""
        self._names.discard(name)
        self._pool.give_back(name, serves=self._serves(name))

    async def close(self, *, at_once: bool = False) -> None:  # noqa: ARG002
        """Return all that is left."""
        for name in list(self._names):
            await self.delete_endpoint(name)

    async def tail(self, name: str, lines: int) -> list[str]:
        """Last lines of the server's output."""
        found = self._pool.borrowed(name)
        return await found.tail(_kept_name(found), lines) if found is not None and found.tail is not None else []

    # --- what is the keepers' business ------------------------------------------------------------------------------

    async def preflight(self, plan: Plan) -> list[Check]:  # noqa: ARG002
        """Nothing: the keepers' plans are checked."""
        return []

    async def open(self, plan: Plan, folder: Path) -> Capacity:  # noqa: ARG002
        """Nothing to prepare; what may be used is said by the pool."""
        return Capacity()

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:  # noqa: ARG002
        """The other half has the jobs."""
        raise PlatformError(f"{spec.name}: is no endpoint")

    async def cancel_job(self, name: str) -> None:
        """The other half has the jobs."""

    def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:  # noqa: ARG002
        """The keeper's invocation has them."""
        raise NotFound(f"no log of {name}")

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        """There are no results of endpoints."""

    async def sweep(self, invocation: str = "") -> list[Leftover]:  # noqa: ARG002
        """Nothing exists under a borrower's mark."""
        return []

    async def remove(self, leftover: Leftover) -> None:
        """Nothing exists under a borrower's mark."""

    async def unseen(self) -> list[str]:
        """Nothing."""
        return []


def _kept_name(kept: Kept) -> str:
    return kept.plan.endpoints[0].name
