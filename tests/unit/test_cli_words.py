"""What status and the closing lines of a run say, word for word."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from launcher.cli.scores import print_record
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import RunOutcome, TaskOutcome
from launcher.orchestrator.status import of
from launcher.results import write
from launcher.results.model import Record
from tests.unit.conftest import Desk
from tests.unit.test_orchestrator_run import make_plan


def record(folder: Path, *, began: float | None = None, gpu_seconds: float = 0.0, usd: float | None = None) -> Record:
    task = TaskOutcome(key="t0", name="t0", harness="command", reason=Reason.STOPPED, gpu_seconds=gpu_seconds, usd=usd)
    outcome = RunOutcome(invocation="a1234567", folder=str(folder), tasks=(task,), seconds=8.9)
    return write.build(make_plan(folder, 1), outcome, began)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({}, "0 of 1 tasks scored in 8.9 s."),
        ({"gpu_seconds": 158.4, "usd": 0.25}, "0 of 1 tasks scored in 8.9 s, 0.044 GPU-hours, 0.25 USD."),
        ({"began": 1e9}, "0 of 1 tasks scored in 8.9 s since it was resumed."),
        (
            {"began": 1e9, "gpu_seconds": 158.4, "usd": 0.25},
            "0 of 1 tasks scored in 8.9 s since it was resumed; 0.044 GPU-hours, 0.25 USD in all.",
        ),
    ],
)
def test_time_of_this_launcher_and_cost_of_all_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, float], line: str
):
    print_record(record(tmp_path, **keys), folder="/r")
    assert line in capsys.readouterr().out.splitlines()


def test_a_resumed_run_began_when_it_began(tmp_path: Path):
    assert (record(tmp_path, began=1e9).created, record(tmp_path, began=1e9).resumed) == (1e9, True)
    assert not record(tmp_path).resumed


def test_status_says_scored_as_the_table_does(desk: Desk):
    journal = Journal.default()
    journal.begin("abc12345", execution="local", deployment="d", folder="/r", tasks=["a"])
    journal.record("abc12345", Fact.TASK_COLLECTED, "a", reason="completed", scores=1)
    journal.record("abc12345", Fact.TASK_GONE, "a")
    _, out, _ = desk.nv_eval("status", "abc")
    assert "a  scored (0 s ago)" in out
    assert of(journal, journal.find("abc")).tasks[0].reason == "completed"  # as documented


def test_removing_what_a_launcher_left_is_no_sign_of_its_life(desk: Desk):
    journal = Journal.default()
    journal.begin("abc12345", execution="local", deployment="d", folder="/r", tasks=["a"])
    journal.record("abc12345", Fact.RUN_STARTED)
    with sqlite3.connect(journal.path) as db:
        db.execute("UPDATE facts SET time = time - 7200")
    db.close()
    journal.record("abc12345", Fact.CLEANED)
    _, out, _ = desk.nv_eval("status", "abc")
    assert "last sign of life 2 h ago" in out
