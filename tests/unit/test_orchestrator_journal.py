"""The journal on disks that fail, and what it answers."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from launcher.errors import LauncherError, NotFound
from launcher.orchestrator.journal import Fact, Journal, RunState, process_start


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
        db.execute("UPDATE invocations SET pid_start = '1'")  # as if the pid had been given to another process
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
