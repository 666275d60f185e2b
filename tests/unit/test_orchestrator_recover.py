"""From the facts of a launcher that is gone to the state of its tasks; and what a run then makes of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from launcher.harnesses.spec import Score
from launcher.orchestrator.journal import Entry, Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.recover import SCORES, read_scores, recover
from launcher.orchestrator.run import Run
from launcher.orchestrator.state import RunOutcome, TaskState
from launcher.orchestrator.status import of
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform, Script
from tests.unit.test_orchestrator_run import make_plan, reasons

NOW, GRACE = 5000.0, 30.0
WALL = time.time()
ENDPOINT, JOB = "container-t0-0-a1234567", "eval-t0-0-a1234567"


def fact(kind: Fact, ago: float = 100.0, name: str = "", task: str = "t0", **data: Any) -> Entry:
    return Entry(time=WALL - ago, kind=kind, task=task, name=name, data=data)


ASKED = fact(Fact.INTEND_CREATE_ENDPOINT, 100, ENDPOINT)
MADE = fact(Fact.ENDPOINT_CREATED, 99, ENDPOINT)
JOB_ASKED = fact(Fact.INTEND_SUBMIT_JOB, 98, JOB)
JOB_MADE = fact(Fact.JOB_SUBMITTED, 97, JOB)
COMPLETED = fact(Fact.TASK_ENDED, 50, reason="completed", detail="")
COLLECTED = fact(Fact.TASK_COLLECTED, 49, reason="completed", scores=1)
GONE = fact(Fact.TASK_GONE, 40)
RUNNING = [ASKED, MADE, JOB_ASKED, JOB_MADE]


def recovered(folder: Path, facts: list[Entry]) -> TaskState:
    late = time.time() - WALL  # tests before this one took some time
    facts = [replace(fact, time=fact.time + late) for fact in facts]
    (state,) = recover(make_plan(folder, 1), facts, folder / "a1234567", now=NOW, grace=GRACE)
    return state


def bring_home(folder: Path, value: float = 0.5) -> None:
    path = folder / "a1234567" / "t0" / SCORES
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode([Score(task="t0", metric="acc", filter="none", value=value, n=4)]))


def test_a_task_of_which_nothing_was_asked_for_is_queued(tmp_path: Path):
    state = recovered(tmp_path, [])
    assert not state.admitted and state.reason is None and state.recovered


def test_what_was_asked_for_and_not_answered_may_still_appear(tmp_path: Path):
    state = recovered(tmp_path, [ASKED])
    assert state.endpoint_wanted and not state.endpoint_created and not state.heard
    assert state.unheard_until == pytest.approx(NOW + GRACE, abs=1)


def test_a_task_in_the_middle_goes_on_where_it_was(tmp_path: Path):
    state = recovered(tmp_path, [*RUNNING, fact(Fact.TASK_EVALUATING, 60)])
    assert state.endpoint_created and state.job_submitted and state.heard and state.reason is None
    assert state.started_at == pytest.approx(NOW - 100, abs=1)
    assert state.evaluating_at == pytest.approx(NOW - 60, abs=1)


def test_times_of_a_clock_that_was_ahead_are_not_in_the_future(tmp_path: Path):
    state = recovered(tmp_path, [fact(Fact.INTEND_CREATE_ENDPOINT, -7200, ENDPOINT)])
    assert state.started_at == pytest.approx(NOW, abs=5)


def test_a_task_with_scores_and_nothing_left_is_done(tmp_path: Path):
    bring_home(tmp_path)
    state = recovered(tmp_path, [*RUNNING, COMPLETED, COLLECTED, GONE])
    assert state.done and [score.value for score in state.scores] == [0.5]


def test_a_task_with_scores_whose_endpoint_may_live_has_only_that_left_to_do(tmp_path: Path):
    bring_home(tmp_path)
    state = recovered(tmp_path, [*RUNNING, COMPLETED, COLLECTED])
    assert not state.done and state.collected and state.scores and state.endpoint_wanted


def test_a_completed_job_whose_scores_did_not_come_home_is_collected_again(tmp_path: Path):
    state = recovered(tmp_path, [*RUNNING, COMPLETED])
    assert state.reason is Reason.COMPLETED and not state.collected and state.again


@pytest.mark.parametrize("said", [[COMPLETED, GONE], [COMPLETED, COLLECTED, GONE], [GONE], []])
def test_scores_that_are_home_count_whatever_a_full_disk_kept_out_of_the_journal(tmp_path: Path, said: list[Entry]):
    bring_home(tmp_path)
    state = recovered(tmp_path, [*RUNNING, *said])
    assert state.reason is Reason.COMPLETED and state.collected and state.scores
    assert state.done == (GONE in said)


@pytest.mark.parametrize("content", [b"", b'[{"task": "t0", "metric"', b"{}"])
def test_scores_that_cannot_be_read_are_none(tmp_path: Path, content: bytes):
    (tmp_path / SCORES).write_bytes(content)
    assert read_scores(tmp_path / SCORES) is None
    assert read_scores(tmp_path / "absent") is None


def test_scores_that_were_home_and_are_not_any_more_are_made_again(tmp_path: Path):
    state = recovered(tmp_path, [*RUNNING, COMPLETED, COLLECTED, GONE])
    assert state.reason is Reason.RESULTS_NOT_FETCHED and state.again and not state.done


def test_an_attempt_that_is_gone_without_a_word_is_over(tmp_path: Path):
    state = recovered(tmp_path, [ASKED, GONE])
    assert state.reason is Reason.LAUNCHER_DIED and state.collected and not state.endpoint_wanted


def test_attempts_before_the_last_are_remembered_with_what_they_cost(tmp_path: Path):
    retry = fact(Fact.TASK_RETRY, 30, attempt=2, reason="preempted", detail="", endpoint_seconds=60.0)
    name = "container-t0-0r2-a1234567"
    state = recovered(tmp_path, [*RUNNING, GONE, retry, fact(Fact.INTEND_CREATE_ENDPOINT, 20, name)])
    assert state.attempt == 2 and state.plan.endpoint is not None and state.plan.endpoint.name == name
    assert [(past.number, past.reason, past.endpoint_seconds) for past in state.past] == [(1, Reason.PREEMPTED, 60.0)]
    assert state.endpoint_wanted and state.reason is None


def test_what_the_platform_counted_of_an_endpoint_that_is_gone_is_what_it_has_cost(tmp_path: Path):
    gone = fact(Fact.TASK_GONE, 10, ran=7.0)
    state = recovered(tmp_path, [*RUNNING, gone])
    assert state.endpoint_seconds(0.0) == 7.0, "the time in the queue before the launcher died is no part of it"


def test_a_task_that_was_stopped_in_the_queue_is_not_gone_once_it_has_begun(tmp_path: Path):
    stopped = [fact(Fact.TASK_ENDED, 200, reason="stopped", detail=""), fact(Fact.TASK_GONE, 199)]
    state = recovered(tmp_path, [*stopped, *RUNNING])
    assert state.endpoint_wanted and state.reason is None


# --- a run that goes on -----------------------------------------------------------------------------------------------


class Lagging(FakePlatform):
    """What exists is shown only from a moment on, unless this launcher made it."""

    shown_from = 0.0

    async def observe(self):
        seen = await super().observe()
        if asyncio.get_running_loop().time() < self.shown_from:
            seen.endpoints.clear()
            seen.jobs.clear()
        return seen


def go_on(folder: Path, facts: list[Entry], platform: FakePlatform, *, stop: bool = False) -> RunOutcome:
    journal = Journal(folder / "journal.db")
    plan = make_plan(folder, 1)
    journal.begin(plan.invocation, execution="fake", deployment="d", folder=str(folder), tasks=["t0"])
    run = Run(plan, platform, journal, facts=facts)

    async def scenario() -> RunOutcome:
        if stop:
            run.stop()
        outcome = await run.run()
        run.conclude(outcome)
        return outcome

    outcome = run_virtual(scenario())
    assert of(journal, journal.find("a12")).tasks[0].alive is bool(outcome.leftovers)
    journal.close()
    return outcome


async def left_by_an_earlier_launcher(platform: FakePlatform, folder: Path) -> None:
    task = make_plan(folder, 1).tasks[0]
    assert task.endpoint is not None
    await platform.create_endpoint(task, task.endpoint)
    await platform.submit_job(task, task.job, "http://x")


@pytest.mark.parametrize("stop", [False, True])
def test_what_lists_do_not_show_yet_is_not_taken_for_gone(tmp_path: Path, stop: bool):
    platform = Lagging({"t0": Script(lasts=50.0)})
    platform.shown_from = 3.0
    run_virtual(left_by_an_earlier_launcher(platform, tmp_path))
    outcome = go_on(tmp_path, [ASKED, MADE, JOB_ASKED, JOB_MADE], platform, stop=stop)
    assert platform.left == []
    assert reasons(outcome) == {"t0": Reason.STOPPED if stop else Reason.COMPLETED}
    assert len(platform.created) == len(platform.submitted) == 1


def test_a_second_signal_before_the_platform_is_open_names_what_may_be_left(tmp_path: Path):
    class Slow(FakePlatform):
        async def open(self, plan, folder):
            await asyncio.sleep(3600)
            return await super().open(plan, folder)

    journal = Journal(tmp_path / "journal.db")
    plan = make_plan(tmp_path, 1)
    journal.begin(plan.invocation, execution="fake", deployment="d", folder=str(tmp_path), tasks=["t0"])
    run = Run(plan, Slow(), journal, facts=RUNNING)

    async def scenario() -> RunOutcome:
        loop = asyncio.get_running_loop()
        loop.call_later(1, run.stop)
        loop.call_later(2, run.abandon)
        return await run.run()

    outcome = run_virtual(scenario())
    assert outcome.leftovers == [ENDPOINT, JOB] and outcome.exit_code == 5
