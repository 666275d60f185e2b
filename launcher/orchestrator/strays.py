"""What carries an invocation's mark and belongs to none of its tasks: an attempt that a lost journal knew, an endpoint
that the platform shows again after its task was done with it.

It is removed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator

from launcher.orchestrator.decide import is_gone
from launcher.orchestrator.state import TaskState
from launcher.platforms.base import Observation, Platform

Spawn = Callable[[Coroutine[None, None, None]], None]


class Strays:
    """Finds and removes them, beside the tasks' own steps."""

    def __init__(self, platform: Platform, patience: float, may_remove: Callable[[str], bool]) -> None:
        """`patience`: seconds after which one that does not go away counts as left over.

        `may_remove` is asked before each request: a launcher that was taken over must leave alone what the other made.
        """
        self._may_remove = may_remove
        self.left: list[str] = []
        """Names of those that would not go."""
        self._platform = platform
        self._patience = patience
        self._leaving: dict[str, float] = {}
        self._known: Counter[str] | None = None

    def __bool__(self) -> bool:
        """Whether some are being removed."""
        return bool(self._leaving)

    def look(self, seen: Observation, tasks: list[TaskState], spawn: Spawn) -> None:
        """Begin to remove those that an observation shows; `spawn` runs the removals."""
        if self._known is None:
            self._known = Counter(name for task in tasks for name in _names(task))
        known, alive = self._known, set[str]()
        for found, remove in (
            (seen.endpoints, self._platform.delete_endpoint),
            (seen.jobs, self._platform.cancel_job),
        ):
            for name in [name for name in found if name not in known and not is_gone(found[name])]:
                alive.add(name)
                if name not in self._leaving and name not in self.left:
                    self._leaving[name] = asyncio.get_running_loop().time()
                    spawn(self._remove(name, remove))
        for name in set(self._leaving) - alive:
            del self._leaving[name]

    def forget_names(self) -> None:
        """Several tasks have got other names."""
        self._known = None

    @contextlib.contextmanager
    def other_names(self, task: TaskState) -> Iterator[None]:
        """Within, a task gets other names, or is over and needs its endpoint's no more."""
        before = _names(task)
        yield
        if self._known is not None:
            self._known.update(_names(task))
            self._known.subtract(before)
            for name in before:
                if not self._known[name]:  # others may share an endpoint
                    del self._known[name]

    async def _remove(self, name: str, remove: Callable[[str], Awaitable[None]]) -> None:
        clock = asyncio.get_running_loop()
        while name in self._leaving and clock.time() - self._leaving[name] < self._patience:
            if not self._may_remove(name):
                return
            with contextlib.suppress(Exception):  # it is asked again
                await remove(name)
            await asyncio.sleep(self._platform.poll_interval)
        if self._leaving.pop(name, None) is not None:
            self.left.append(name)


def _names(task: TaskState) -> list[str]:
    """What belongs to a task: its job, and its endpoint until it is over."""
    endpoint, is_over = task.plan.endpoint, task.done and task.gone_at is not None
    return [task.plan.job.name] if endpoint is None or is_over else [task.plan.job.name, endpoint.name]
