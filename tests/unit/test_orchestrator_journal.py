"""The journal on disks that fail, and what it answers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from launcher.errors import LauncherError, LeaseHeld, LeaseLost, NotFound
from launcher.orchestrator import schema
from launcher.orchestrator.cleanup import places_left_by
from launcher.orchestrator.journal import Fact, Journal, RunState, present
from launcher.orchestrator.lease import STALE, process_start


def begin(journal: Journal, id_: str = "abc12345") -> None:
    journal.begin(id_, execution="local", deployment="smollm", folder="/r", tasks=["a"])


def test_facts_come_back_in_order_with_their_data(tmp_path: Path):
    journal = Journal(tmp_path / "j.db")
    begin(journal)
    journal.record("abc12345", Fact.RUN_STARTED)
    journal.record("abc12345", Fact.TASK_ENDED, "a", reason="completed")
    assert [(fact.kind, fact.task, fact.data) for fact in journal.facts("abc12345")] == [
        (Fact.RUN_STARTED, None, {}),
        (Fact.TASK_ENDED, "a", {"reason": "completed"}),
    ]


def test_only_its_owner_may_read_it(tmp_path: Path):
    journal = Journal(tmp_path / "state" / "j.db")
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_reader_sees_what_was_written(tmp_path: Path):
    writer = Journal(tmp_path / "j.db")
    begin(writer)
    assert Journal(tmp_path / "j.db").find("abc").id == "abc12345"


def test_prefixes_are_unique_and_taken_literally(tmp_path: Path):
    journal = Journal(tmp_path / "j.db")
    begin(journal, "abc11111")
    begin(journal, "abc22222")
    with pytest.raises(NotFound, match="fits several"):
        journal.find("abc")
    with pytest.raises(NotFound, match="no such invocation"):
        journal.find("%")


def test_a_plan_runs_once(tmp_path: Path):
    journal = Journal(tmp_path / "j.db")
    begin(journal)
    with pytest.raises(LauncherError, match="has run already"):
        begin(journal)


def test_a_live_launcher_is_running_and_a_dead_one_interrupted(tmp_path: Path):
    journal = Journal(tmp_path / "j.db")
    begin(journal)
    assert journal.state(journal.find("abc")) is RunState.RUNNING
    with sqlite3.connect(tmp_path / "j.db") as db:
        db.execute("UPDATE leases SET pid_start = '1'")  # as if the pid had been given to another process
    assert journal.state(journal.find("abc")) is RunState.INTERRUPTED
    journal.record("abc12345", Fact.RUN_ENDED, exit_code=0)
    assert journal.state(journal.find("abc")) is RunState.FINISHED


def test_a_process_is_known_by_pid_and_start(tmp_path: Path):
    assert process_start(os.getpid()) and process_start(2**22 + 1) == ""


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to look at", b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_broken_file_is_told_in_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "j.db").write_bytes(content)
    with pytest.raises(LauncherError, match="the journal"):
        Journal(tmp_path / "j.db").invocations()


def test_a_state_folder_that_is_a_file_is_told_in_one_line(tmp_path: Path):
    (tmp_path / "state").write_text("")
    with pytest.raises(LauncherError, match="cannot use the journal"):
        Journal(tmp_path / "state" / "j.db")


def test_a_journal_of_a_later_version_is_left_alone(tmp_path: Path):
    with sqlite3.connect(tmp_path / "j.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LauncherError, match="later nv-eval"):
        Journal(tmp_path / "j.db")


def test_what_did_not_end_is_found_in_one_look_newest_first(tmp_path: Path):
    journal = Journal(tmp_path / "j.db")
    for id_, *facts in (
        ("a0000001", Fact.RUN_STARTED, Fact.RUN_ENDED),
        ("a0000002", Fact.RUN_STARTED, Fact.RUN_ENDED, Fact.RUN_STARTED),
        ("a0000003",),
        ("a0000004", Fact.RUN_STARTED, Fact.TASK_ENDED),
    ):
        begin(journal, id_)
        for fact in facts:
            journal.record(id_, fact)

    assert [one.id for one in journal.unended()] == ["a0000004", "a0000003", "a0000002"]
    assert all(journal.ended(one.id) is None for one in journal.unended())


# --- earlier versions -------------------------------------------------------------------------------------------------

FIRST_VERSION = """
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
INSERT INTO invocations VALUES ('old12345', 1.0, 'local', 'smollm', '/r', '["a"]', 'elsewhere', 7, 'then');
INSERT INTO facts (time, invocation, task, kind) VALUES (2.0, 'old12345', NULL, 'run_started');
INSERT INTO facts (time, invocation, task, kind, name) VALUES (3.0, 'old12345', 'a', 'intend_create_endpoint', 'n');
PRAGMA user_version = 1;
"""
"""What the first version of the launcher made, as it made it."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "j.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA journal_mode = WAL;" + FIRST_VERSION)
    return path


