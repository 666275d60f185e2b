"""The live view of a run: one line per task on a terminal, plain lines of what changed anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from launcher.cli.text import plain, plain_lines
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import Phase, TaskState
from launcher.plan.model import Plan
from launcher.plan.render import duration, money

PLAIN_INTERVAL = 15.0
"""Seconds between two lines of progress of one task, where there is no terminal."""


class View(Protocol):
    """Something that shows a run."""

    def update(self, tasks: list[TaskState], now: float) -> None:
        """Called after each look at the world, with the run's clock."""
        ...

    def say(self, text: str) -> None:
        """Show a sentence."""
        ...


class Quiet:
    """Shows nothing."""

    def update(self, tasks: list[TaskState], now: float) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""


@contextmanager
def open_view(plan: Plan, *, quiet: bool = False) -> Iterator[View]:
    """The view that suits where the output goes; it goes to standard error, results to standard output."""
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield Quiet()
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=False) as live:
            yield Titled(Screen(plan, live), _title(plan))
    else:
        yield Titled(Lines(plan), _title(plan))


def _title(plan: Plan) -> str:
    tasks = "1 task" if len(plan.tasks) == 1 else f"{len(plan.tasks)} tasks"
    return f"Invocation {plan.invocation}: {tasks} on {plan.execution}. Stop with Ctrl-C."


class Titled:
    """A view with a title, which comes with the first look at the world: until then a run may be refused."""

    def __init__(self, view: View, title: str) -> None:
        self._view = view
        self._title: str | None = title

    def update(self, tasks: list[TaskState], now: float) -> None:
        """Show the title if it has not been shown, and what there is."""
        if self._title is not None:
            self._view.say(self._title)
            self._title = None
        self._view.update(tasks, now)

    def say(self, text: str) -> None:
        """Show a sentence."""
        self._view.say(text)


class Screen:
    """A table that is redrawn."""

    def __init__(self, plan: Plan, live: Live) -> None:
        self._plan = plan
        self._live = live

    def update(self, tasks: list[TaskState], now: float) -> None:
        """Redraw."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("task", "phase", "samples", "rate", "left", "time"):
            table.add_column(name, justify="left" if name in ("task", "phase") else "right", overflow="fold")
        if self._plan.worst_case.usd is not None:
            table.add_column("cost", justify="right")
        for task in tasks:
            table.add_row(*self._row(task, now))
        self._live.update(table)

    def say(self, text: str) -> None:
        """Show a sentence above the table."""
        self._live.console.print(plain_lines(text), markup=False)

    def _row(self, task: TaskState, now: float) -> list[str]:
        style = {Phase.ENDED: "green" if task.reason is Reason.COMPLETED else "red", Phase.QUEUED: "dim"}
        phase = style.get(task.phase, "")
        shown = escape(plain(f"{describe(task)}{f': {task.why}' if task.why else ''}"))
        shown = f"[{phase}]{shown}[/{phase}]" if phase else shown
        row = [task.plan.key, shown, samples(task), rate(task, now), left(task, now), elapsed(task, now)]
        if self._plan.worst_case.usd is not None:
            row.append(money(task.usd(now, self._plan.usd_per_gpu_hour) or 0.0))
        return row


class Lines:
    """A line whenever a task changes its phase, and now and then its progress."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._said: dict[str, tuple[str, float]] = {}
        self._why: dict[str, str] = {}

    def update(self, tasks: list[TaskState], now: float) -> None:
        """Write what has changed."""
        for task in tasks:
            before, at = self._said.get(task.plan.key, ("", 0.0))
            text = describe(task)
            moves = task.phase is Phase.EVALUATING or (task.why and task.why != self._why.get(task.plan.key))
            if text == before and not (moves and now - at >= PLAIN_INTERVAL):
                continue
            self._why[task.plan.key] = task.why
            self._said[task.plan.key] = (text, now)
            count = f" {samples(task)}" if samples(task) else ""
            spent = task.usd(now, self._plan.usd_per_gpu_hour)
            cost = f", {money(spent)} so far" if spent and task.phase is not Phase.ENDED else ""
            why = f": {task.why}" if task.why else ""
            self.say(f"{task.plan.key}: {text}{why}{count}{cost}")

    def say(self, text: str) -> None:
        """Write a line. A run goes on when nobody reads it any more."""
        with suppress(OSError):
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {plain_lines(text)}\n")
            sys.stderr.flush()


def describe(task: TaskState) -> str:
    """Phase of a task in a word; how it ended, once it has."""
    if task.phase is not Phase.ENDED:
        return task.phase.value + (f" (attempt {task.attempt})" if task.attempt > 1 else "")
    if task.reason is Reason.COMPLETED:
        return "scored"
    return (task.reason or Reason.STOPPED).value.replace("_", " ")


def samples(task: TaskState) -> str:
    """Requests answered of all."""
    progress = task.progress
    if progress is None or progress.total is None:
        return ""
    return f"{progress.done or 0}/{progress.total}"


def rate(task: TaskState, now: float) -> str:
    """Requests per second since evaluation began."""
    speed = _speed(task, now)
    return f"{speed:.1f}/s" if speed else ""


def left(task: TaskState, now: float) -> str:
    """Time until the task is through at its present rate."""
    speed, progress = _speed(task, now), task.progress
    if not speed or progress is None or progress.total is None or task.reason is not None:
        return ""
    return duration((progress.total - (progress.done or 0)) / speed)


def _speed(task: TaskState, now: float) -> float | None:
    if task.evaluating_at is None or task.progress is None or not task.progress.done:
        return None
    seconds = (task.ended_at or now) - task.evaluating_at
    return task.progress.done / seconds if seconds > 0 else None


def elapsed(task: TaskState, now: float) -> str:
    """Time since the task's endpoint was asked for."""
    return "" if task.started_at is None else duration(round((task.gone_at or now) - task.started_at))
