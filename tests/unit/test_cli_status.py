"""`nv-eval status` and `attach`: what else runs, and that a task waits for nothing once its endpoint answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from launcher.cli.attach_command import Lines
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.status import of
from tests.unit.conftest import Desk

WAITS = "deploying: its server is starting"
READY = Fact.INTEND_CREATE_ENDPOINT, Fact.ENDPOINT_CREATED, Fact.JOB_SUBMITTED


def begun(invocation: str, *facts: Fact, held: bool = True, **keys: Any) -> Journal:
    journal = Journal.default()
    known = {"execution": "local", "deployment": "deepinfra", "folder": "/r", **keys}
    journal.begin(invocation, tasks=["t"], hold=held, **known)
    journal.record(invocation, Fact.RUN_STARTED, place="the DeepInfra account me at https://h")
    for fact in facts:
        journal.record(invocation, fact, "t", "e")
    return journal


def test_what_runs_beside_the_newest_is_named_with_what_nobody_knows_of(desk: Desk) -> None:
    begun("runs0001", *READY)
    begun("lost0001", *READY, held=False)
    begun("done0001", *READY).record("done0001", Fact.RUN_ENDED, exit_code=0, leftovers=[])
    begun("clean001", *READY, held=False).record("clean001", Fact.CLEANED)
    begun("new00001", *READY)

    code, out, _ = desk.nv_eval("status")

    assert code == 0 and out.startswith("new00001  running")
    assert out.endswith("\nAlso running, or unknown: lost0001, runs0001; see: nv-eval ls\n")
    assert json.loads(desk.nv_eval("status", "--json")[1])["also_running"] == ["lost0001", "runs0001"]
    assert "Also" not in desk.nv_eval("status", "new0")[1]
    rows = json.loads(desk.nv_eval("ls", "--json")[1])["runs"]
    assert {row["id"]: row["alive"] for row in rows} == {
        "new00001": "yes",
        "clean001": "no",
        "done0001": "no",
        "lost0001": "?",
        "runs0001": "yes",
    }


def test_without_others_there_is_no_such_line(desk: Desk) -> None:
    begun("new00001", *READY)

    assert "Also" not in desk.nv_eval("status")[1]


@pytest.mark.parametrize(
    ("facts", "phase", "detail"),
    [
        ((Fact.INTEND_CREATE_ENDPOINT, Fact.ENDPOINT_CREATED), "starting", WAITS),
        (READY, "waiting", WAITS),
        ((*READY, Fact.TASK_EVALUATING), "evaluating", ""),
        ((*READY, Fact.ENDPOINT_UP, Fact.TASK_EVALUATING), "up", ""),
        ((*READY, Fact.TASK_EVALUATING, Fact.TASK_COLLECTED), "deleting", ""),
    ],
)
def test_what_was_waited_for_is_told_only_while_it_is_waited_for(
    desk: Desk, facts: tuple[Fact, ...], phase: str, detail: str
) -> None:
    journal = begun("new00001", *facts)
    journal.beat("new00001", [{"task": "t", "why": WAITS}])

    (task,) = of(journal, journal.find("new0")).tasks

    assert (task.phase, task.detail) == (phase, detail)


def test_attach_says_anew_what_is_waited_for_when_that_changes(desk: Desk) -> None:
    journal, lines = begun("new00001", *READY), Lines()
    desk.capture.readouterr()
    for why in ("initializing", WAITS, WAITS):
        journal.beat("new00001", [{"task": "t", "why": why}])
        lines.show(of(journal, journal.find("new0")))

    assert desk.capture.readouterr().out == f"t: waiting: initializing\nt: waiting: {WAITS}\n"
