"""The journal: append-only facts of every invocation, in SQLite, on disk before the world is changed.

Standard library only, so that `nv-eval status` starts fast. One writer per invocation, any number of readers.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError, NotFound

VERSION = 1
HEARTBEAT = 2.0
"""Seconds between two heartbeats of a live run."""

_TABLES = """
CREATE TABLE invocations (
  id TEXT PRIMARY KEY, created REAL NOT NULL, execution TEXT NOT NULL, deployment TEXT NOT NULL,
  folder TEXT NOT NULL, tasks TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, pid_start TEXT NOT NULL
);
CREATE TABLE facts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, invocation TEXT NOT NULL, task TEXT,
  kind TEXT NOT NULL, name TEXT NOT NULL DEFAULT '', data TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX facts_of ON facts (invocation, seq);
CREATE TABLE live (invocation TEXT PRIMARY KEY, time REAL NOT NULL, data TEXT NOT NULL);
"""


class Fact(StrEnum):
    """Kinds of facts. An `intend_*` fact is written before the request leaves."""

    RUN_STARTED = "run_started"
    RUN_ENDED = "run_ended"
    INTEND_CREATE_ENDPOINT = "intend_create_endpoint"
    ENDPOINT_CREATED = "endpoint_created"
    INTEND_SUBMIT_JOB = "intend_submit_job"
    JOB_SUBMITTED = "job_submitted"
    TASK_READY = "task_ready"
    TASK_EVALUATING = "task_evaluating"
    TASK_ENDED = "task_ended"
    TASK_COLLECTED = "task_collected"
    INTEND_CANCEL_JOB = "intend_cancel_job"
    INTEND_DELETE_ENDPOINT = "intend_delete_endpoint"
    TASK_GONE = "task_gone"
    LEFTOVER = "leftover"
    STOP_ASKED = "stop_asked"


class RunState(StrEnum):
    """State of an invocation as the journal and the launcher's process show it."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """The launcher is gone and did not say how the run ended."""
    UNKNOWN = "unknown"
    """The launcher runs on another machine."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One fact."""

    time: float
    kind: Fact
    task: str | None
    name: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """One invocation as it was begun."""

    id: str
    created: float
    execution: str
    deployment: str
    folder: str
    tasks: tuple[str, ...]
    host: str
    pid: int
    pid_start: str


def state_folder() -> Path:
    """Where the launcher keeps its state: NV_EVAL_HOME, else the XDG state folder."""
    if os.environ.get("NV_EVAL_HOME"):
        return Path(os.environ["NV_EVAL_HOME"])
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "nv-eval"


def process_start(pid: int) -> str:
    """A mark of one process that a later one with the same pid does not share; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state == "Z" else rest[18]


class Journal:
    """Facts of all invocations of this user on this machine."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Open the journal at `path`. Raises LauncherError if it cannot be opened or is of a later version."""
        self.path = path
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise LauncherError(f"{path}: cannot use the journal: {error}; is the disk full or read-only?") from None

    @classmethod
    def default(cls) -> Journal:
        """The journal in the state folder."""
        return cls(state_folder() / "journal.db")

    def _prepare(self) -> None:
        self._db.execute("PRAGMA busy_timeout = 10000")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise LauncherError(f"{self.path}: written by a later nv-eval (schema {version}); update nv-eval")
        if version == 0:
            self._create_tables()
            self.path.chmod(0o600)

    def _create_tables(self) -> None:
        with self._writing():
            if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def begin(self, id_: str, *, execution: str, deployment: str, folder: str, tasks: list[str]) -> None:
        """Record a new invocation of this process. Raises LauncherError if it cannot, or if there is one of this id."""
        row = (id_, time.time(), execution, deployment, folder, json.dumps(tasks), socket.gethostname())
        try:
            self._db.execute(
                "INSERT INTO invocations VALUES (?,?,?,?,?,?,?,?,?)", (*row, os.getpid(), process_start(os.getpid()))
            )
        except sqlite3.IntegrityError:
            raise LauncherError(f"invocation {id_} has run already; make a new plan: plan(config)") from None
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot write the journal: {error}; nothing was created") from None

    def record(self, invocation: str, kind: Fact, task: str | None = None, name: str = "", **data: Any) -> None:
        """Append one fact; it is on disk when this returns. Raises LauncherError if it is not."""
        row = (time.time(), invocation, task, kind.value, name, json.dumps(data))
        try:
            self._db.execute("INSERT INTO facts (time,invocation,task,kind,name,data) VALUES (?,?,?,?,?,?)", row)
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot write the journal: {error}") from None

    def beat(self, invocation: str, live: list[dict[str, Any]]) -> None:
        """The heartbeat of a live run, with its live view. A failure is not fatal: facts matter, this does not."""
        row = (invocation, time.time(), json.dumps(live))
        try:
            self._db.execute("INSERT OR REPLACE INTO live VALUES (?,?,?)", row)
        except sqlite3.Error:
            return

    def _query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot read the journal: {error}; move it away to begin anew") from None

    def live(self, invocation: str) -> tuple[float, list[dict[str, Any]]] | None:
        """Time and content of the last heartbeat."""
        rows = self._query("SELECT time, data FROM live WHERE invocation = ?", (invocation,))
        return (rows[0][0], json.loads(rows[0][1])) if rows else None

    def facts(self, invocation: str) -> list[Entry]:
        """All facts of one invocation, oldest first."""
        rows = self._query(
            "SELECT time, kind, task, name, data FROM facts WHERE invocation = ? ORDER BY seq", (invocation,)
        )
        return [Entry(time=t, kind=Fact(k), task=task, name=n, data=json.loads(d)) for t, k, task, n, d in rows]

    def invocations(self, limit: int | None = None) -> list[Invocation]:
        """Invocations, newest first."""
        rows = self._query("SELECT * FROM invocations ORDER BY created DESC LIMIT ?", (limit or -1,))
        return [_invocation(row) for row in rows]

    def find(self, prefix: str) -> Invocation:
        """The one invocation whose id begins with `prefix`. Raises NotFound if there is none, or several."""
        escaped = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        rows = self._query(
            "SELECT * FROM invocations WHERE id LIKE ? ESCAPE '\\' ORDER BY created DESC", (escaped + "%",)
        )
        if not rows:
            raise NotFound(f"{prefix}: no such invocation; see: nv-eval ls runs")
        if len(rows) > 1:
            raise NotFound(f"{prefix}: fits several invocations: {', '.join(row[0] for row in rows[:5])}")
        return _invocation(rows[0])

    def ended(self, invocation: str) -> Entry | None:
        """The fact that ended an invocation, if it ended in order."""
        return next((fact for fact in reversed(self.facts(invocation)) if fact.kind is Fact.RUN_ENDED), None)

    def state(self, invocation: Invocation) -> RunState:
        """State of an invocation; its launcher's process is looked at, never only its pid."""
        if self.ended(invocation.id) is not None:
            return RunState.FINISHED
        if invocation.host != socket.gethostname():
            return RunState.UNKNOWN
        alive = invocation.pid_start and process_start(invocation.pid) == invocation.pid_start
        return RunState.RUNNING if alive else RunState.INTERRUPTED

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _invocation(row: tuple[Any, ...]) -> Invocation:
    id_, created, execution, deployment, folder, tasks, host, pid, pid_start = row
    return Invocation(
        id=id_,
        created=created,
        execution=execution,
        deployment=deployment,
        folder=folder,
        tasks=tuple(json.loads(tasks)),
        host=host,
        pid=pid,
        pid_start=pid_start,
    )
