"""Schedules and their history, and what watches have seen: `schedules.db` in the state folder.

A file of its own, so that a schedule outlives a journal that is moved away. Rollback journal, synchronous=FULL: what
was decided is on disk before it is done.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from launcher.decoding import convert, decode
from launcher.errors import ConfigError, LauncherError, NotFound, nearest
from launcher.orchestrator import schema
from launcher.orchestrator.journal import BUSY_PATIENCE, state_folder
from launcher.orchestrator.lease import process_start
from launcher.schedule.model import GOOD, Checkpoint, Definition, Fire, Outcome, Schedule, Seen
from launcher.text import plain

_TABLES = """
CREATE TABLE schedules (
  name TEXT PRIMARY KEY, created REAL NOT NULL, handled REAL NOT NULL, paused INTEGER NOT NULL, definition BLOB NOT NULL
);
CREATE TABLE fires (
  id INTEGER PRIMARY KEY AUTOINCREMENT, schedule TEXT NOT NULL, due REAL, first_due REAL, count INTEGER NOT NULL,
  started REAL, ended REAL, invocation TEXT NOT NULL, exit_code INTEGER, outcome TEXT, detail TEXT NOT NULL,
  worst_usd REAL, usd REAL, verdict TEXT, baseline TEXT NOT NULL,
  told INTEGER NOT NULL DEFAULT 0, host TEXT NOT NULL, pid INTEGER NOT NULL, pid_start TEXT NOT NULL
);
CREATE INDEX fires_of ON fires (schedule, id);
CREATE TABLE checkpoints (
  watch TEXT NOT NULL, identity TEXT NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL, step INTEGER,
  ordering REAL NOT NULL, started REAL NOT NULL, invocation TEXT NOT NULL, outcome TEXT, exit_code INTEGER,
  detail TEXT NOT NULL, PRIMARY KEY (watch, identity)
)
"""
VERSION = 1
_UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
_LONGEST_REASON = 120
_FIRE = (
    "id, schedule, due, first_due, count, started, ended, invocation, exit_code, outcome, detail, worst_usd, usd, "
    "verdict, baseline"
)


@dataclass(frozen=True)
class Process:
    """Who runs something: a process that no later one with the same id is taken for."""

    host: str
    pid: int
    start: str

    @classmethod
    def own(cls) -> Process:
        """This one."""
        return cls(socket.gethostname(), os.getpid(), process_start(os.getpid()))

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, one of this machine."""
        return self.host == socket.gethostname()

    @property
    def lives(self) -> bool:
        """Whether it is a live process of this machine."""
        return self.is_here and bool(self.start) and process_start(self.pid) == self.start


T = TypeVar("T")
_DAMAGED = "it is damaged: move it away to begin anew, schedules are then to be added again"


