"""The life of a run on a platform in memory and a virtual clock."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from launcher.config.schema import Config
from launcher.config.validate import validate
from launcher.errors import LauncherError
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.run import DELETE_PATIENCE, Run
from launcher.orchestrator.state import RunOutcome
from launcher.orchestrator.status import of
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.platforms.base import Capacity
from launcher.runner.client import Ending, EndpointProblem
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform, Script


def make_plan(folder: Path, count: int = 3, **keys: object) -> Plan:
    tasks = [{"name": f"t{i}", "expected_duration": 10.0 + i} for i in range(count)]
    tree = {
        "execution": {"type": "local", "output_dir": str(folder), **_section(keys, "execution")},
        "deployment": {
            "type": "container",
            "model_id": "m",
            "command": "serve {port}",
            "gpus": 1,
            "start_timeout": 400,
            "health_timeout": 10,
        },
        "evaluation": {"harness": "command", "command": ["bench"], "tasks": tasks, "timeout": 1000},
        "limits": {"max_attempts": 1, **_section(keys, "limits")},
    }
    config: Config = validate(tree)
    return build(config, "a1234567")


def _section(keys: dict[str, object], name: str) -> dict[str, object]:
    value = keys.get(name, {})
    assert isinstance(value, dict)
    return value


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "journal.db")


def run_plan(plan: Plan, platform: FakePlatform, journal: Journal) -> RunOutcome:
    run = Run(plan, platform, journal)

    async def scenario() -> RunOutcome:
        outcome = await run.run()
        run.conclude(outcome)
        return outcome

    return run_virtual(scenario())


def reasons(outcome: RunOutcome) -> dict[str, Reason]:
    return {task.key: task.reason for task in outcome.tasks}


def test_all_endpoints_are_created_at_once_and_each_goes_when_its_own_task_ends(tmp_path: Path, journal: Journal):
    scripts = {"t0": Script(boot=1, lasts=5), "t1": Script(boot=30, lasts=5), "t2": Script(boot=2, lasts=60)}
    platform = FakePlatform(scripts)
    outcome = run_plan(make_plan(tmp_path), platform, journal)
    assert outcome.exit_code == 0
    assert max(at for at, _ in platform.created) < 1
    gone = {task: at for at, task in platform.deleted}
    assert gone["t0"] == pytest.approx(6, abs=1) and gone["t1"] == pytest.approx(35, abs=1)
    assert outcome.seconds == pytest.approx(62, abs=2)
    assert platform.left == []


def test_scores_come_home_before_the_endpoint_goes(tmp_path: Path, journal: Journal):
    run_plan(make_plan(tmp_path, 1), FakePlatform(), journal)
    kinds = [fact.kind for fact in journal.facts("a1234567")]
    assert kinds.index(Fact.TASK_COLLECTED) < kinds.index(Fact.INTEND_DELETE_ENDPOINT)
    assert (tmp_path / "a1234567/t0/scores.json").is_file()


def test_the_intent_is_in_the_journal_before_the_request(tmp_path: Path, journal: Journal):
    plan = make_plan(tmp_path, 1)

    class Watching(FakePlatform):
        async def create_endpoint(self, task, spec):
            assert [f.name for f in journal.facts(plan.invocation) if f.kind is Fact.INTEND_CREATE_ENDPOINT] == [
                spec.name
            ]
            return await super().create_endpoint(task, spec)

    assert run_plan(plan, Watching(), journal).exit_code == 0


def test_nothing_is_created_when_the_intent_cannot_be_written(tmp_path: Path, journal: Journal):
    class Full(Journal):
        def record_all(self, invocation, entries):
            if any(entry.kind is Fact.INTEND_CREATE_ENDPOINT for entry in entries):
                raise LauncherError("disk full")
            super().record_all(invocation, entries)

    platform = FakePlatform()
    outcome = run_plan(make_plan(tmp_path, 2), platform, Full(tmp_path / "j.db"))
    assert platform.created == []
    assert set(reasons(outcome).values()) == {Reason.ENDPOINT_NOT_CREATED}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(create_fails=True), Reason.ENDPOINT_NOT_CREATED),
        (Script(created_but_unheard=True), Reason.ENDPOINT_NOT_CREATED),
        (Script(endpoint_dies_after=0.5), Reason.ENDPOINT_EXITED),
        (Script(endpoint_dies_after=5), Reason.ENDPOINT_DIED),
        (Script(submit_fails=True), Reason.JOB_NOT_SUBMITTED),
        (Script(reason="harness_failed"), Reason.HARNESS_FAILED),
        (Script(reason="loglikelihood_wrong"), Reason.LOGLIKELIHOOD_WRONG),
        (Script(silent_end=True), Reason.JOB_LOST),
        (Script(lasts=None), Reason.HARNESS_TIMEOUT),
        (Script(results="{broken"), Reason.RESULTS_INVALID),
        (Script(delete_refusals=3), Reason.COMPLETED),
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else "",
)
def test_a_fault_ends_its_own_task_with_its_reason_and_nothing_is_left(
    tmp_path: Path, journal: Journal, script: Script, reason: Reason
):
    platform = FakePlatform({"t1": script}, poll_interval=5.0 if script.lasts is None else 0.1)
    outcome = run_plan(make_plan(tmp_path), platform, journal)
    assert reasons(outcome) == {"t0": Reason.COMPLETED, "t1": reason, "t2": Reason.COMPLETED}
    assert platform.left == []
    assert outcome.exit_code == (0 if reason is Reason.COMPLETED else 4)


def test_a_failed_task_keeps_the_last_lines_of_server_and_job(tmp_path: Path, journal: Journal):
    outcome = run_plan(make_plan(tmp_path, 1), FakePlatform({"t0": Script(reason="harness_failed")}), journal)
    (task,) = outcome.tasks
    assert task.evidence.endpoint and task.evidence.job and task.detail == "as scripted"


def test_an_unreachable_platform_is_unknown_and_not_gone(tmp_path: Path, journal: Journal):
    platform = FakePlatform(blind_until=300.0, poll_interval=1.0)
    outcome = run_plan(make_plan(tmp_path, 1), platform, journal)
    assert outcome.exit_code == 0 and platform.left == []


def test_what_refuses_to_go_is_reported_as_left_over(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"t1": Script(delete_refusals=10**6)}, poll_interval=1.0)
    outcome = run_plan(make_plan(tmp_path), platform, journal)
    assert outcome.leftovers == ["container-t1-1-a1234567"] and outcome.exit_code == 5
    assert outcome.seconds == pytest.approx(11 + DELETE_PATIENCE, abs=5)


@pytest.mark.parametrize("at", [0.0, 0.005, 0.015, 0.5, 3.0, 11.2, 11.6])
def test_stop_is_valid_in_every_state_and_leaves_nothing(tmp_path: Path, journal: Journal, at: float):
    platform = FakePlatform()
    run = Run(make_plan(tmp_path), platform, journal)

    async def scenario() -> RunOutcome:
        asyncio.get_running_loop().call_later(at, run.stop)
        return await run.run()

    outcome = run_virtual(scenario())
    assert platform.left == []
    assert outcome.exit_code == 130 and outcome.seconds < 15


def test_stop_while_the_platform_is_prepared_creates_nothing(tmp_path: Path, journal: Journal):
    class Slow(FakePlatform):
        async def open(self, plan, folder):
            await asyncio.sleep(3600)
            return await super().open(plan, folder)

    platform = Slow()
    run = Run(make_plan(tmp_path), platform, journal)

    async def scenario() -> RunOutcome:
        asyncio.get_running_loop().call_later(5, run.stop)
        return await run.run()

    outcome = run_virtual(scenario())
    assert outcome.exit_code == 130 and outcome.seconds == pytest.approx(5)
    assert set(reasons(outcome).values()) == {Reason.STOPPED} and platform.created == []


def test_a_second_signal_stops_waiting_and_names_what_may_be_left(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"t0": Script(deleting_takes=3600)})
    run = Run(make_plan(tmp_path, 1), platform, journal)

    async def scenario() -> RunOutcome:
        loop = asyncio.get_running_loop()
        loop.call_later(5, run.stop)
        loop.call_later(6, run.abandon)
        return await run.run()

    outcome = run_virtual(scenario())
    assert outcome.leftovers == ["container-t0-0-a1234567"] and outcome.seconds < 10


def test_no_more_endpoints_than_gpus_and_the_longest_first(tmp_path: Path, journal: Journal):
    scripts = {f"t{i}": Script(boot=0.1, lasts=10.0 + i) for i in range(4)}
    platform = FakePlatform(scripts, Capacity(gpus=2))
    outcome = run_plan(make_plan(tmp_path, 4), platform, journal)
    assert platform.most_alive == 2
    assert {task for _, task in platform.created[:2]} == {"t3", "t2"}
    best = (10 + 13, 11 + 12)
    assert outcome.seconds <= 1.1 * max(best)


@pytest.mark.parametrize("limits", [{"max_parallel_endpoints": 1}, {"max_gpus": 1}])
def test_limits_of_the_config_hold(tmp_path: Path, journal: Journal, limits: dict[str, int]):
    platform = FakePlatform()
    assert run_plan(make_plan(tmp_path, limits=limits), platform, journal).exit_code == 0
    assert platform.most_alive == 1


def test_max_duration_ends_the_run_and_keeps_what_was_scored(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"t0": Script(lasts=5), "t1": Script(lasts=1000)})
    outcome = run_plan(make_plan(tmp_path, 2, limits={"max_duration": 60}), platform, journal)
    assert reasons(outcome) == {"t0": Reason.COMPLETED, "t1": Reason.LIMIT_REACHED}
    assert outcome.exit_code == 9 and platform.left == []


def test_status_follows_the_journal(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"t1": Script(reason="harness_failed")})
    run_plan(make_plan(tmp_path, 2), platform, journal)
    status = of(journal, journal.find("a12"))
    assert status.state == "finished" and status.exit_code == 4
    assert [(t.task, t.phase, t.reason, t.alive) for t in status.tasks] == [
        ("t0", "ended", "completed", False),
        ("t1", "ended", "harness_failed", False),
    ]


def test_a_hundred_tasks_take_as_long_as_the_slowest_and_one_look_serves_all(tmp_path: Path, journal: Journal):
    scripts = {f"t{i}": Script(boot=1.0 + i % 7, lasts=5.0 + i % 11) for i in range(100)}
    platform = FakePlatform(scripts)
    outcome = run_plan(make_plan(tmp_path, 100), platform, journal)
    assert outcome.exit_code == 0
    slowest = max((script.boot or 0) + (script.lasts or 0) for script in scripts.values())
    assert outcome.seconds <= 1.05 * slowest + 2


def test_an_endpoint_that_shows_again_after_its_task_is_over_is_removed(tmp_path: Path, journal: Journal) -> None:
    plan = make_plan(tmp_path, 2)
    platform = FakePlatform({"t0": Script(lasts=5.0), "t1": Script(lasts=60.0)})
    run = Run(plan, platform, journal)

    async def scenario() -> RunOutcome:
        running = asyncio.create_task(run.run())
        await asyncio.sleep(20.0)
        first = platform.endpoints[str(plan.tasks[0].endpoint and plan.tasks[0].endpoint.name)]
        assert run.tasks[0].done
        assert first.gone_at is not None
        first.gone_at = None
        return await running

    outcome = run_virtual(scenario())

    assert (outcome.exit_code, platform.left) == (0, [])


def test_a_defect_of_the_launcher_leaves_nothing_without_asking_it_to_go(tmp_path: Path, journal: Journal) -> None:
    class Defective(Run):
        async def _tick(self) -> None:
            await super()._tick()
            if all(task.job_submitted for task in self.tasks):
                raise ValueError("a defect")

    platform = FakePlatform({f"t{number}": Script(lasts=None) for number in range(3)})
    with pytest.raises(ValueError, match="a defect"):
        run_virtual(Defective(make_plan(tmp_path), platform, journal).run())

    assert len(platform.created) == 3
    assert sorted(task for _, task in platform.deleted) == ["t0", "t1", "t2"]
    assert all(job.gone_at is not None for job in platform.jobs.values())


@pytest.mark.parametrize("late", [None, EndpointProblem(Ending.ENDPOINT_START_TIMEOUT, "late")])
def test_a_probe_of_an_attempt_that_is_over_says_nothing_of_the_next_one(
    late: EndpointProblem | None, tmp_path: Path, journal: Journal
):
    run = Run(make_plan(tmp_path, 1), FakePlatform(), journal)
    (task,) = run.tasks
    answered = asyncio.Event()

    class Slow:
        async def answers(self, task):
            await answered.wait()
            if late is not None:
                raise late

    run._probes = Slow()  # type: ignore[assignment]

    async def scenario() -> None:
        probing = asyncio.create_task(run._probe(task))
        await asyncio.sleep(1)
        task.begin_attempt(2, task.plan, 0.0)
        answered.set()
        await probing

    run_virtual(scenario())
    assert (task.attempt, task.ready, task.reason) == (2, False, None)
