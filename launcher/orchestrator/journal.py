"""The journal: append-only facts of every invocation, in SQLite, on disk before the world is changed.

Standard library only, so that `nv-eval status` starts fast. One writer per invocation, the holder of its lease; any
number of readers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from time import sleep

from launcher.errors import LauncherError, LeaseHeld, LeaseLost, NotFound
from launcher.orchestrator import lease as leases
from launcher.orchestrator import schema, signs
from launcher.orchestrator.lease import Lease

TYPE_CHECKING = False  # as typing has it, which takes a third of a bare Python's time to load
if TYPE_CHECKING:
    from typing import Any

HEARTBEAT = 2.0
"""Seconds between two heartbeats of a live run."""


class Fact(StrEnum):
    """Kinds of facts. An `intend_*` fact is written before the request leaves."""

    RUN_STARTED = "run_started"
    """Also when it is resumed."""
    RUN_ENDED = "run_ended"
    INTEND_CREATE_ENDPOINT = "intend_create_endpoint"
    ENDPOINT_CREATED = "endpoint_created"
    ENDPOINT_KEPT = "endpoint_kept"
    """The invocation evaluates nothing: it keeps one endpoint until a time."""
    ENDPOINT_UP = "endpoint_up"
    """Such an endpoint answers."""
    INTEND_SCALE_ENDPOINT = "intend_scale_endpoint"
    INTEND_SUBMIT_JOB = "intend_submit_job"
    JOB_SUBMITTED = "job_submitted"
    TASK_READY = "task_ready"
    TASK_EVALUATING = "task_evaluating"
    TASK_ENDED = "task_ended"
    TASK_COLLECTED = "task_collected"
    INTEND_CANCEL_JOB = "intend_cancel_job"
    INTEND_DELETE_ENDPOINT = "intend_delete_endpoint"
    INTEND_REMOVE_STRAY = "intend_remove_stray"
    """It carries the invocation's mark and belongs to none of its tasks."""
    TASK_GONE = "task_gone"
    TASK_RETRY = "task_retry"
    """A further attempt of a task begins; what the one before made is gone."""
    BUDGET_WARNING = "budget_warning"
    LEFTOVER = "leftover"
    CLEANED = "cleaned"
    """Somebody removed all of the invocation, and saw that it was gone."""
    STOP_ASKED = "stop_asked"
    HANDED_OVER = "handed_over"
    """Its supervisor is a Job of the cluster that it runs in."""
    COME_HOME = "come_home"
    """What that one has brought is on this machine."""


_KINDS = frozenset(Fact)


class RunState(StrEnum):
    """State of an invocation as the journal and the launcher's process show it."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    """The launcher is gone and did not say how the run ended."""
    UNKNOWN = "unknown"
    """The launcher ran on another machine and has shown no sign of life for a while."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One fact."""

    time: float
    kind: Fact
    task: str | None
    name: str
    data: dict[str, Any] = field(default_factory=dict)


def entry(kind: Fact, task: str | None, name: str, data: dict[str, Any]) -> Entry:
    """A fact of this moment."""
    return Entry(time=time.time(), kind=kind, task=task, name=name, data=data)


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


BUSY_PATIENCE, BUSY_PAUSE = 10.0, 0.01
"""Seconds that another process may keep the file, and between two tries."""
BUSY_TRIES = round(BUSY_PATIENCE / BUSY_PAUSE)


def state_folder() -> Path:
    """Where the launcher keeps its state: NV_EVAL_HOME, else the XDG state folder."""
    if os.environ.get("NV_EVAL_HOME"):
        return Path(os.environ["NV_EVAL_HOME"])
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "nv-eval"


