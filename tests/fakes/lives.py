"""Launchers that live, freeze and are killed, on computers whose wall clocks jump and whose disks are full for a while.

A life runs the real Supervision with the real Journal; what is replaced is the platform, the clocks, process ids, and
the writing of the tables of results, which is slow and not what is looked at here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import supervise
from launcher.orchestrator import journal as journals
from launcher.orchestrator import lease, recover, run
from launcher.orchestrator.blocking import Interrupts
from launcher.orchestrator.journal import Journal
from launcher.results import write
from launcher.supervise import RunResult, Supervision
from tests.fakes.world import World, WorldLoop, WorldPlatform, WorldProbes

_CHANGES = ("INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of the launcher has an effect any more."""


class Disk:
    """A journal's connection that may be full, and in which its launcher may die."""

    def __init__(self, connection: sqlite3.Connection, computer: Computer, life: Life) -> None:
        self._connection = connection
        self._computer = computer
        self._life = life

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        changes = statement.startswith(_CHANGES)
        self._life.point()
        if changes and self._computer.disk_is_full:
            raise sqlite3.OperationalError("database or disk is full")
        cursor = self._connection.execute(statement, values)
        self._life.point()
        return cursor

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def close(self) -> None:
        self._connection.close()


@dataclass(eq=False)
class Life:
    """One launcher's process. `fuse`: after so many more points (requests, journal statements) it is killed."""

    computer: Computer
    number: int
    host: str
    fuse: int | None = None
    turns: int | None = None
    """After so many turns of its loop it is killed."""
    dead: bool = False
    ended: bool = False
    result: RunResult | None = None
    error: BaseException | None = None
    lived: list[tuple[float, float]] = field(default_factory=list)
    """From when to when, in the world's time, it was running."""

    def __post_init__(self) -> None:
        self.loop = _LifeLoop(self.computer.world, self)
        self.loop.set_exception_handler(_unless_killed)
        self.platform = WorldPlatform(self.computer.world, self.number, self.point, self.computer.poll_interval)
        self.interrupts = Interrupts()
        self._main: asyncio.Task[RunResult] | None = None
        self._closed: set[asyncio.Task[Any]] = set()
        self.journal = Journal(self.computer.journal_path)
        connection = self.journal._db
        connection.execute("PRAGMA synchronous = OFF")  # nothing here pulls the plug
        self._connection = connection
        self.journal._db = Disk(connection, self.computer, self)  # type: ignore[assignment]

    def point(self) -> None:
        """A place where the launcher may die. Raises Killed if it has."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.die()
        if self.dead:
            raise Killed

    def die(self) -> None:
        """As kill -9 does it."""
        self.dead = True
        self.loop.stop()

    def discard(self) -> None:
        """Kill it, if it lives."""
        if not self.dead:
            self.die()
            self._bury()

    def begin(self, supervision: Supervision) -> None:
        """Start to run an invocation."""

        async def main() -> RunResult:
            return await self.interrupts.attended(supervision.run(self.interrupts))

        self._main = self.loop.create_task(main())
        self._main.add_done_callback(lambda _: self.loop.stop())

    def lived_between(self, begun: float, over: float) -> float:
        """Seconds that it was running between two moments."""
        return sum(max(0.0, min(over, last) - max(begun, first)) for first, last in self.lived)

    def signal(self) -> None:
        """SIGTERM."""
        if self.dead:
            return
        self.loop.call_soon(self.interrupts.react)
        self.go(0.01)

    def go(self, seconds: float) -> None:
        """Let it run for so long, or until it ends or dies."""
        if self.ended or self.dead:
            return
        begun = self.computer.world.now
        with self.computer.seen_by(self):
            alarm = self.loop.call_later(seconds, self.loop.stop)
            with contextlib.suppress(Killed):
                self.loop.run_forever()
            alarm.cancel()
        self.lived.append((begun, self.computer.world.now))
        if self.dead or (self._main is not None and self._main.done()):
            self._bury()

    def _bury(self) -> None:
        """Let go of everything; of a launcher that was killed no line runs."""
        if self._main is not None and self._main.done() and not self.dead:
            self.ended = True
            self.error = None if self._main.cancelled() else self._main.exception()
            self.result = None if self.error or self._main.cancelled() else self._main.result()
            with self.computer.seen_by(self), contextlib.suppress(Killed):
                self.journal.give_up_lease(self.computer.invocation)
        self.dead = True
        self.loop.set_exception_handler(lambda *_: None)
        self._close_coroutines()
        if self._main is not None and self._main.done() and not self._main.cancelled():
            self._main.exception()
        self.loop.close()
        self._connection.close()
        if self.computer.world.ends_with_launcher:
            self.computer.world.end_all(self.number, after=1.5)

    def _close_coroutines(self) -> None:
        """Close what was under way and what that begins meanwhile, which would warn in a later test."""
        other = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(self.loop)  # what begins now is to belong to this loop
        try:
            for _ in range(20):
                for task in asyncio.all_tasks(self.loop) - self._closed:
                    _close(task)
                    self._closed.add(task)
        finally:
            asyncio.events._set_running_loop(other)


def _close(task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    for _ in range(20):
        try:
            coroutine.close()  # type: ignore[union-attr]
        except (RuntimeError, Killed):
            continue
        break


def _unless_killed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A callback in which the launcher was killed is no defect."""
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)


