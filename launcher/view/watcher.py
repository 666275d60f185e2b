"""What is known of all invocations, read from the journal once for all pages and all live connections.

Level-triggered: the journal is read again where it has changed, and each second for what runs, whose launcher may
die without a word. While nobody looks, nothing is read.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from launcher.decoding import decode
from launcher.errors import LauncherError, NotFound
from launcher.orchestrator import status, sweeps
from launcher.orchestrator.journal import Journal, RunState
from launcher.orchestrator.status import RunStatus
from launcher.results.model import BROKEN

PERIOD = 1.0
"""Seconds between two looks."""
PATIENCE = 10.0
"""Seconds after which a live connection is looked at although nothing changed: its other end may be gone."""
_SETTLED = (RunState.FINISHED, RunState.INTERRUPTED)
"""States that only a new fact can change."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One invocation. `seen`: its last sign of life, in seconds since 1970; `change`: the number of its last change.

    `sweep`: the sweep that it is a point of, if it is one.
    """

    status: RunStatus
    model: str
    sweep: str = ""
    seen: float | None
    change: int

    @property
    def id(self) -> str:
        """Its id."""
        return self.status.invocation

    @property
    def folder(self) -> Path:
        """Where its results lie."""
        return Path(self.status.folder)

    @property
    def is_settled(self) -> bool:
        """Whether nothing will change by itself."""
        return self.status.state in _SETTLED


class _Target(msgspec.Struct):
    model: str = ""


class _Task(msgspec.Struct):
    target: _Target = msgspec.field(default_factory=_Target)


class _Plan(msgspec.Struct):
    """The little of a plan that is wanted here."""

    tasks: list[_Task] = []


class Watcher:
    """All invocations of one journal, and who waits for their changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.change = 0
        """Number of the last change that can be seen; it only grows. Read it before what it numbers."""
        self.problem = ""
        """Why the journal cannot be read, in words."""
        self._counted = 0
        self._runs: dict[str, Run] = {}
        self._newest_first: list[Run] = []
        self._journal: Journal | None = None
        self._version, self._seq, self._beat = -1, 0, 0.0
        self._lock = threading.Lock()
        self._changed = asyncio.Condition()
        self._watching = 0
        self._wanted, self._ended = asyncio.Event(), asyncio.Event()

    # --- looking ----------------------------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """All invocations as they are now, newest first."""
        self.look()
        return self._newest_first

    def known(self) -> list[Run]:
        """All invocations as of the last look, newest first."""
        return self._newest_first

    def latest(self, invocation: str) -> Run | None:
        """One invocation as of the last look."""
        return self._runs.get(invocation)

    def run(self, invocation: str) -> Run:
        """One invocation by its whole id. Raises NotFound."""
        self.look()
        found = self._runs.get(invocation)
        if found is None:
            raise NotFound(self.problem or f"{invocation}: no such invocation.")
        return found

    def look(self) -> None:
        """Bring up to date what is known. A journal that cannot be read is a problem to show, and may come back."""
        with self._lock:
            try:
                self._look(self._opened())
                self._say("")
            except LauncherError as error:
                self._forget()
                self._say(str(error))
            except ValueError as error:  # of JSON that somebody else has written
                self._forget()
                self._say(f"{self.path}: holds what no nv-eval wrote: {error}")
            self.change = self._counted

    def _opened(self) -> Journal:
        if self._journal is not None and not self._journal.is_current():
            self._forget()
        if self._journal is None:
            self._journal = Journal.reading(self.path)
        return self._journal

    def _forget(self) -> None:
        """The file is gone or is another one: what was read of it is not true any more."""
        if self._journal is not None:
            self._journal.close()
        if self._runs:
            self._counted += 1
        self._journal, self._runs, self._newest_first = None, {}, []
        self._version, self._seq, self._beat = -1, 0, 0.0

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            self.problem, self._counted = problem, self._counted + 1

    def _look(self, journal: Journal) -> None:
        version, changed = journal.data_version(), {run.id for run in self._newest_first if not run.is_settled}
        if version != self._version:
            touched, self._seq, self._beat = journal.touched(self._seq, self._beat)
            changed |= touched
        if changed:
            self._read(journal, changed)
        self._version = version

    def _read(self, journal: Journal, changed: set[str]) -> None:
        for invocation in journal.invocations():
            if invocation.id in changed:
                found = status.of(journal, invocation)
                self._take(found, self._runs.get(invocation.id), journal, sweeps.sweep_of(journal, invocation.id) or "")
        self._newest_first = sorted(self._runs.values(), key=lambda run: (run.status.created, run.id), reverse=True)

    def _take(self, found: RunStatus, before: Run | None, journal: Journal, sweep: str) -> None:
        seen = None if found.age is None else time.time() - found.age
        bare = replace(found, age=None, tasks=tuple(replace(task, age=None) for task in found.tasks))
        if before is not None and (before.status, before.sweep) == (bare, sweep):
            self._runs[found.invocation] = replace(before, seen=seen)
            return
        self._counted += 1
        model = before.model if before is not None and before.model else _model(journal, found.invocation)
        self._runs[found.invocation] = Run(status=bare, model=model, sweep=sweep, seen=seen, change=self._counted)

    # --- live connections -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """While somebody follows, the journal is looked at."""
        self._watching += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._watching -= 1
            if not self._watching:
                self._wanted.clear()

    async def wait(self, change: int) -> bool:
        """Wait until there is a later change than that, or PATIENCE is over; False once the server ends."""
        try:
            async with asyncio.timeout(PATIENCE), self._changed:
                await self._changed.wait_for(lambda: self.change > change or self.is_closed)
        except TimeoutError:
            pass
        return not self.is_closed

    async def pause(self, seconds: float) -> bool:
        """Wait for a time; False once the server ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            pass
        return not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether the server ends."""
        return self._ended.is_set()

    async def watch(self) -> None:
        """Look again and again while somebody follows; for ever."""
        told = 0
        while True:
            await self._wanted.wait()
            await asyncio.to_thread(self.look)
            if self.change != told:  # by this look, or by that of a page
                told = self.change
                await self._wake()
            await asyncio.sleep(PERIOD)

    def shut(self) -> None:
        """Close the journal; another look opens it again."""
        with self._lock:
            self._forget()

    async def close(self) -> None:
        """End all live connections."""
        self._ended.set()
        await self._wake()

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _model(journal: Journal, invocation: str) -> str:
    """The name under which the model is served, as the plan says it; of several, all."""
    try:
        plan = decode(journal.plan(invocation), _Plan)
    except (NotFound, *BROKEN):
        return ""
    return ", ".join(dict.fromkeys(task.target.model for task in plan.tasks if task.target.model))
