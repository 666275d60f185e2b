"""The list of invocations: which of them a page shows, and how a row of it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from launcher.orchestrator.reasons import MEANINGS, Reason, Status
from launcher.orchestrator.status import TaskStatus
from launcher.view.watcher import Run

PAGE = 50
"""Rows of a page."""


@dataclass(frozen=True)
class Wish:
    """What of a list somebody wants to see."""

    state: str = ""
    text: str = ""
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wish:
        """As the address says it; what makes no sense there is left out."""
        return cls(query.get("state", ""), query.get("q", "").strip(), whole(query.get("page", ""), 1))

    def address(self, page: int | None = None) -> str:
        """The query of an address that says the same, on another page if one is given."""
        said = {"state": self.state, "q": self.text, "page": "" if (page or self.page) == 1 else page or self.page}
        return urlencode({name: value for name, value in said.items() if value})

    def fits(self, run: Run) -> bool:
        """Whether an invocation is wanted."""
        return self.state in ("", run.status.state, outcome(run)) and self.text.lower() in _text(run)


@dataclass(frozen=True)
class Page:
    """Rows of one page, of `count` that fit."""

    rows: Sequence[Run]
    count: int
    number: int
    pages: int


def whole(text: str, default: int) -> int:
    """A whole number from 1 on."""
    is_whole = text.isascii() and text.isdecimal() and len(text) < 10  # of thousands of digits Python makes no number
    return int(text) if is_whole and int(text) else default


def page(runs: Sequence[Run], wish: Wish) -> Page:
    """The page that is wanted, or the last one before it."""
    found = [run for run in runs if wish.fits(run)]
    pages = max(1, -(-len(found) // PAGE))
    at = min(wish.page, pages)
    return Page(found[(at - 1) * PAGE : at * PAGE], len(found), at, pages)


def _text(run: Run) -> str:
    status = run.status
    names = (
        status.invocation,
        run.sweep,
        run.model,
        status.deployment,
        status.execution,
        *(task.task for task in status.tasks),
    )
    return "\n".join(names).lower()


def outcome(run: Run) -> str:
    """How an invocation stands, in one word that has a colour: running, scored, failed, stopped, interrupted, …"""
    if run.status.state != "finished" or run.status.keeps_endpoint:
        return run.status.state.value
    ends = {ending(task) for task in evaluated(run)}
    return next(
        (kind for kind in ("failed", "stopped") if kind in ends), "scored" if ends == {"scored"} else "finished"
    )


def ending(task: TaskStatus) -> str:
    """How a task stands, in one word that has a colour."""
    if not task.reason or task.reason == Reason.RELEASED:
        return "ended" if task.phase == "ended" else "running" if task.phase != "queued" else "queued"
    try:
        return MEANINGS[Reason(task.reason)].status.value
    except ValueError:
        return Status.FAILED.value


def evaluated(run: Run) -> list[TaskStatus]:
    """Its tasks, without the auxiliary endpoints that they use."""
    return [task for task in run.status.tasks if not task.is_auxiliary]


def over(run: Run) -> int:
    """How many of its tasks have ended."""
    return sum(bool(task.reason) or task.phase == "ended" for task in evaluated(run))


def failures(run: Run) -> int:
    """How many of its tasks have ended without scores."""
    return sum(bool(task.reason) and ending(task) != "scored" for task in evaluated(run))


def samples(run: Run) -> tuple[int, int]:
    """Requests that were answered, of how many, over its tasks."""
    return sum(task.done or 0 for task in evaluated(run)), sum(task.total or 0 for task in evaluated(run))
