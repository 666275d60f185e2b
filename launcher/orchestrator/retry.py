"""Whether a task that ended without scores is tried again, when, and what its end really was."""

from __future__ import annotations

import re
from collections.abc import Iterable

from launcher.orchestrator.reasons import MEANINGS, Reason
from launcher.orchestrator.state import TaskState

FIRST_DELAY, LONGEST_DELAY = 10.0, 300.0
"""Seconds before the second attempt, doubled before each further one, and their bound."""

_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|OOMKilled|std::bad_alloc|Cannot allocate memory|"
    r"not enough memory|No available memory for the cache blocks",
    re.IGNORECASE,
)


def delay(task: TaskState, most_attempts: int) -> float | None:
    """Seconds until the next attempt of a task that is all gone; None: it is over."""
    if task.reason is None or task.reason is Reason.COMPLETED:
        return None
    if task.again:
        return 0.0
    if not MEANINGS[task.reason].retry or task.attempt >= most_attempts:
        return None
    return min(FIRST_DELAY * 2.0 ** (task.attempt - 1), LONGEST_DELAY)


def diagnosed(reason: Reason, detail: str, log: Iterable[str]) -> Reason:
    """The reason, once the last lines of the server's log are known: out of memory is not tried again."""
    if reason not in (Reason.ENDPOINT_DIED, Reason.ENDPOINT_EXITED):
        return reason
    found = any(_OUT_OF_MEMORY.search(line) for line in (detail, *log))
    return Reason.ENDPOINT_OUT_OF_MEMORY if found else reason
