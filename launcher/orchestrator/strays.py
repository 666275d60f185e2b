"""What carries an invocation's mark and belongs to none of its tasks: an attempt that a lost journal knew, an endpoint
that the platform shows again after its task was done with it.

It is removed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine

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

    def __bool__(self) -> bool:
        """Whether some are being removed."""
        return bool(self._leaving)

    def look(self, seen: Observation, tasks: list[TaskState], spawn: Spawn) -> None:
        """Begin to remove those that an observation shows; `spawn` runs the removals."""
        known = {task.plan.job.name for task in tasks}
        unfinished = [task for task in tasks if not (task.done and task.gone_at is not None)]
        known |= {task.plan.endpoint.name for task in unfinished if task.plan.endpoint}
        alive: set[str] = set()
        for found, remove in (
            (seen.endpoints, self._platform.delete_endpoint),
            (seen.jobs, self._platform.cancel_job),
        ):
            for name in (name for name, thing in found.items() if name not in known and not is_gone(thing)):
                alive.add(name)
                if name not in self._leaving and name not in self.left:
                    self._leaving[name] = asyncio.get_running_loop().time()
                    spawn(self._remove(name, remove))
        for name in set(self._leaving) - alive:
            del self._leaving[name]

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
