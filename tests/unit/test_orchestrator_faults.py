"""Faults around the steps of a run: whatever breaks, the outcome is told, and it is true."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.config.fields import Reference
from launcher.errors import LauncherError, Leftover, PlatformError
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.run import Run
from launcher.orchestrator.state import RunOutcome
from launcher.orchestrator.status import of
from launcher.platforms.base import ResourceState
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform, Script
from tests.unit.test_orchestrator_run import make_plan, run_plan


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "journal.db")


def test_a_platform_that_cannot_end_everything_does_not_lose_the_outcome(tmp_path: Path, journal: Journal):
    class Stubborn(FakePlatform):
        async def close(self, *, at_once=False):
            raise Leftover("still running on this machine: x")

    outcome = run_plan(make_plan(tmp_path, 1), Stubborn(), journal)
    assert outcome.tasks[0].reason is Reason.COMPLETED and outcome.tasks[0].scores


def test_nothing_more_is_created_when_the_state_folder_is_gone_and_what_there_is_goes(tmp_path: Path, journal: Journal):
    class Watched(FakePlatform):
        async def create_endpoint(self, task, spec):
            made = await super().create_endpoint(task, spec)
            shutil.rmtree(journal.path.parent)
            return made

    platform = Watched()
    outcome = run_plan(make_plan(tmp_path, 1), platform, journal)
    assert (outcome.exit_code, outcome.leftovers, platform.jobs) == (4, [], {})
    assert "cannot write the journal: the file was removed or replaced" in outcome.tasks[0].detail


def test_any_failure_to_observe_is_unknown(tmp_path: Path, journal: Journal):
    class Flaky(FakePlatform):
        async def observe(self):
            if 5 < asyncio.get_running_loop().time() < 5.2:
                raise OSError(24, "Too many open files")
            return await super().observe()

    assert run_plan(make_plan(tmp_path, 2), Flaky(), journal).exit_code == 0


def test_a_platform_that_never_answers_again_ends_the_run_and_tells_what_may_be_left(tmp_path: Path, journal: Journal):
    class Silent(FakePlatform):
        async def observe(self):
            if asyncio.get_running_loop().time() > 2:
                raise PlatformError("GET /deployments answered 401: expired")
            return await super().observe()

    outcome = run_plan(make_plan(tmp_path, 1), Silent(poll_interval=5.0), journal)
    assert outcome.exit_code == 5 and outcome.leftovers
    assert outcome.tasks[0].reason is Reason.JOB_LOST
    assert outcome.tasks[0].detail == "the platform cannot be asked: GET /deployments answered 401: expired"


@pytest.mark.parametrize("twice", [False, True], ids=["stop", "stop and abandon"])
def test_a_look_that_hangs_keeps_nobody_from_stopping(tmp_path: Path, journal: Journal, twice: bool):
    class Hanging(FakePlatform):
        async def observe(self):
            if 5 < asyncio.get_running_loop().time() < 6:
                await asyncio.sleep(1000)
            return await super().observe()

    run = Run(make_plan(tmp_path, 1), Hanging(), journal)

    async def scenario() -> RunOutcome:
        loop = asyncio.get_running_loop()
        loop.call_later(8, run.stop)
        if twice:
            loop.call_later(8.05, run.abandon)
        return await run.run()

    outcome = run_virtual(scenario())
    assert outcome.tasks[0].reason is Reason.STOPPED
    assert outcome.seconds < 12
    assert bool(outcome.leftovers) == twice


def test_a_person_who_stops_waiting_does_not_wait_for_a_slow_goodbye(tmp_path: Path, journal: Journal):
    class Slow(FakePlatform):
        async def close(self, *, at_once=False):
            await asyncio.sleep(0 if at_once else 1000)

    run = Run(make_plan(tmp_path, 1), Slow(), journal)

    async def scenario() -> RunOutcome:
        asyncio.get_running_loop().call_later(30, run.abandon)
        return await run.run()

    assert run_virtual(scenario()).exit_code == 0


def test_what_a_task_waits_for_is_shown_and_told_when_its_time_is_over(tmp_path: Path, journal: Journal):
    class Full(FakePlatform):
        def _endpoint(self, thing):
            return replace(super()._endpoint(thing), url=None, state=ResourceState.PENDING, detail="no capacity")

    shown: list[str] = []

    def watch(tasks, now):
        shown.append(of(journal, journal.find("a12")).tasks[0].detail)

    outcome = run_virtual(Run(make_plan(tmp_path, 1), Full(poll_interval=5.0), journal, watcher=watch).run())
    assert "no capacity" in shown
    assert outcome.tasks[0].reason is Reason.ENDPOINT_START_TIMEOUT
    assert outcome.tasks[0].detail.endswith(": no capacity")


def test_a_closed_terminal_does_not_end_a_run(tmp_path: Path, journal: Journal):
    def watch(tasks, now):
        raise BrokenPipeError(32, "Broken pipe")

    outcome = run_virtual(Run(make_plan(tmp_path, 1), FakePlatform(), journal, watcher=watch).run())
    assert outcome.exit_code == 0


def test_status_tells_the_same_reason_as_the_record(tmp_path: Path, journal: Journal):
    class Lost(FakePlatform):
        async def fetch(self, task, folder):
            raise PlatformError("no file")

    outcome = run_plan(make_plan(tmp_path, 1), Lost(), journal)
    shown = of(journal, journal.find("a12")).tasks[0]
    assert outcome.tasks[0].reason is Reason.RESULTS_NOT_FETCHED
    assert (shown.reason, shown.detail) == ("results_not_fetched", "no file")


def test_results_that_crash_their_reader_are_their_own_task_s_problem(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"t0": Script(results='{"schema": "nv-eval.scores/1", "scores": 7}')})
    outcome = run_plan(make_plan(tmp_path, 2), platform, journal)
    assert [task.reason for task in outcome.tasks] == [Reason.RESULTS_INVALID, Reason.COMPLETED]


def test_a_log_that_cannot_be_read_does_not_hide_the_reason(tmp_path: Path, journal: Journal):
    class Mute(FakePlatform):
        async def tail(self, name, lines):
            raise PlatformError("log service down")

    outcome = run_plan(make_plan(tmp_path, 1), Mute({"t0": Script(reason="loglikelihood_wrong")}), journal)
    assert outcome.tasks[0].reason is Reason.LOGLIKELIHOOD_WRONG
    assert "log service down" in outcome.tasks[0].evidence.endpoint[0]


def test_a_full_disk_does_not_take_scores_away(tmp_path: Path):
    class Full(Journal):
        def record_all(self, invocation, entries):
            if {entry.kind for entry in entries} & {Fact.TASK_COLLECTED, Fact.TASK_ENDED, Fact.TASK_GONE}:
                raise LauncherError("disk full")
            super().record_all(invocation, entries)

    platform, said, plan = FakePlatform(), list[tuple[str, str]](), make_plan(tmp_path, 1)
    run = Run(plan, platform, Full(tmp_path / "j.db"), tell=lambda *words: said.append(words))
    outcome = run_virtual(run.run())
    assert outcome.tasks[0].scores and outcome.exit_code == 0 and platform.left == []
    assert [event for event, _ in said] == ["journal"], "told once"
    assert said[0][1].startswith("disk full; the run goes on, and status will not know how it ends")


def test_an_address_that_comes_late_reaches_the_job(tmp_path: Path, journal: Journal):
    urls = []

    class Asynchronous(FakePlatform):
        async def create_endpoint(self, task, spec):
            return replace(await super().create_endpoint(task, spec), url=None)

        async def submit_job(self, task, spec, url):
            urls.append(url)
            return await super().submit_job(task, spec, url)

    run_plan(make_plan(tmp_path, 1), Asynchronous(), journal)
    assert urls and urls[0].startswith("http://")


def test_an_endpoint_that_never_gets_an_address_ends_behind_the_barrier_too(tmp_path: Path, journal: Journal):
    class Nowhere(FakePlatform):
        def _endpoint(self, thing):
            return replace(super()._endpoint(thing), url=None, state=ResourceState.PENDING)

    outcome = run_plan(
        make_plan(tmp_path, 2, execution={"start_jobs": "all_ready"}), Nowhere(poll_interval=5.0), journal
    )
    assert {task.reason for task in outcome.tasks} == {Reason.ENDPOINT_START_TIMEOUT}


def test_a_probe_that_cannot_be_made_does_not_keep_its_endpoint_waiting(tmp_path: Path, journal: Journal):
    plan = make_plan(tmp_path, 1, execution={"start_jobs": "all_ready"})
    target = replace(plan.tasks[0].target, api_key=Reference(env="NOT_SET_ANYWHERE"))
    platform = FakePlatform()
    outcome = run_plan(replace(plan, tasks=(replace(plan.tasks[0], target=target),)), platform, journal)
    assert outcome.tasks[0].reason is Reason.JOB_NOT_SUBMITTED and "NOT_SET_ANYWHERE" in outcome.tasks[0].detail
    assert outcome.seconds < 5 and platform.left == []


def test_what_is_left_over_still_occupies_and_what_waits_for_it_is_told(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"t2": Script(delete_refusals=10**6, lasts=3)}, poll_interval=1.0)
    outcome = run_plan(make_plan(tmp_path, 3, limits={"max_gpus": 1}), platform, journal)
    assert platform.most_alive == 1
    reasons = {task.key: task.reason for task in outcome.tasks}
    assert reasons == {"t0": Reason.ENDPOINT_NOT_CREATED, "t1": Reason.ENDPOINT_NOT_CREATED, "t2": Reason.COMPLETED}
    assert outcome.exit_code == 5


def test_limits_hold_while_the_platform_cannot_be_seen(tmp_path: Path, journal: Journal):
    class GoesBlind(FakePlatform):
        async def observe(self):
            if asyncio.get_running_loop().time() > 3:
                raise PlatformError("no answer")
            return await super().observe()

    platform = GoesBlind({"t0": Script(lasts=1000)})
    outcome = run_plan(make_plan(tmp_path, 1, limits={"max_duration": 60}), platform, journal)
    assert platform.deleted and platform.deleted[0][0] == pytest.approx(60, abs=2)
    assert outcome.exit_code == 5  # asked to go, never seen to be gone


def test_what_may_have_been_created_is_waited_for_before_it_counts_as_absent(tmp_path: Path, journal: Journal):
    class LateVisible(FakePlatform):
        async def create_endpoint(self, task, spec):
            await super().create_endpoint(task, spec)
            self.hidden = asyncio.get_running_loop().time() + 2
            raise PlatformError("timeout")

        async def observe(self):
            seen = await super().observe()
            late = asyncio.get_running_loop().time() < getattr(self, "hidden", 0)
            return replace(seen, endpoints={}) if late else seen

    platform = LateVisible()
    run_plan(make_plan(tmp_path, 1), platform, journal)
    assert platform.left == []


def test_status_never_calls_a_leftover_gone(tmp_path: Path, journal: Journal):
    run = Run(make_plan(tmp_path, 1), FakePlatform({"t0": Script(delete_refusals=10**6)}), journal)

    async def scenario() -> RunOutcome:
        outcome = await run.run()
        run.conclude(outcome)
        return outcome

    outcome = run_virtual(scenario())
    assert outcome.leftovers == ["container-t0-0-a1234567"]
    assert of(journal, journal.find("a12")).tasks[0].alive is None