class Store:
    """Everything that schedules and watches remember."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises LauncherError if it cannot be opened or is of a later version."""
        self.path = path
        self._damaged_schedules: list[str] = []
        self.damaged_fires: list[str] = []
        """Rows of the history that could not be read so far and were left out, a line each."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, timeout=BUSY_PATIENCE, isolation_level=None)
            self._db.execute("PRAGMA synchronous = FULL")
            self._migrate()
        except sqlite3.DatabaseError as error:
            hint = "is the disk full or read-only?" if isinstance(error, sqlite3.OperationalError) else _DAMAGED
            raise LauncherError(f"{path}: cannot be used: {error}; {hint}") from None
        except OSError as error:
            raise LauncherError(f"{path}: cannot be used: {error.strerror}; is the disk full or read-only?") from None

    @classmethod
    def default(cls) -> Store:
        """The one in the state folder."""
        return cls(state_folder() / "schedules.db")

    @property
    def damaged(self) -> list[str]:
        """All rows that could not be read so far and were left out, a line each."""
        return [*self._damaged_schedules, *self.damaged_fires]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _migrate(self) -> None:
        if schema.version(self._db) > VERSION:
            raise LauncherError(f"{self.path}: written by a later nv-eval; update nv-eval")
        if schema.version(self._db) == VERSION:
            return
        with schema.writing(self._db):
            if schema.version(self._db) == 0:  # another process may have been faster
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
        self.path.chmod(0o600)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One decision that no other process interrupts. Raises LauncherError if it cannot be kept."""
        try:
            with schema.writing(self._db):
                yield
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot be written: {error}") from None

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot be used: {error}; move it away to begin anew") from None

    # --- schedules --------------------------------------------------------------------------------------------------

    def add(self, definition: Definition, now: float, *, replace: bool = False) -> None:
        """Keep a schedule, whose times count from now. Raises ConfigError if there is one of this name."""
        with self.writing():
            if self._names(definition.name) and not replace:
                raise ConfigError(f"schedule {definition.name}: there is one already; nv-eval schedule rm it first")
            row = (definition.name, now, now, 0, msgspec.json.encode(definition))
            self._query("INSERT OR REPLACE INTO schedules VALUES (?,?,?,?,?)", row)

    def redefine(self, definition: Definition) -> None:
        """Change a schedule and keep where it stands."""
        encoded = msgspec.json.encode(definition)
        self._query("UPDATE schedules SET definition = ? WHERE name = ?", (encoded, definition.name))

    def remove(self, name: str) -> None:
        """Forget a schedule. What it ran stays in the history, and in the budgets of others."""
        self._query("DELETE FROM schedules WHERE name = ?", (name,))

    def schedules(self) -> list[Schedule]:
        """All schedules by name."""
        rows = self._query("SELECT definition, created, handled, paused, name FROM schedules ORDER BY name")
        return self._readable(
            rows, lambda row: _schedule(row[:4]), lambda row: _of_schedule(row[4]), self._damaged_schedules
        )

    def find(self, name: str) -> Schedule:
        """A schedule by its name. Raises NotFound, and LauncherError for a damaged one."""
        rows = self._query("SELECT definition, created, handled, paused FROM schedules WHERE name = ?", (name,))
        if not rows:
            hint = nearest(name, self._names()) or "; see: nv-eval schedule ls"
            raise NotFound(f"schedule {name}: there is none of this name{hint}")
        try:
            return _schedule(rows[0])
        except _UNREADABLE as error:
            raise LauncherError(self._said(_of_schedule(name), error)) from None

    def has(self, name: str) -> bool:
        """Whether there is a schedule of this name, also a damaged one."""
        return name in self._names()

    def _readable(
        self, rows: Sequence[Any], decode: Callable[[Any], T], called: Callable[[Any], str], damaged: list[str]
    ) -> list[T]:
        """Rows as what they are; one that is damaged is told in `damaged` and hides no other."""
        found: list[T] = []
        for row in rows:
            try:
                found.append(decode(row))
            except _UNREADABLE as error:
                line = self._said(called(row), error)
                damaged += [] if line in damaged else [line]
        return found

    def _said(self, what: str, error: Exception) -> str:
        reason = " ".join(plain(str(error)).split()) or type(error).__name__
        return f"{self.path}: {what} ({reason[:_LONGEST_REASON]})"

    def _names(self, name: str | None = None) -> list[str]:
        return [row[0] for row in self._query("SELECT name FROM schedules WHERE ? IN (name, '')", (name or "",))]

    def handle(self, name: str, until: float) -> None:
        """All times up to this one are decided."""
        self._query("UPDATE schedules SET handled = max(handled, ?) WHERE name = ?", (until, name))

    def rewind(self, name: str, until: float) -> None:
        """Only times up to this one are decided, whatever was decided under a clock that was ahead."""
        self._query("UPDATE schedules SET handled = ? WHERE name = ?", (until, name))

    def pause(self, name: str, *, paused: bool) -> None:
        """Let its times pass from now on, or not any more."""
        self._query("UPDATE schedules SET paused = ? WHERE name = ?", (int(paused), name))

    # --- history ----------------------------------------------------------------------------------------------------

    def record(
        self,
        schedule: str,
        outcome: Outcome | None,
        *,
        due: float | None,
        first_due: float | None = None,
        count: int = 1,
        started: float | None = None,
        detail: str = "",
    ) -> Fire:
        """A new line of the history; with no outcome, this process runs it."""
        own = Process.own()
        row = (schedule, due, first_due, count, started, outcome, detail, own.host, own.pid, own.start)
        self._query(
            "INSERT INTO fires (schedule, due, first_due, count, started, outcome, detail, host, pid, pid_start, "
            "invocation, baseline) VALUES (?,?,?,?,?,?,?,?,?,?,'','')",
            row,
        )
        return self.fire(self._query("SELECT last_insert_rowid()")[0][0])

    def update(self, fire: Fire, **changes: Any) -> Fire:
        """Change fields of a line; returns it as it is then."""
        names = ", ".join(f"{name} = ?" for name in changes)
        self._query(f"UPDATE fires SET {names} WHERE id = ?", (*changes.values(), fire.id))  # noqa: S608
        return self.fire(fire.id)

    def fire(self, id_: int) -> Fire:
        """One line of the history."""
        return _fire(self._query(f"SELECT {_FIRE} FROM fires WHERE id = ?", (id_,))[0])  # noqa: S608

    def history(self, schedule: str | None = None) -> list[Fire]:
        """What became of the times of a schedule, or of all, oldest first."""
        statement = f"SELECT {_FIRE} FROM fires WHERE ? IN (schedule, '') ORDER BY id"  # noqa: S608
        return self._fires(self._query(statement, (schedule or "",)))

    def _fires(self, rows: Sequence[tuple[Any, ...]]) -> list[Fire]:
        return self._readable(rows, _fire, _of_fire, self.damaged_fires)

    def unsettled(self) -> list[tuple[Fire, Process]]:
        """What runs, or was killed and may have been resumed, with the process that ran it."""
        rows = self._query(
            f"SELECT host, pid, pid_start, {_FIRE} FROM fires WHERE outcome IS NULL OR outcome = ? ORDER BY id",  # noqa: S608
            (Outcome.KILLED,),
        )
        return self._readable(
            rows,
            lambda row: (_fire(row[3:]), Process(*row[:3])),
            lambda row: _of_fire(row[3:]),
            self.damaged_fires,
        )

    def last_good(self, schedule: Schedule) -> Fire | None:
        """The last run that the gate let pass, or the first that there was."""
        rows = self._query(
            f"SELECT {_FIRE} FROM fires WHERE schedule = ? AND verdict IN (?,?) AND started >= ? "  # noqa: S608
            "ORDER BY id DESC LIMIT 1",
            (schedule.name, *GOOD, schedule.created),
        )
        return next(iter(self._fires(rows)), None)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Only one process sends messages at a time, so that nobody is told twice; it ends with the process."""
        with self.path.with_suffix(".telling").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def untold(self, schedule: str) -> list[Fire]:
        """What has ended and nobody was told of."""
        statement = f"SELECT {_FIRE} FROM fires WHERE schedule = ? AND outcome NOT NULL AND NOT told ORDER BY id"  # noqa: S608
        return self._fires(self._query(statement, (schedule,)))

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def seen(self, watch: str) -> list[Seen]:
        """Checkpoints that a watch has begun with, oldest first.

        Raises LauncherError if one is damaged: left out, it would be evaluated again.
        """
        rows = self._query(
            "SELECT identity, path, name, step, ordering, invocation, outcome, exit_code, started, detail "
            "FROM checkpoints WHERE watch = ? ORDER BY rowid",
            (watch,),
        )
        try:
            return [_seen(row) for row in rows]
        except _UNREADABLE as error:
            what = f"a checkpoint of watch {watch} is damaged; move the file away, or take the row out"
            raise LauncherError(self._said(what, error)) from None

    def begin(self, watch: str, checkpoint: Checkpoint, invocation: str, now: float) -> None:
        """A checkpoint is about to be evaluated by an invocation."""
        facts = asdict(checkpoint)
        row = tuple(facts[name] for name in ("identity", "path", "name", "step", "order"))
        self._query(
            "INSERT OR REPLACE INTO checkpoints VALUES (?,?,?,?,?,?,?,?,NULL,NULL,'')", (watch, *row, now, invocation)
        )

    def conclude(self, watch: str, identity: str, outcome: Outcome, exit_code: int, detail: str = "") -> None:
        """How the evaluation of a checkpoint ended."""
        self._query(
            "UPDATE checkpoints SET outcome = ?, exit_code = ?, detail = ? WHERE watch = ? AND identity = ?",
            (outcome, exit_code, detail, watch, identity),
        )


def _schedule(row: tuple[Any, ...]) -> Schedule:
    definition, created, handled, paused = row
    decoded = decode(definition, Definition)
    return Schedule(definition=decoded, created=float(created), handled=float(handled), paused=bool(paused))


def _fire(row: tuple[Any, ...]) -> Fire:
    facts = dict(zip(_FIRE.split(", "), row, strict=True))
    return convert(facts, Fire)


def _seen(row: tuple[Any, ...]) -> Seen:
    identity, path, name, step, order, invocation, outcome, exit_code, started, detail = row
    facts = {
        "checkpoint": {"identity": identity, "path": path, "name": name, "step": step, "order": order},
        "invocation": invocation,
        "outcome": outcome,
        "exit_code": exit_code,
        "started": started,
        "detail": detail,
    }
    return convert(facts, Seen)


def _of_schedule(name: object) -> str:
    return f"schedule {plain(str(name))} is damaged; remove it and add it anew: nv-eval schedule rm NAME"


def _of_fire(row: tuple[Any, ...]) -> str:
    return f"line {plain(str(row[0]))} of the history, of schedule {plain(str(row[1]))}, is damaged and left out"
