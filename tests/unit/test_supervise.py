"""A run that is taken up: its plan, the place where it ran, and the files that it cannot write."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from launcher import supervise
from launcher.errors import NotFound, PreflightError
from launcher.orchestrator.blocking import Interrupts
from launcher.orchestrator.journal import Fact, Journal
from launcher.plan.model import Plan
from launcher.platforms.base import BUDGET, Check, CheckState
from launcher.supervise import RunResult, stored_plan, take_up
from tests.fakes.platform import FakePlatform, Script
from tests.unit.test_orchestrator_run import make_plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tmp_path / "results", 1)


def begun(folder: Path, plan: Plan, *, kept: bytes = b"") -> Journal:
    """A journal with an invocation whose launcher is gone."""
    journal = Journal(folder / "state" / "journal.db")
    where = str(Path(plan.output_dir) / plan.invocation)
    id_ = plan.invocation
    journal.begin(id_, execution="fake", deployment="d", folder=where, tasks=["t0"], plan=kept, hold=False)
    return journal


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [b'{"schema": "nv-eval.pl', b"\xff\xfe", b"{}"], ids=["cut", "no text", "empty"])
def test_a_damaged_plan_in_the_results_is_one_line_that_names_the_file(tmp_path: Path, plan: Plan, saved: bytes):
    journal = begun(tmp_path, plan)
    path = Path(plan.output_dir) / plan.invocation / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(saved)
    with pytest.raises(NotFound) as refused:
        stored_plan(journal, journal.find(plan.invocation))
    assert str(refused.value).startswith(f"{path}: is damaged, or was made by another version of nv-eval: ")


def test_the_plan_in_the_results_stands_in_for_one_that_the_journal_lacks(tmp_path: Path, plan: Plan):
    journal = begun(tmp_path, plan)
    path = Path(plan.output_dir) / plan.invocation / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(plan))
    assert stored_plan(journal, journal.find(plan.invocation)) == plan


def test_a_plan_of_another_version_in_the_journal_is_one_line(tmp_path: Path, plan: Plan):
    journal = begun(tmp_path, plan, kept=b"{}")
    with pytest.raises(NotFound, match="its plan was made by another version of nv-eval"):
        stored_plan(journal, journal.find(plan.invocation))


# --- taken up ---------------------------------------------------------------------------------------------------------


def end(journal: Journal, plan: Plan, said: list[str], *, ends: bool = True) -> RunResult:
    taken = take_up(journal, journal.find(plan.invocation), plan, say=said.append, ends=ends)
    return asyncio.run(taken.run(Interrupts()))


def test_a_results_folder_that_cannot_be_written_keeps_no_teardown_from_happening(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
):
    journal, said = begun(tmp_path, plan), list[str]()
    (task,) = plan.tasks
    assert task.endpoint is not None
    platform = FakePlatform({"t0": Script(deleting_takes=0.0)}, poll_interval=0.01, create_grace=0.0)
    asyncio.run(platform.create_endpoint(task, task.endpoint))
    journal.record(plan.invocation, Fact.RUN_STARTED)
    journal.record(plan.invocation, Fact.INTEND_CREATE_ENDPOINT, "t0", task.endpoint.name)
    journal.record(plan.invocation, Fact.ENDPOINT_CREATED, "t0", task.endpoint.name)
    Path(plan.output_dir).write_text("a file where the folder should be")
    monkeypatch.setattr(supervise, "open_for", lambda _plan: platform)

    result = end(journal, plan, said)

    assert (platform.left, result.outcome.leftovers, result.saved) == ([], [], False)
    assert any("cannot write results" in line for line in said)
    with pytest.raises(PreflightError, match="cannot write results"):  # what creates something is refused
        end(journal, plan, said, ends=False)


def test_a_platform_that_leads_elsewhere_is_closed_when_the_run_is_refused(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
):
    class Cloud(FakePlatform):
        place = "workspace two"

    journal, platform = begun(tmp_path, plan), Cloud()
    journal.record(plan.invocation, Fact.RUN_STARTED, place="workspace one")
    monkeypatch.setattr(supervise, "open_for", lambda _plan: platform)

    with pytest.raises(PreflightError, match="has run in workspace one"):
        end(journal, plan, [])

    assert platform.left is not None, "it was not closed"


# --- what it may cost -------------------------------------------------------------------------------------------------


class Dear(FakePlatform):
    """A platform that alone knows the price."""

    async def preflight(self, plan: Plan) -> list[Check]:
        return [Check(BUDGET, CheckState.PROBLEM, "limits.max_cost_usd: the worst case is 9 USD")]


def test_a_worst_case_that_only_the_platform_knows_is_refused_until_it_is_accepted(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervise, "open_for", lambda _plan: Dear(poll_interval=0.01, create_grace=0.0))
    journal = begun(tmp_path, plan)

    def run(*, yes: bool) -> RunResult:
        taken = take_up(journal, journal.find(plan.invocation), plan, yes=yes)
        return asyncio.run(taken.run(Interrupts()))

    with pytest.raises(PreflightError, match="the worst case is 9 USD"):
        run(yes=False)
    journal.give_up_lease(plan.invocation)
    monkeypatch.setattr("tests.fakes.platform._plus", lambda begin, _seconds: begin)
    assert run(yes=True).outcome.exit_code == 0
    assert run(yes=False).outcome.exit_code == 0, "what was accepted when it began is accepted when it goes on"
