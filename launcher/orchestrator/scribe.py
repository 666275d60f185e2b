"""Writes into the journal what happens to one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from launcher.errors import LauncherError, LeaseLost
from launcher.orchestrator.journal import HEARTBEAT, Fact, Journal
from launcher.orchestrator.state import Phase, TaskState
from launcher.plan.model import Plan


class Scribe:
    """One run's pen. `lost` is told when another process has become the supervisor."""

    def __init__(self, journal: Journal, plan: Plan, lost: Callable[[LeaseLost], None]) -> None:
        self._journal = journal
        self._invocation = plan.invocation
        self._price = plan.usd_per_gpu_hour
        self._lost = lost
        self._last_beat = float("-inf")

    def record(self, kind: Fact, task: TaskState, name: str = "", **data: Any) -> None:
        """A fact without which nothing may go on. Raises LauncherError if it cannot be written, LeaseLost."""
        self._journal.record(self._invocation, kind, task.plan.key, name, **data)

    def quietly(self, kind: Fact, task: TaskState | None, name: str = "", **data: Any) -> None:
        """A fact that must not keep a teardown from happening when the disk is full."""
        try:
            self._journal.record(self._invocation, kind, task.plan.key if task else None, name, **data)
        except LeaseLost as error:
            self._lost(error)
        except LauncherError:
            return

    def beat(self, tasks: Iterable[TaskState], now: float, *, force: bool = False) -> None:
        """A sign of life, with how all tasks are, where it is due or `force` says so."""
        if not force and now - self._last_beat < HEARTBEAT:
            return
        self._last_beat = now
        try:
            self._journal.beat(self._invocation, [_live_row(task, now, self._price) for task in tasks])
        except LeaseLost as error:
            self._lost(error)


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
