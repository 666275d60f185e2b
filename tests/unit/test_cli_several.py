"""`nv-eval stop` and `resume` of several invocations, limits of what is resumed, and the title of the live view."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import api
from launcher.cli import resume_command, stop_command
from launcher.cli.live import open_view
from launcher.cli.resume_command import Ended
from launcher.errors import LeaseHeld, NotFound, PreflightError
from launcher.orchestrator import signs
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.lease import STALE, process_start
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import RunOutcome, TaskState
from launcher.plan.model import Plan, WorstCase
from launcher.results import write
from launcher.supervise import RunResult, begin, refuse_beyond_budget
from tests.unit.conftest import Desk
from tests.unit.test_orchestrator_run import make_plan

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(300)"
POLITE = "import time; print(flush=True); time.sleep(300)"


COUNTING = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
print(flush=True)
while True:
    signal.pause()
"""


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


@pytest.fixture
def counting() -> Iterator[subprocess.Popen[bytes]]:
    """A launcher that says how often it was asked to stop, and does not."""
    with launcher(COUNTING) as process:
        yield process
        process.kill()


def times_asked(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    assert process.stdout is not None
    return process.stdout.read().count(b"asked")


def test_a_second_stop_waits_as_well_and_does_not_say_that_nobody_waits(
    desk: Desk, counting: subprocess.Popen[bytes]
) -> None:
    held_by(Journal.default(), "aaaa", counting)

    codes = [desk.nv_eval("stop", "aaaa", "--timeout", "0.3")[0] for _ in range(2)]

    assert codes == [5, 5]
    assert times_asked(counting) == 1


def test_of_several_stops_at_the_very_same_time_one_sends_the_signal(
    desk: Desk, counting: subprocess.Popen[bytes]
) -> None:
    journal = Journal.default()
    held_by(journal, "aaaa", counting)
    lease = journal.lease("aaaa")
    assert lease is not None

    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda _: Journal.default().ask_to_stop(lease), range(8)))

    assert asked == [True] * 8
    assert [fact.kind for fact in journal.facts("aaaa")] == [Fact.STOP_ASKED]


def test_a_resumed_run_can_be_stopped_again(desk: Desk, counting: subprocess.Popen[bytes]) -> None:
    journal = Journal.default()
    held_by(journal, "aaaa", counting)
    with sqlite3.connect(journal.path) as db:
        for kind in (Fact.RUN_STARTED, Fact.STOP_ASKED, Fact.RUN_STARTED):
            db.execute(
                "INSERT INTO facts (time,invocation,task,kind,name,data) VALUES (0,'aaaa',NULL,?,'','{}')", (kind,)
            )

    desk.nv_eval("stop", "aaaa", "--timeout", "0.3")

    assert times_asked(counting) == 1


def hang(journal: Journal, id_: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    """A launcher that has shown no sign of life for so long."""
    held_by(journal, id_, process)
    os.kill(process.pid, signal.SIGSTOP)
    lease = journal.lease(id_)
    assert lease is not None
    signs.end(journal.path.parent, id_, lease.owner)
    with sqlite3.connect(journal.path) as db:
        db.execute("UPDATE leases SET beat = ? WHERE invocation = ?", (time.time() - seconds, id_))


def test_one_whose_launcher_hangs_is_ended_in_its_place(
    desk: Desk, counting: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_command, "WAKE_TIME", 0.05)
    monkeypatch.setattr(stop_command, "_end", lambda _, why: why)
    hang(Journal.default(), "aaaa", counting, STALE + 1)

    code, out, _ = desk.nv_eval("stop", "aaaa", "--timeout", "5")

    assert (code, out) == (0, "aaaa: its launcher hung and was ended\n")


def test_of_one_that_hangs_for_less_than_its_lease_it_says_what_helps(
    desk: Desk, counting: subprocess.Popen[bytes]
) -> None:
    hang(Journal.default(), "aaaa", counting, STALE / 2)

    code, _, err = desk.nv_eval("stop", "aaaa", "--timeout", "0.1")

    assert code == 5
    assert err == (
        f"nv-eval: aaaa: its launcher, process {counting.pid}, hangs: no sign of life for 30 s; "
        "remove what it has made: nv-eval cleanup --force aaaa\n"
    )


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


def test_what_a_job_said_last_commands_no_terminal_and_lines_stay_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_plan(tmp_path, 1)
    with open_view(made) as view:
        view.update([TaskState(plan=made.tasks[0], waiting_for="last line: \x1b]0;title\x07no \x1b[31mmodel")], 0.0)
        view.say("one\x1b[2J\ntwo")
    said = capsys.readouterr().err
    assert "last line: no model" in said and "one\ntwo\n" in said and "\x1b" not in said
