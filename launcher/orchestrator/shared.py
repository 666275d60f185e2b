"""The endpoint that all tasks of a run share: who needs it, and which one takes its place when it is gone.

Each endpoint that took the place of another is a further generation, with a name of its own. A task holds the shared
endpoint from the intent to create it until it lets go; as long as another task holds it, letting go is all there is to
do. The last one removes it and confirms that it is gone. When nobody needs it any more it is asked to go at once, also
while several still hold it because their jobs do not go. Nobody is admitted to a generation while another one is held,
so there is never more than one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from launcher.errors import LauncherError, PlatformError
from launcher.orchestrator.decide import Claim
from launcher.orchestrator.state import EndpointClock, TaskState
from launcher.plan.attempts import attempt, generation_of
from launcher.plan.model import Plan


class SharedEndpoints:
    """All generations of a run's shared endpoint; of a run whose tasks have endpoints of their own it knows nothing."""

    def __init__(self, plan: Plan, tasks: list[TaskState]) -> None:
        self._planned = {task.key: task for task in plan.tasks}
        self._invocation = plan.invocation
        self._tasks = tasks
        self._clocks = {clock.name: clock for task in tasks for clock in task.shared}
        self._making = asyncio.Lock()

    def clock(self, task: TaskState) -> EndpointClock | None:
        """The clock of a task's shared endpoint; None if it has one of its own, or none."""
        endpoint = task.plan.endpoint
        if endpoint is None or not endpoint.is_shared:
            return None
        return self._clocks.setdefault(endpoint.name, EndpointClock(name=endpoint.name))

    def generation(self, task: TaskState) -> int | None:
        """Which of its kind a task's shared endpoint is; None if it has one of its own."""
        clock = self.clock(task)
        return generation_of(clock.name) if clock is not None else None

    def use(self, task: TaskState, now: float, *, is_made: bool = False) -> None:
        """A task holds its endpoint from now on. `is_made`: the platform shows that it exists."""
        clock = self.clock(task)
        if clock is not None:
            clock.started_at = now if clock.started_at is None else clock.started_at
            clock.is_made = clock.is_made or is_made
            task.use(clock)
            if now < clock.unheard_until:  # as for the tasks that the earlier launcher made it for
                task.recovered, task.unheard_until = True, max(task.unheard_until, clock.unheard_until)

    def seen(self, task: TaskState) -> None:
        """The platform shows the endpoint of a task: from now on it is gone when it is not shown."""
        clock = self.clock(task)
        if clock is not None:
            clock.unheard_until = 0.0

    def served(self, task: TaskState) -> None:
        """A task is evaluated on its endpoint."""
        clock = self.clock(task)
        if clock is not None:
            clock.has_served = True

    def has_served(self, task: TaskState) -> bool:
        """Whether any task was evaluated on the shared endpoint of this one."""
        clock = self.clock(task)
        return clock is not None and clock.has_served

    def is_made(self, task: TaskState) -> bool:
        """Whether another task has created the endpoint of this one."""
        clock = self.clock(task)
        return clock is not None and clock.is_made

    def refuse(self, task: TaskState) -> None:
        """Raises PlatformError if the endpoint that a task shares could not be created: it is not asked for again."""
        clock = self.clock(task)
        if clock is not None and clock.refused:
            raise PlatformError(clock.refused)

    @contextlib.contextmanager
    def making(self, task: TaskState) -> Iterator[None]:
        """Around the request that creates a task's endpoint: what becomes of it is that of all who share it."""
        clock = self.clock(task)
        try:
            yield
        except LauncherError as error:
            if clock is not None:
                clock.refused = str(error)
            raise
        if clock is not None:
            clock.is_made = True

    def leaves(self, task: TaskState) -> bool:
        """The shared endpoint of a task is asked to go; whether that is for the first time."""
        clock = self.clock(task)
        if clock is None or clock.leaving:
            return False
        clock.leaving = True
        return True

    def end(self, task: TaskState, now: float) -> dict[str, Any]:
        """An attempt is over and holds nothing: what the journal keeps of its endpoint."""
        clock = self.clock(task)
        if clock is None:
            return _told(task.metered_usd, task.ran)
        if task.let_go:
            return {"left": True}
        if task.endpoint_wanted or task.endpoint_created:
            clock.gone_at = now if clock.gone_at is None else clock.gone_at
        return _told(clock.usd, clock.ran)

    def turn(self, task: TaskState) -> AbstractAsyncContextManager[None]:
        """Held while a task creates its endpoint: those that share one ask for it one after another."""
        return self._making if self.clock(task) is not None else contextlib.nullcontext()

    def claim(self, task: TaskState, *, tries_again: bool) -> Claim:
        """Who needs the endpoint that a task which has ended holds. `tries_again`: its own next attempt, which can."""
        if self.clock(task) is None or not task.endpoint_wanted:
            return Claim.NOBODY
        if tries_again:
            return Claim.KEPT
        others = [other for other in self._users(task) if other is not task and not other.done]
        if any(other.endpoint_wanted for other in others):
            return Claim.HELD
        return Claim.AWAITED if any(other.reason is None for other in others) else Claim.NOBODY

    def is_over(self, task: TaskState, tries_again: Callable[[TaskState], bool]) -> bool:
        """Whether a task is the first of those that hold its endpoint, and all that use it have ended for good.

        Each of them may still have to see that its job is gone. The endpoint does not wait for that; one asks for all.
        """
        users = [other for other in self._users(task) if not other.done]
        ended = all(other.reason is not None and other.collected and not tries_again(other) for other in users)
        return ended and next((other for other in users if other.endpoint_wanted), None) is task

    def _users(self, task: TaskState) -> Iterable[TaskState]:
        return (other for other in self._tasks if _name(other) == _name(task))

    def following(self, task: TaskState, *, is_healthy: bool) -> int | None:
        """Generation of the endpoint of a task's next attempt; None where each attempt has one of its own.

        `is_healthy`: the endpoint of its present attempt is there for others and can be used again.
        """
        clock = self.clock(task)
        if clock is None:
            return None
        own, newest = generation_of(clock.name), max(generation_of(_name(other)) for other in self._tasks)
        if own == newest:
            return own if is_healthy else own + 1
        return newest + 1 if self._is_over(newest) else newest

    def _is_over(self, generation: int) -> bool:
        clocks = (clock for name, clock in self._clocks.items() if generation_of(name) == generation)
        return any(clock.leaving or clock.refused or clock.gone_at is not None for clock in clocks)

    def follow(self, generation: int) -> None:
        """Tasks of which nothing was asked for yet use this generation."""
        for task in self._tasks:
            waits = not task.admitted and not task.endpoint_wanted and task.reason is None
            if waits and self.clock(task) is not None and generation_of(_name(task)) < generation:
                planned = self._planned[task.plan.key]
                task.plan = attempt(planned, task.attempt, self._invocation, generation=generation)

    def end_all(self) -> None:
        """What was made so far ended with the launcher that made it."""
        for clock in self._clocks.values():
            clock.leaving = True
        if self._clocks:
            self.follow(max(map(generation_of, self._clocks)) + 1)


def _told(usd: float | None, ran: float | None) -> dict[str, Any]:
    """What the platform's meters have said."""
    return {name: value for name, value in (("usd", usd), ("ran", ran)) if value is not None}


def _name(task: TaskState) -> str:
    return task.plan.endpoint.name if task.plan.endpoint is not None else ""