def test_a_journal_of_the_first_version_can_be_read_and_gone_on_with(old: Path):
    journal = Journal(old)
    assert [fact.kind for fact in journal.facts("old12345")] == [Fact.RUN_STARTED, Fact.INTEND_CREATE_ENDPOINT]
    held = journal.lease("old12345")
    assert held is not None and (held.host, held.pid, held.is_stale) == ("elsewhere", 7, True)
    with pytest.raises(NotFound, match="no plan"):
        journal.plan("old12345")
    journal.take_lease("old12345")
    journal.record("old12345", Fact.TASK_ENDED, "a", reason="stopped")
    begin(journal)
    assert [found.id for found in journal.invocations()] == ["abc12345", "old12345"]


_OPEN = """
import pathlib, sys, time
from launcher.orchestrator.journal import Journal
path, go = map(pathlib.Path, sys.argv[1:])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
print(len(Journal(path).facts("old12345")))
"""


def test_processes_that_migrate_at_once_do_it_once(old: Path, tmp_path: Path):
    command = [sys.executable, "-c", _OPEN, str(old), str(tmp_path / "go")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["2\n"] * 3
    assert [process.returncode for process in processes] == [0] * 3
    with contextlib.closing(sqlite3.connect(old)) as db:
        assert db.execute("SELECT count(*) FROM leases").fetchone() == (1,)


def test_a_migration_that_fails_leaves_the_file_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schema, "MIGRATIONS", (schema.MIGRATIONS[0], "CREATE TABLE plans (x); CREATE TABLE plans (x)"))
    with pytest.raises(LauncherError, match="cannot use the journal"):
        Journal(old)
    with contextlib.closing(sqlite3.connect(old)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'plans'").fetchall() == []
    monkeypatch.undo()
    assert len(Journal(old).facts("old12345")) == 2


def test_a_commit_that_the_disk_refuses_does_not_keep_the_next_one_from_being_made(tmp_path: Path):
    """SQLite checks a deferred foreign key at the commit, which then fails with the transaction still open."""
    db = sqlite3.connect(tmp_path / "any.db", isolation_level=None)
    db.executescript(
        "PRAGMA foreign_keys = ON; CREATE TABLE a (id INTEGER PRIMARY KEY);"
        "CREATE TABLE b (a INTEGER REFERENCES a DEFERRABLE INITIALLY DEFERRED);"
    )
    with pytest.raises(sqlite3.IntegrityError), schema.writing(db):
        db.execute("INSERT INTO b VALUES (1)")
    with schema.writing(db):
        db.execute("INSERT INTO a VALUES (1)")
    assert db.execute("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)").fetchone() == (1, 0)
    db.close()


# --- the lease --------------------------------------------------------------------------------------------------------


def lease_is(journal: Journal, **columns: object) -> None:
    """Change what the lease says, as if another process had written it: one that shows no life beside the journal."""
    for sign in journal.path.parent.glob("*.alive"):
        sign.unlink()
    with contextlib.closing(sqlite3.connect(journal.path)) as db, db:
        for name, value in columns.items():
            db.execute(f"UPDATE leases SET {name} = ?", (value,))


def test_there_is_one_supervisor(tmp_path: Path):
    journal = Journal(tmp_path / "j.db")
    begin(journal)
    with pytest.raises(LeaseHeld, match=f"process {os.getpid()} on this machine"):
        Journal(tmp_path / "j.db").take_lease("abc12345")
    lease_is(journal, host="elsewhere")
    with pytest.raises(LeaseHeld, match="a process on elsewhere"):
        Journal(tmp_path / "j.db").take_lease("abc12345")


def test_a_lease_that_was_given_up_can_be_taken_at_once(tmp_path: Path):
    journal, other = Journal(tmp_path / "j.db"), Journal(tmp_path / "j.db")
    begin(journal)
    journal.give_up_lease("abc12345")
    other.take_lease("abc12345")
    other.record("abc12345", Fact.RUN_STARTED)


@pytest.mark.parametrize(
    "columns", [{"pid_start": "of another process"}, {"host": "elsewhere", "beat": time.time() - 2 * STALE}]
)
def test_the_lease_of_a_launcher_that_is_gone_is_taken_over_and_fences_it_off(
    tmp_path: Path, columns: dict[str, object]
):
    journal, other = Journal(tmp_path / "j.db"), Journal(tmp_path / "j.db")
    begin(journal)
    lease_is(journal, **columns)
    other.take_lease("abc12345")
    with pytest.raises(LeaseLost):
        journal.record("abc12345", Fact.INTEND_CREATE_ENDPOINT, "a", "n")
    with pytest.raises(LeaseLost):
        journal.beat("abc12345", [])
    journal.give_up_lease("abc12345")  # which is not its own any more
    other.record("abc12345", Fact.RUN_STARTED)
    assert [fact.kind for fact in other.facts("abc12345")] == [Fact.RUN_STARTED]


def test_a_launcher_that_hangs_is_ended_before_another_takes_over(tmp_path: Path):
    hung = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"], stdout=-1)
    assert hung.stdout is not None and hung.stdout.readline()
    journal = Journal(tmp_path / "j.db")
    begin(journal)
    lease_is(journal, pid=hung.pid, pid_start=process_start(hung.pid), beat=time.time() - 2 * STALE)
    Journal(tmp_path / "j.db").take_lease("abc12345")
    assert hung.wait(timeout=10) == -signal.SIGKILL
    hung.stdout.close()


def test_who_lost_the_lease_stands_back_on_a_full_disk_too(tmp_path: Path):
    journal, other = Journal(tmp_path / "j.db"), Journal(tmp_path / "j.db")
    begin(journal)
    fill(journal)
    with pytest.raises(LauncherError, match="full") as caught:
        journal.record("abc12345", Fact.TASK_ENDED, "a", detail="x" * 10**6)
    assert not isinstance(caught.value, LeaseLost)
    lease_is(journal, pid_start="of another process")
    other.take_lease("abc12345")
    with pytest.raises(LeaseLost):
        journal.record("abc12345", Fact.TASK_ENDED, "a", detail="x" * 10**6)


def fill(journal: Journal) -> None:
    """Let the file grow no more: SQLite then answers as on a full disk."""
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")


def test_a_holder_that_cannot_write_shows_that_it_lives_and_is_left_alone(tmp_path: Path):
    journal, other = Journal(tmp_path / "j.db"), Journal(tmp_path / "j.db")
    begin(journal)
    fill(journal)
    with sqlite3.connect(journal.path) as db:
        db.execute("UPDATE leases SET beat = ?", (time.time() - 2 * STALE,))
    journal.beat("abc12345", [{"why": "x" * 10**6}])
    assert journal.live("abc12345") is None, "the heartbeat in the journal could be written"
    with pytest.raises(LeaseHeld):
        other.take_lease("abc12345")
    for sign in tmp_path.glob("*.alive"):
        os.utime(sign, (0, 0))
    other.take_lease("abc12345")


def test_signs_of_life_go_with_the_lease(tmp_path: Path):
    journal, other = Journal(tmp_path / "j.db"), Journal(tmp_path / "j.db")
    begin(journal)
    (of_the_dead,) = tmp_path.glob("*.alive")
    lease_is(journal, pid_start="of another process")
    of_the_dead.touch()
    other.take_lease("abc12345")
    assert len(list(tmp_path.glob("*.alive"))) == 1 and not of_the_dead.exists()
    other.give_up_lease("abc12345")
    assert list(tmp_path.glob("*.alive")) == []


# --- the file is taken away -------------------------------------------------------------------------------------------


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def replace(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)


@pytest.mark.parametrize("take_away", [remove, replace])
def test_no_fact_is_written_into_a_file_that_nobody_will_find(tmp_path: Path, take_away: Callable[[Path], None]):
    journal = Journal(tmp_path / "state" / "j.db")
    begin(journal)
    take_away(tmp_path / "state")
    with pytest.raises(LauncherError, match="cannot write the journal: the file was removed or replaced"):
        journal.record("abc12345", Fact.INTEND_CREATE_ENDPOINT, "a", "n")
    journal.beat("abc12345", [])  # which is not fatal
    journal.give_up_lease("abc12345")


def test_facts_of_the_present_attempt_begin_with_what_was_asked_for(tmp_path: Path):
    journal = Journal(tmp_path / "j.db")
    begin(journal)
    for kind in (Fact.TASK_ENDED, Fact.TASK_GONE, Fact.INTEND_CREATE_ENDPOINT, Fact.TASK_GONE):
        journal.record("abc12345", kind, "a", reason="stopped")
    kinds = [fact.kind for fact in present(journal.facts("abc12345"))]
    assert kinds == [Fact.INTEND_CREATE_ENDPOINT, Fact.TASK_GONE]
    journal.record("abc12345", Fact.TASK_RETRY, "a", attempt=2)
    journal.record("abc12345", Fact.TASK_ENDED, "a", reason="stopped")
    assert [fact.kind for fact in present(journal.facts("abc12345"))] == [Fact.TASK_RETRY, Fact.TASK_ENDED]


@pytest.mark.parametrize(("prefix", "says"), [("", "an id is empty"), ("\udcff", "no such invocation")])
def test_what_cannot_be_an_id_is_not_found(tmp_path: Path, prefix: str, says: str):
    journal = Journal(tmp_path / "j.db")
    begin(journal)
    with pytest.raises(NotFound, match=says):
        journal.find(prefix)


def test_facts_of_a_kind_that_a_later_version_knows_are_skipped(tmp_path: Path):
    journal = Journal(tmp_path / "j.db")
    begin(journal)
    journal.record("abc12345", Fact.RUN_STARTED)
    with sqlite3.connect(journal.path) as db:
        db.execute("INSERT INTO facts (time,invocation,task,kind,name,data) VALUES (1,'abc12345',NULL,'novel','','{}')")
    assert [fact.kind for fact in journal.facts("abc12345")] == [Fact.RUN_STARTED]


def test_a_damaged_plan_is_told_and_cleanup_does_without_it(tmp_path: Path):
    journal = Journal(tmp_path / "j.db")
    begin(journal)
    with sqlite3.connect(journal.path) as db:
        db.execute("UPDATE plans SET plan = x'00ff'")
    with pytest.raises(NotFound, match="damaged"):
        journal.plan("abc12345")
    assert places_left_by(journal, journal.find("abc12345")) == []


def make_journals(folder: Path, together: Barrier) -> None:
    """Make many, each at the same moment as another process."""
    for number in range(60):
        together.wait(30)
        Journal(folder / str(number) / "journal.db").invocations()


def test_two_launchers_that_make_the_journal_at_the_same_moment_both_get_it(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(3)
    makers = [spawn.Process(target=make_journals, args=(tmp_path, together)) for _ in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(60)

    assert [maker.exitcode for maker in makers] == [0, 0, 0]