class _LifeLoop(WorldLoop):
    def __init__(self, world: World, life: Life) -> None:
        self._life = life
        super().__init__(world)

    def _run_once(self) -> None:
        if self._life.turns is not None:
            self._life.turns -= 1
            if self._life.turns < 0:
                self._life.die()
                return
        super()._run_once()  # type: ignore[misc]


@dataclass(eq=False)
class Computer:
    """Where launchers run: its wall clock shows the world's time plus `offset`."""

    world: World
    folder: Path
    invocation: str
    poll_interval: float = 1.0
    offset: float = 1.7e9
    disk_is_full: bool = False
    lives: list[Life] = field(default_factory=list)
    _running: Life | None = None

    @property
    def journal_path(self) -> Path:
        return self.folder / "state" / "journal.db"

    def new_life(self, host: str = "here") -> Life:
        """A launcher's process that has just started."""
        life = Life(self, len(self.lives) + 1, host)
        self.lives.append(life)
        return life

    @contextlib.contextmanager
    def seen_by(self, life: Life) -> Iterator[None]:
        """Within, this launcher's process runs."""
        before, self._running = self._running, life
        try:
            yield
        finally:
            self._running = before

    def patch(self, patches: pytest.MonkeyPatch) -> None:
        """Put this computer in the place of the real one, until the patches are undone."""
        clock = SimpleNamespace(time=lambda: self.world.now + self.offset)
        system = SimpleNamespace(
            getpid=self._pid, kill=self._kill, pidfd_open=_no_descriptors, environ=os.environ, urandom=os.urandom
        )
        for module in (journals, lease):
            patches.setattr(module, "time", clock)
            patches.setattr(module, "os", system)
        patches.setattr(recover, "time", clock)
        patches.setattr(lease, "host_name", lambda: self._running.host if self._running else "here")
        patches.setattr(lease, "process_start", self._process_start)
        patches.setattr(run, "Probes", lambda _invocation, _platform: WorldProbes(self.world))
        patches.setattr(supervise, "open_for", lambda _plan: self._platform())
        patches.setattr(supervise, "handled", lambda *_: contextlib.nullcontext())
        written = SimpleNamespace(begin=_begin_folder, finish=_finish, write_atomically=_written)
        patches.setattr(supervise, "write", written)

    def _platform(self) -> WorldPlatform:
        assert self._running is not None
        return self._running.platform

    def _pid(self) -> int:
        return 1000 + self._running.number if self._running else 999

    def _process_start(self, pid: int) -> str:
        alive = any(1000 + life.number == pid and not life.dead for life in self.lives)
        return f"start-{pid}" if alive else ""

    def _kill(self, pid: int, _signal: int) -> None:
        for life in self.lives:
            if 1000 + life.number == pid and not life.dead:
                life.die()
                life._bury()


def _no_descriptors(_pid: int) -> int:
    raise OSError(errno.ENOSYS, "Function not implemented")


def _begin_folder(_plan: object, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _finish(plan: Any, outcome: Any, _folder: Path, *, began: float | None) -> write.Written:
    return write.Written(write.build(plan, outcome), (), True)


def _written(_path: Path, _content: bytes) -> None:
    """Stands in for the writing of a file that nothing here looks at."""
