"""`nv-eval stop` and `resume` of several invocations, limits of what is resumed, and the title of the live view."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import api
from launcher.cli import resume_command, stop_command
from launcher.cli.live import open_view
from launcher.cli.resume_command import Ended
from launcher.errors import LeaseHeld, NotFound, PreflightError
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.lease import process_start
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import RunOutcome
from launcher.plan.model import Plan, WorstCase
from launcher.results import write
from launcher.supervise import RunResult, begin, refuse_beyond_budget
from tests.unit.conftest import Desk
from tests.unit.test_orchestrator_run import make_plan

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(300)"
POLITE = "import time; print(flush=True); time.sleep(300)"


def launcher(program: str) -> subprocess.Popen[bytes]:
    """A process that holds a lease, once it has begun to listen, or not to listen, to signals."""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def held_by(journal: Journal, id_: str, process: subprocess.Popen[bytes]) -> None:
    journal.begin(id_, execution="local", deployment="x", folder="/nowhere", tasks=["a"])
    with sqlite3.connect(journal.path) as db:
        row = (process.pid, process_start(process.pid), id_)
        db.execute("UPDATE leases SET pid = ?, pid_start = ? WHERE invocation = ?", row)


def test_one_that_hangs_does_not_keep_another_from_being_stopped(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.default()
    monkeypatch.setattr(stop_command, "_end", lambda found: f"{found.id} ended")
    with launcher(DEAF) as deaf, launcher(POLITE) as polite:
        try:
            held_by(journal, "aaaa", deaf)
            held_by(journal, "bbbb", polite)

            code, out, err = desk.nv_eval("stop", "aaaa", "", "bbbb", "--timeout", "1")
        finally:
            deaf.kill()
            polite.kill()

    assert (code, out) == (6, "bbbb: bbbb ended\n")  # its launcher died without a word, so that what it left is ended
    assert err.splitlines() == [
        "nv-eval: an id is empty; see: nv-eval ls runs",
        "nv-eval: aaaa: still tearing down; see: nv-eval status aaaa",
    ]


def test_what_cannot_be_resumed_keeps_no_other_from_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def resume(_: object, prefix: str, __: object) -> Ended:
        asked.append(prefix)
        if prefix == "a":
            raise LeaseHeld("a: is being run")
        if prefix == "b":
            raise NotFound("b: no such invocation")
        return Ended(4)

    monkeypatch.setattr(resume_command, "_resume", resume)
    assert desk.nv_eval("resume", "a", "b", "c") == (
        10,
        "",
        "nv-eval: a: is being run\nnv-eval: b: no such invocation\n",
    )
    code, out, _ = desk.nv_eval("resume", "a", "c", "--json")
    assert (code, json.loads(out)["error"]) == (10, "LeaseHeld")
    assert asked == ["a", "b", "c", "a", "c"]


@pytest.mark.parametrize(("ends", "resumed"), [(Reason.STOPPED, ["aaaa"]), (Reason.LIMIT_REACHED, ["aaaa", "bbbb"])])
def test_ctrl_c_ends_them_all_and_a_limit_only_its_own(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, ends: Reason, resumed: list[str]
) -> None:
    plans = {id_: replace(make_plan(desk.cwd, 1), invocation=id_) for id_ in ("aaaa", "bbbb")}
    asked: list[str] = []

    def resume(invocation: str, **_: object) -> RunResult:
        asked.append(invocation)
        outcome = RunOutcome(invocation=invocation, folder=str(desk.cwd), tasks=(), seconds=1.0, ended_by=ends)
        record = write.build(plans[invocation], outcome)
        return RunResult(invocation=invocation, folder=desk.cwd, record=record, outcome=outcome)

    for plan in plans.values():
        begin(plan, Journal.default())
    monkeypatch.setattr(api, "resume", resume)

    code, _, err = desk.nv_eval("resume", "aaaa", "bbbb")

    assert (code, asked) == ({Reason.STOPPED: 130, Reason.LIMIT_REACHED: 9}[ends], resumed)
    assert ("not resumed: bbbb" in err) == (ends is Reason.STOPPED)


@pytest.mark.parametrize("word", ["", "\udcff\udcfe123"])
@pytest.mark.parametrize("command", ["stop", "resume", "attach", "status", "logs", "cleanup"])
def test_an_id_that_cannot_be_one_means_no_invocation(desk: Desk, command: str, word: str) -> None:
    journal = Journal.default()
    journal.begin("aaaa", execution="local", deployment="x", folder="/nowhere", tasks=["a"])
    journal.record("aaaa", Fact.RUN_ENDED, exit_code=0)

    code, out, err = desk.nv_eval(command, word)

    assert (code, out, err.count("\n")) == (6, "", 1)
    assert "ls runs" in err


# --- limits -------------------------------------------------------------------------------------------------------


def priced(folder: Path, usd: float | None, **limits: float) -> Plan:
    return replace(make_plan(folder, 1, limits=limits), worst_case=WorstCase(gpu_hours=1.0, usd=usd))


def test_a_resumed_plan_is_refused_only_for_what_was_not_accepted_when_it_began(tmp_path: Path) -> None:
    begun = priced(tmp_path, 3.0, max_cost_usd=2.0)
    stricter = priced(tmp_path, 3.0, max_cost_usd=1.0)

    refuse_beyond_budget(begun, yes=False, accepted=begun)
    refuse_beyond_budget(stricter, yes=True, accepted=begun)
    with pytest.raises(PreflightError, match=r"the limit 1\.00"):
        refuse_beyond_budget(stricter, yes=False, accepted=begun)
    with pytest.raises(PreflightError, match="no price is known"):
        refuse_beyond_budget(priced(tmp_path, None, max_cost_usd=2.0), yes=True, accepted=begun)


@pytest.mark.parametrize("resume", [api.resume, api.resume_detached])
@pytest.mark.usefixtures("desk")
def test_a_cost_limit_that_nobody_can_keep_is_not_taken_up(tmp_path: Path, resume: Callable[..., object]) -> None:
    plan, journal = priced(tmp_path, None), Journal.default()
    begin(plan, journal)
    before = journal.plan(plan.invocation)

    with pytest.raises(PreflightError, match="no price is known"):
        resume(plan.invocation, change=lambda _: priced(tmp_path, None, max_cost_usd=1e-7))

    assert journal.plan(plan.invocation) == before
    assert journal.lease(plan.invocation) is None


# --- title --------------------------------------------------------------------------------------------------------


def test_a_run_has_a_title_only_once_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_view(make_plan(tmp_path, 1)) as view:
        assert capsys.readouterr().err == ""
        view.update([], 0.0)
        view.update([], 1.0)
    assert capsys.readouterr().err.count(": 1 task on ") == 1