class Journal:
    """Facts of all invocations of this user on this machine."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Open the journal at `path`. Raises LauncherError if it cannot be opened or is of a later version."""
        self.path = path
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._held: dict[str, str] = {}
            self._db = sqlite3.connect(path, timeout=BUSY_PATIENCE, isolation_level=None, check_same_thread=False)
            self._prepare()
            self._file = _identity(path)
        except (sqlite3.Error, OSError) as error:
            raise LauncherError(f"{path}: cannot use the journal: {error}; is the disk full or read-only?") from None

    @classmethod
    def default(cls) -> Journal:
        """The journal in the state folder."""
        return cls(state_folder() / "journal.db")

    @classmethod
    def reading(cls, path: Path) -> Journal:
        """The journal at `path` for those who only look: it is neither made nor brought to this version.

        Raises NotFound if there is none, LauncherError if it cannot be read or is of another version.
        """
        if not path.is_file():
            raise NotFound(f"{path}: no journal yet; start a run with: nv-eval run")
        journal = cls.__new__(cls)
        journal.path, journal._held = path, {}
        try:
            journal._file = _identity(path)
            journal._db = _open_for_reading(path)
            found = schema.version(journal._db)
        except sqlite3.Error as error:
            raise LauncherError(f"{path}: cannot read the journal: {error}") from None
        if found != schema.VERSION:
            journal.close()
            age, remedy = ("a later", "update nv-eval") if found > schema.VERSION else ("an earlier", "run: nv-eval ls")
            raise LauncherError(f"{path}: written by {age} nv-eval (schema {found}); {remedy}")
        return journal

    def _prepare(self) -> None:
        self._db.execute(f"PRAGMA busy_timeout = {BUSY_PATIENCE * 1000:.0f}")
        self._use_wal()
        self._db.execute("PRAGMA synchronous = FULL")
        found = schema.version(self._db)
        if found > schema.VERSION:
            raise LauncherError(f"{self.path}: written by a later nv-eval (schema {found}); update nv-eval")
        if found < schema.VERSION:
            schema.migrate(self._db)
            self.path.chmod(0o600)

    def _use_wal(self) -> None:
        """SQLite does not wait here for another process that is making the same file."""
        for left in reversed(range(BUSY_TRIES)):
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or not left:
                    raise
                sleep(BUSY_PAUSE)
            else:
                return

    def begin(
        self,
        id_: str,
        *,
        execution: str,
        deployment: str,
        folder: str,
        tasks: list[str],
        plan: bytes = b"",
        hold: bool = True,
    ) -> None:
        """Record a new invocation with its plan, and take its lease unless another process will (`hold`).

        Raises LauncherError if it cannot, or if there is one of this id.
        """
        row = (id_, time.time(), execution, deployment, folder, json.dumps(tasks), leases.host_name())
        try:
            with schema.writing(self._db):
                self._db.execute(
                    "INSERT INTO invocations VALUES (?,?,?,?,?,?,?,?,?)",
                    (*row, os.getpid(), leases.process_start(os.getpid())),
                )
                self._db.execute("INSERT INTO plans VALUES (?,?)", (id_, zlib.compress(plan)))
                taken = leases.write(self._db, id_) if hold else None
        except sqlite3.IntegrityError:
            raise LauncherError(f"invocation {id_} has run already; make a new plan: plan(config)") from None
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot write the journal: {error}; nothing was created") from None
        if taken is not None:
            self._hold(taken)

    def replan(self, invocation: str, *, folder: str, plan: bytes) -> None:
        """Keep the plan that an invocation is resumed with. Raises LauncherError if it cannot."""
        try:
            with schema.writing(self._db):
                self._db.execute("UPDATE invocations SET folder = ? WHERE id = ?", (folder, invocation))
                self._db.execute("INSERT OR REPLACE INTO plans VALUES (?,?)", (invocation, zlib.compress(plan)))
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot write the journal: {error}") from None

    # --- the lease --------------------------------------------------------------------------------------------------

    def take_lease(self, invocation: str) -> None:
        """Become the one supervisor of an invocation. Raises LeaseHeld while another lives."""
        try:
            with schema.writing(self._db):
                held = leases.read(self._db, invocation, self.path.parent)
                if held is not None and not held.is_stale:
                    raise LeaseHeld(_who(held))
                taken = leases.write(self._db, invocation)
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot write the journal: {error}") from None
        self._hold(taken)
        if held is not None:
            _end_hung(held)
            signs.end(self.path.parent, invocation, held.owner)

    def _hold(self, lease: Lease) -> None:
        self._held[lease.invocation] = lease.owner
        self._show_life(lease.invocation)

    def _show_life(self, invocation: str) -> None:
        """Outside the database, which cannot be written on a full disk."""
        if invocation in self._held:
            signs.show(self.path.parent, invocation, self._held[invocation], time.time())

    def keep_lease(self, invocation: str) -> None:
        """Show that the lease's holder lives, if that is this process. That it cannot be written is not fatal."""
        self._show_life(invocation)
        update = "UPDATE leases SET beat = ? WHERE invocation = ? AND owner = ?"
        with contextlib.suppress(sqlite3.Error):
            self._db.execute(update, (time.time(), invocation, self._held.get(invocation)))

    def give_up_lease(self, invocation: str) -> None:
        """Let another process become the supervisor at once. A failure is not fatal: a lease becomes stale."""
        owner = self._held.pop(invocation, None)
        if owner is None:
            return
        signs.end(self.path.parent, invocation, owner)
        try:
            self._db.execute("DELETE FROM leases WHERE invocation = ? AND owner = ?", (invocation, owner))
        except sqlite3.Error:
            return

    def lease(self, invocation: str) -> Lease | None:
        """Who runs an invocation, or ran it last and did not say goodbye."""
        try:
            return leases.read(self._db, invocation, self.path.parent)
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot read the journal: {error}") from None

    # --- writing ----------------------------------------------------------------------------------------------------

    def record(self, invocation: str, kind: Fact, task: str | None = None, name: str = "", **data: Any) -> None:
        """Append one fact; it is on disk when this returns.

        Raises LauncherError if it is not, LeaseLost if another process has become the supervisor meanwhile.
        """
        self.record_all(invocation, [entry(kind, task, name, data)])

    def record_all(self, invocation: str, entries: Sequence[Entry]) -> None:
        """Append facts; they are on disk when this returns: all of them, or none. Raises as `record`."""
        if _identity(self.path) != self._file:  # SQLite would go on writing to a file that nobody will find again
            raise LauncherError(f"{self.path}: cannot write the journal: the file was removed or replaced")
        try:
            with schema.writing(self._db) if len(entries) > 1 else contextlib.nullcontext():
                for fact in entries:
                    self._append(invocation, fact)
        except sqlite3.Error as error:
            self.stand_back_if_lost(invocation)
            raise LauncherError(f"{self.path}: cannot write the journal: {error}") from None

    def _append(self, invocation: str, fact: Entry) -> None:
        row = (fact.time, invocation, fact.task, fact.kind.value, fact.name, json.dumps(fact.data))
        owner = self._held.get(invocation)
        condition = "? IS NULL OR EXISTS (SELECT 1 FROM leases WHERE invocation = ? AND owner = ?)"
        statement = f"INSERT INTO facts (time,invocation,task,kind,name,data) SELECT ?,?,?,?,?,? WHERE {condition}"
        if self._db.execute(statement, (*row, owner, invocation, owner)).rowcount == 0:
            raise LeaseLost(f"{invocation}: another nv-eval has taken this invocation over; this one stands back")

    def ask_to_stop(self, lease: Lease) -> bool:
        """Ask the holder of a lease to stop, if nobody has yet; false if it is not alive here.

        Two who ask at once are kept apart: a second signal would tell it not to wait for its teardown. A journal that
        cannot be written keeps nobody from asking.
        """
        lives: bool | None = None
        with contextlib.suppress(sqlite3.Error, LauncherError), schema.writing(self._db):
            last = self.last(lease.invocation, Fact.RUN_STARTED, Fact.STOP_ASKED)
            if last is not None and last.kind is Fact.STOP_ASKED:
                return lease.process_lives
            lives = lease.signal(signal.SIGTERM)
            if lives:
                self.record(lease.invocation, Fact.STOP_ASKED)
        return lease.signal(signal.SIGTERM) if lives is None else lives

    def beat(self, invocation: str, live: list[dict[str, Any]]) -> None:
        """The heartbeat of a live run, with its live view. That it cannot be written is not fatal: facts matter.

        Raises LeaseLost if another process has become the supervisor meanwhile.
        """
        now, owner = time.time(), self._held.get(invocation)
        self._show_life(invocation)
        try:
            with schema.writing(self._db):
                update = "UPDATE leases SET beat = ? WHERE invocation = ? AND owner = ?"
                holds = owner is None or self._db.execute(update, (now, invocation, owner)).rowcount == 1
                if holds:
                    self._db.execute("INSERT OR REPLACE INTO live VALUES (?,?,?)", (invocation, now, json.dumps(live)))
        except sqlite3.Error:
            self.stand_back_if_lost(invocation)
            return
        if not holds:
            raise LeaseLost(f"{invocation}: another nv-eval has taken this invocation over; this one stands back")

    def stand_back_if_lost(self, invocation: str) -> None:
        """Raises LeaseLost if another process has become the supervisor.

        What cannot be written does not prove that the lease is still ours; a full disk can be read.
        """
        owner = self._held.get(invocation)
        with contextlib.suppress(sqlite3.Error):
            held = leases.read(self._db, invocation, self.path.parent)
            if owner is not None and (held is None or held.owner != owner):
                raise LeaseLost(f"{invocation}: another nv-eval has taken this invocation over; this one stands back")

    def change(self, *statements: tuple[str, Sequence[tuple[Any, ...]]]) -> None:
        """Statements, each with its rows, all or none of them. Raises LauncherError if they cannot be written."""
        try:
            with schema.writing(self._db):
                for statement, rows in statements:
                    self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot write the journal: {error}; nothing was created") from None

    # --- reading ----------------------------------------------------------------------------------------------------

    def query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of a statement that reads. Raises LauncherError if the journal cannot be read."""
        return self._query(statement, values)

    def _query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise LauncherError(f"{self.path}: cannot read the journal: {error}; move it away to begin anew") from None

    def live(self, invocation: str) -> tuple[float, list[dict[str, Any]]] | None:
        """Time and content of the last heartbeat."""
        rows = self._query("SELECT time, data FROM live WHERE invocation = ?", (invocation,))
        return (rows[0][0], json.loads(rows[0][1])) if rows else None

    def costs(self) -> dict[str, float]:
        """Cost of each invocation in USD by its last heartbeat, where prices are known."""
        found: dict[str, float] = {}
        for invocation, data in self._query("SELECT invocation, data FROM live WHERE data LIKE '%\"usd\": %'"):
            known = [row["usd"] for row in json.loads(data) if row.get("usd") is not None]
            if known:
                found[invocation] = round(sum(known), 4)
        return found

    def facts(self, invocation: str) -> list[Entry]:
        """All facts of one invocation, oldest first, but for kinds that only a later version knows."""
        rows = self._query(
            "SELECT time, kind, task, name, data FROM facts WHERE invocation = ? ORDER BY seq", (invocation,)
        )
        return [_entry(row) for row in rows if row[1] in _KINDS]

    def invocations(self, limit: int | None = None) -> list[Invocation]:
        """Invocations, newest first."""
        rows = self._query("SELECT * FROM invocations ORDER BY created DESC LIMIT ?", (limit or -1,))
        return [_invocation(row) for row in rows]

    def unended(self) -> list[Invocation]:
        """Invocations that run, or whose launcher did not say how they ended; newest first. One look for all."""
        ends = (
            "SELECT invocation, kind, MAX(seq) FROM facts INDEXED BY ends_of "
            "WHERE kind IN ('run_started', 'run_ended') GROUP BY invocation"
        )
        rows = self._query(
            f"SELECT invocations.* FROM invocations LEFT JOIN ({ends}) ON invocation = id "  # noqa: S608
            "WHERE kind IS NOT 'run_ended' ORDER BY created DESC"
        )
        return [_invocation(row) for row in rows]

    def find(self, prefix: str) -> Invocation:
        """The one invocation whose id begins with `prefix`. Raises NotFound if there is none, or several."""
        refuse_impossible(prefix)
        escaped = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        rows = self._query(
            "SELECT * FROM invocations WHERE id LIKE ? ESCAPE '\\' ORDER BY created DESC", (escaped + "%",)
        )
        if not rows:
            raise NotFound(f"{prefix}: no such invocation; see: nv-eval ls runs")
        if len(rows) > 1:
            raise NotFound(f"{prefix}: fits several invocations: {', '.join(row[0] for row in rows[:5])}")
        return _invocation(rows[0])

    def plan(self, invocation: str) -> bytes:
        """The plan of an invocation as JSON. Raises NotFound if the journal has none, or a damaged one."""
        rows = self._query("SELECT plan FROM plans WHERE invocation = ?", (invocation,))
        try:
            found = zlib.decompress(rows[0][0]) if rows else b""
        except (zlib.error, TypeError):
            raise NotFound(f"{invocation}: the journal's plan of it is damaged") from None
        if not found:
            raise NotFound(f"{invocation}: the journal has no plan of it")
        return found

    def last(self, invocation: str, *kinds: Fact) -> Entry | None:
        """The newest fact of these kinds."""
        marks = ",".join("?" * len(kinds))
        rows = self._query(
            f"SELECT time, kind, task, name, data FROM facts WHERE invocation = ? AND kind IN ({marks}) "  # noqa: S608
            "ORDER BY seq DESC LIMIT 1",
            (invocation, *(kind.value for kind in kinds)),
        )
        return _entry(rows[0]) if rows else None

    def is_handed_over(self, invocation: str) -> bool:
        """Whether its supervisor is in a cluster, and what it brings has not come home."""
        last = self.last(invocation, Fact.HANDED_OVER, Fact.COME_HOME)
        return last is not None and last.kind is Fact.HANDED_OVER

    def place(self, invocation: str) -> str:
        """Where an invocation last ran, as its platform calls the place; empty for a machine, or if nobody knows."""
        last = self.last(invocation, Fact.RUN_STARTED)
        return str(last.data.get("place") or "") if last is not None else ""

    def may_outlive_launcher(self, invocation: Invocation) -> bool:
        """Whether something of it is in another place than this machine, where things end with their launcher."""
        return invocation.execution != "local" or self.place(invocation.id) != ""

    def ended(self, invocation: str) -> Entry | None:
        """The fact that ended an invocation, if it ended in order and was not resumed since."""
        last = self.last(invocation, Fact.RUN_STARTED, Fact.RUN_ENDED)
        return last if last is not None and last.kind is Fact.RUN_ENDED else None

    def state(self, invocation: Invocation) -> RunState:
        """State of an invocation; its launcher's process is looked at, never only its pid."""
        if self.ended(invocation.id) is not None:
            return RunState.FINISHED
        lease = self.lease(invocation.id)
        if lease is None or lease.is_here:
            return RunState.RUNNING if lease is not None and lease.process_lives else RunState.INTERRUPTED
        return RunState.UNKNOWN if lease.is_stale else RunState.RUNNING

    def hangs(self, invocation: Invocation) -> bool:
        """Whether its launcher lives on this machine and has shown no sign of life for the time of its lease."""
        lease = self.lease(invocation.id)
        return lease is not None and lease.hangs and self.ended(invocation.id) is None

    def data_version(self) -> int:
        """A number that changes when another connection has changed the journal."""
        return int(self._query("PRAGMA data_version")[0][0])

    def is_current(self) -> bool:
        """Whether the file that was opened is still the one that lies at its path."""
        return _identity(self.path) == self._file

    def touched(self, seq: int, beat: float) -> tuple[set[str], int, float]:
        """Invocations with facts after `seq` or a heartbeat after `beat`, and the newest of each; begin with 0, 0.0."""
        facts = self._query("SELECT invocation, MAX(seq) FROM facts WHERE seq > ? GROUP BY invocation", (seq,))
        beats = self._query("SELECT invocation, time FROM live WHERE time > ?", (beat,))
        newest = max((row[1] for row in facts), default=seq), max((row[1] for row in beats), default=beat)
        return {row[0] for row in (*facts, *beats)}, *newest

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Where SQLite may not even make its index of the log, the file stands still."""
    db = _read_only(path, "mode=ro")
    try:
        schema.version(db)
    except sqlite3.OperationalError as error:
        db.close()
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        return _read_only(path, "mode=ro&immutable=1")
    return db


def _read_only(path: Path, how: str) -> sqlite3.Connection:
    from urllib.parse import quote  # for those who only look

    address = f"file:{quote(str(path))}?{how}"
    db = sqlite3.connect(address, uri=True, timeout=BUSY_PATIENCE, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA query_only = ON")
    return db


def refuse_impossible(prefix: str) -> None:
    """Raises NotFound for what begins no id: nothing at all (an unset shell variable), or bytes that are no text."""
    if not prefix:
        raise NotFound("an id is empty; see: nv-eval ls runs")
    try:
        prefix.encode()
    except UnicodeEncodeError:
        raise NotFound(f"{prefix!a}: no such invocation; see: nv-eval ls runs") from None


def present(facts: Sequence[Entry]) -> list[Entry]:
    """Of the facts of one task those of its present attempt, oldest first; the TASK_RETRY that began it is the first.

    A task that ended in an earlier life before anything of it was asked for begins with its first intent.
    """
    began = max((index for index, fact in enumerate(facts) if fact.kind is Fact.TASK_RETRY), default=0)
    intents = (Fact.INTEND_CREATE_ENDPOINT, Fact.INTEND_SUBMIT_JOB)
    asked = (index for index, fact in enumerate(facts) if index >= began and fact.kind in intents)
    return list(facts[next(asked, began) :])


def _entry(row: tuple[Any, ...]) -> Entry:
    moment, kind, task, name, data = row
    return Entry(time=moment, kind=Fact(kind), task=task, name=name, data=json.loads(data))


def _who(lease: Lease) -> str:
    where = f"process {lease.pid} on this machine" if lease.is_here else f"a process on {lease.host}"
    return f"{lease.invocation}: is being run by {where}; see: nv-eval attach {lease.invocation}"


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another that takes its place; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _end_hung(lease: Lease) -> None:
    """A supervisor on this machine that shows no sign of life must not wake up beside the one that takes over."""
    if lease.process_lives and lease.pid != os.getpid():
        lease.signal(signal.SIGKILL)


def _invocation(row: tuple[Any, ...]) -> Invocation:
    id_, created, execution, deployment, folder, tasks, host, *_ = row
    return Invocation(
        id=id_,
        created=created,
        execution=execution,
        deployment=deployment,
        folder=folder,
        tasks=tuple(json.loads(tasks)),
        host=host,
    )
