"""Writes into the journal what happens to one run.

Facts of one turn of the loop reach the disk together: a disk needs milliseconds for each time it is told to keep
something, and a thousand tasks have nine thousand facts. What must be on disk before a request leaves is waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from launcher.errors import LauncherError, LeaseLost
from launcher.orchestrator import journal as journals
from launcher.orchestrator.journal import HEARTBEAT, Entry, Fact, Journal
from launcher.orchestrator.state import Phase, TaskState
from launcher.plan.model import Plan

ROWS_EASE, LONGEST_ROWS = 50.0, 20.0
"""How all tasks are is told again after so many times the processor time that it took, and so many seconds at most."""
FRESH = 0.05
"""Seconds after which what was written about the lease may not be true any more: a loop's turn takes less."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A fact on its way to the disk. `written` hears of it; without it nobody waits."""

    entry: Entry
    written: asyncio.Future[float] | None = None

    def tell(self, error: LauncherError | None) -> None:
        """Whoever waits goes on, unless that was cancelled meanwhile."""
        if self.written is None or self.written.done():
            return
        if error is None:
            self.written.set_result(time.monotonic())
        else:
            self.written.set_exception(error)


class Scribe:
    """One run's pen. `lost` is told when another process has become the supervisor, `say` of a fact that is lost."""

    def __init__(
        self,
        journal: Journal,
        plan: Plan,
        lost: Callable[[LeaseLost], None],
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._invocation = plan.invocation
        self._price = plan.usd_per_gpu_hour
        self._lost = lost
        self._say = say
        self._has_said = False
        self._last_beat = float("-inf")
        self._rows_due = float("-inf")
        self._waiting: list[_Waiting] = []
        self._last_rows: dict[str, dict[str, object]] = {}

    async def record(self, kind: Fact, task: TaskState, name: str = "", **data: Any) -> None:
        """A fact without which nothing may go on; it is on disk when this returns.

        Raises LauncherError if it cannot be written, LeaseLost: also if a process that stood still meanwhile has been
        taken over since.
        """
        written = asyncio.get_running_loop().create_future()
        self._soon(_Waiting(journals.entry(kind, task.plan.key, name, data), written))
        if time.monotonic() - await written > FRESH:
            self._journal.stand_back_if_lost(self._invocation)

    def at_once(self, kind: Fact, task: TaskState, name: str = "", **data: Any) -> None:
        """`record` for those who cannot wait, after all that waits."""
        self.settle()
        self._journal.record(self._invocation, kind, task.plan.key, name, **data)

    def quietly(self, kind: Fact, task: TaskState | None, name: str = "", **data: Any) -> None:
        """A fact that must not keep a teardown from happening when the disk is full; it is written in a moment."""
        self._soon(_Waiting(journals.entry(kind, task.plan.key if task else None, name, data)))

    def noted(self, kind: Fact, task: TaskState, name: str = "", **data: Any) -> None:
        """The same; it is on disk when this returns, if it can be, and nothing else has had a turn since."""
        self.quietly(kind, task, name, **data)
        self.settle()

    def _soon(self, fact: _Waiting) -> None:
        self._waiting.append(fact)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self.settle)

    def settle(self) -> None:
        """Write all that waits: together or, if that fails, each by itself, so that each hears of its own failure."""
        facts, self._waiting = self._waiting, []
        if len(facts) > 1 and self._wrote(facts):
            return
        for fact in facts:
            try:
                self._write(fact)
            except LauncherError as error:
                fact.tell(error)
                if not isinstance(error, LeaseLost):
                    self._miss(error)
                elif fact.written is None:
                    self._lost(error)
            else:
                fact.tell(None)

    def _miss(self, error: LauncherError) -> None:
        if not self._has_said:
            self._has_said = True
            again = f"once there is room, nv-eval resume {self._invocation} puts that right"
            self._say(f"{error}; the run goes on, and status will not know how it ends: {again}")

    def _wrote(self, facts: list[_Waiting]) -> bool:
        try:
            self._journal.record_all(self._invocation, [fact.entry for fact in facts])
        except LauncherError:
            return False
        for fact in facts:
            fact.tell(None)
        return True

    def _write(self, fact: _Waiting) -> None:
        self._journal.record_all(self._invocation, [fact.entry])

    def beat(self, tasks: Iterable[TaskState], now: float, *, force: bool = False) -> None:
        """A sign of life, with how all tasks are, where it is due or `force` says so."""
        if not force and now - self._last_beat < HEARTBEAT:
            return
        self._last_beat = now
        if not force and now < self._rows_due:
            self._journal.keep_lease(self._invocation)
            return
        began = time.thread_time()
        try:
            self._journal.beat(self._invocation, [self._row(task, now) for task in tasks])
        except LeaseLost as error:
            self._lost(error)
        self._rows_due = now + min(ROWS_EASE * (time.thread_time() - began), LONGEST_ROWS)

    def _row(self, task: TaskState, now: float) -> dict[str, object]:
        """How a task is; of one that is over nothing changes any more."""
        if not task.is_over:
            return _live_row(task, now, self._price)
        key = task.plan.key
        if key not in self._last_rows:
            self._last_rows[key] = _live_row(task, now, self._price)
        return self._last_rows[key]


def _live_row(task: TaskState, now: float, usd_per_gpu_hour: float | None) -> dict[str, object]:
    progress = task.progress
    return {
        "task": task.plan.key,
        "phase": task.phase.value if task.phase is not Phase.ENDED else str(task.reason),
        "done": progress.done if progress else None,
        "total": progress.total if progress else None,
        "why": task.why,
        "attempt": task.attempt,
        "gpu_seconds": round(task.gpu_seconds(now), 1),
        "usd": task.usd(now, usd_per_gpu_hour),
    }
