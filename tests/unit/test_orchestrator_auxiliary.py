"""Judges and the like: made with the first task that needs one, gone with the last, told apart when they fail."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from launcher.config.validate import validate
from launcher.orchestrator import journal as journals
from launcher.orchestrator import recover, run
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.run import Run
from launcher.orchestrator.state import RunOutcome, TaskState
from launcher.orchestrator.status import of
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.platforms.base import Capacity
from launcher.results import timeline, write
from launcher.runner.client import Ending, EndpointProblem
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform, Script
from tests.unit.test_orchestrator_shared import Adopting, Dying, until_killed

JUDGE, SECOND = "container-judge-3-a1234567", "container-judge-3r2-a1234567"


def judged_plan(
    folder: Path, *, uses: dict[str, list[str]] | None = None, price: float | None = None, **limits
) -> Plan:
    served = {"type": "container", "model_id": "m", "command": "serve {port}", "gpus": 1, "start_timeout": 400}
    return build(
        validate(
            {
                "execution": {"type": "local", "output_dir": str(folder), "usd_per_gpu_hour": price},
                "deployment": served,
                "auxiliary": {"judge": {"deployment": {**served, "model_id": "wise", "gpus": 2}}},
                "evaluation": {
                    "harness": "command",
                    "command": ["bench"],
                    "tasks": [{"name": f"t{i}", "auxiliary": (uses or {}).get(f"t{i}")} for i in range(3)],
                    "timeout": 1000,
                },
                "limits": {"max_attempts": 1, **limits},
            }
        ),
        "a1234567",
    )


@dataclass
class FakeProbes:
    """Stands in for orchestrator.probing.Probes: an endpoint of the platform answers once it has booted."""

    platform: FakePlatform
    stopped: set[str] = field(default_factory=set)

    async def answers(self, task: TaskState) -> None:
        assert task.plan.endpoint is not None
        thing = self.platform.endpoints[task.plan.endpoint.name]
        boot = self.platform._script(thing).boot
        wait = task.plan.target.start_timeout if boot is None else boot
        await asyncio.sleep(max(0.0, thing.begun + wait - asyncio.get_running_loop().time()))
        if boot is None:
            raise EndpointProblem(Ending.ENDPOINT_START_TIMEOUT, "GET /health: connection refused")

    def stop(self, key: str) -> None:
        self.stopped.add(key)

    def stop_all(self) -> None:
        """Nothing: they end with the loop."""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "journal.db")


@pytest.fixture
def probing(monkeypatch: pytest.MonkeyPatch):
    def probe(platform: FakePlatform) -> FakePlatform:
        monkeypatch.setattr(run, "Probes", lambda _invocation, platform: FakeProbes(platform))
        return platform

    return probe


def run_judged(plan: Plan, platform: FakePlatform, journal: Journal, *, stop_at: float | None = None) -> RunOutcome:
    live = Run(plan, platform, journal)

    async def scenario() -> RunOutcome:
        if stop_at is not None:
            asyncio.get_running_loop().call_later(stop_at, live.stop)
        outcome = await live.run()
        live.conclude(outcome)
        return outcome

    outcome = run_virtual(scenario())
    assert platform.left == []
    return outcome


def reasons(outcome: RunOutcome) -> list[Reason]:
    return [task.reason for task in outcome.tasks]


def moment(moments: list[tuple[float, str]], task: str) -> float:
    return next(at for at, name in moments if name == task)


# --- its life ---------------------------------------------------------------------------------------------------------


def test_it_is_made_beside_the_tasks_own_endpoints_and_goes_with_the_last_task(tmp_path, journal, probing):
    platform = probing(FakePlatform({"t0": Script(lasts=5), "t1": Script(lasts=60), "judge": Script(boot=20)}))
    outcome = run_judged(judged_plan(tmp_path), platform, journal)
    assert outcome.exit_code == 0 and outcome.auxiliary[0].reason is Reason.RELEASED
    assert platform.asked.count(JUDGE) == 1 and moment(platform.created, "judge") < 1
    assert moment(platform.deleted, "t0") == pytest.approx(25, abs=1)  # its judge answered at 20
    assert moment(platform.deleted, "judge") == pytest.approx(80, abs=1)


def test_it_goes_when_the_last_task_that_uses_it_is_scored_while_others_go_on(tmp_path, journal, probing):
    platform = probing(FakePlatform({"t0": Script(lasts=5), "t1": Script(lasts=9), "t2": Script(lasts=90)}))
    outcome = run_judged(judged_plan(tmp_path, uses={"t2": []}), platform, journal)
    assert outcome.exit_code == 0
    assert moment(platform.deleted, "judge") == pytest.approx(10, abs=1.5)


def test_one_that_no_task_uses_is_not_made_and_a_note_says_so(tmp_path, journal):
    plan = judged_plan(tmp_path, uses={f"t{i}": [] for i in range(3)})
    assert plan.auxiliary == () and "auxiliary.judge is used by no task, and is not deployed" in plan.notes
    platform = FakePlatform()
    assert run_judged(plan, platform, journal).exit_code == 0 and len(platform.asked) == 3


def test_a_task_waits_until_there_is_room_for_it_and_its_judge(tmp_path, journal, probing):
    platform = probing(FakePlatform(capacity=Capacity(gpus=3)))
    outcome = run_judged(judged_plan(tmp_path, uses={"t0": []}), platform, journal)
    assert outcome.exit_code == 0 and platform.most_alive == 2  # 2 GPUs are the judge's, t0 goes before or after it
    users = [moment(platform.created, name) for name in ("t1", "t2")]
    assert min(users) == pytest.approx(moment(platform.created, "judge"), abs=0.1)


def test_a_stop_removes_it_with_everything_else(tmp_path, journal, probing):
    platform = probing(FakePlatform({"judge": Script(boot=50)}))
    outcome = run_judged(judged_plan(tmp_path), platform, journal, stop_at=5)
    assert outcome.exit_code == 130 and {*reasons(outcome), outcome.auxiliary[0].reason} == {Reason.STOPPED}


# --- its failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (Script(create_fails=True), "endpoint not created: no capacity"),
        (Script(boot=None), "endpoint start timeout: GET /health"),
        (Script(boot=9, endpoint_dies_after=3), "endpoint exited: exit code 137"),
    ],
    ids=["not created", "never answers", "dies while it starts"],
)
def test_one_that_does_not_start_ends_its_tasks_alone(tmp_path, journal, probing, script: Script, words: str):
    platform = probing(FakePlatform({"judge": script}))
    outcome = run_judged(judged_plan(tmp_path, uses={"t2": []}, max_attempts=3), platform, journal)
    assert reasons(outcome) == [Reason.AUXILIARY_FAILED, Reason.AUXILIARY_FAILED, Reason.COMPLETED]
    assert outcome.exit_code == 4 and platform.asked.count(JUDGE) == 1
    assert outcome.tasks[0].detail.startswith(f"judge: {words}")
    assert outcome.tasks[0].evidence.auxiliary == (f"last words of {JUDGE}",)


def test_when_it_dies_its_tasks_are_tried_again_on_a_new_one(tmp_path, journal, probing):
    scripts = {JUDGE: Script(endpoint_dies_after=30), "t0": Script(lasts=5), "t1": Script(lasts=40)}
    platform = probing(FakePlatform({**scripts, "t2": Script(lasts=40)}))
    outcome = run_judged(judged_plan(tmp_path, uses={"t2": []}, max_attempts=2), platform, journal)
    assert reasons(outcome) == [Reason.COMPLETED] * 3
    assert [attempt.reason for attempt in outcome.tasks[1].attempts] == [Reason.AUXILIARY_DIED]
    assert not outcome.tasks[0].attempts and not outcome.tasks[2].attempts
    assert [name for name in platform.asked if "judge" in name] == [JUDGE, SECOND]
    assert [attempt.reason for attempt in outcome.auxiliary[0].attempts] == [Reason.ENDPOINT_DIED]


def test_when_it_dies_and_gets_no_further_attempt_neither_do_its_tasks(tmp_path, journal, probing):
    dies = Script(endpoint_dies_after=30)
    platform = probing(FakePlatform({"judge": dies, **{f"t{i}": Script(lasts=40) for i in range(3)}}))
    outcome = run_judged(judged_plan(tmp_path, max_attempts=2), platform, journal)
    assert reasons(outcome) == [Reason.AUXILIARY_DIED] * 3
    assert {len(task.attempts) for task in outcome.tasks} == {1}


def test_a_task_that_failed_for_another_reason_finds_the_judge_still_there(tmp_path, journal, probing):
    plan = judged_plan(tmp_path, uses={"t1": [], "t2": []}, max_attempts=2)
    platform = probing(FakePlatform({"eval-t0-0-a1234567": Script(lasts=3, silent_end=True)}))
    outcome = run_judged(plan, platform, journal)
    assert reasons(outcome) == [Reason.COMPLETED] * 3 and platform.asked.count(JUDGE) == 1
    assert moment(platform.deleted, "judge") >= moment(platform.submitted[::-1], "t0")


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_its_time_and_price_are_its_own_and_count_for_limits_once(tmp_path, journal, probing):
    plan = judged_plan(tmp_path, price=3600.0)
    platform = probing(FakePlatform({"t0": Script(lasts=5), "t1": Script(lasts=60), "t2": Script(lasts=5)}))
    outcome = run_judged(plan, platform, journal)
    (judge,) = outcome.auxiliary
    assert judge.gpu_seconds == pytest.approx(2 * 62, abs=3) and judge.usd == pytest.approx(judge.gpu_seconds)
    assert outcome.tasks[0].gpu_seconds == pytest.approx(7, abs=1.5)
    record = write.build(plan, outcome)
    assert [(one.name, one.tasks, one.reason) for one in record.auxiliary] == [
        ("judge", ["t0", "t1", "t2"], "released")
    ]
    assert plan.worst_case.gpu_hours == pytest.approx((3 * 1 + 2) * (2 * 700 + 1000) / 3600 + 2 * 700 / 3600, abs=0.01)


def test_a_limit_on_gpu_time_counts_it(tmp_path, journal, probing):
    platform = probing(FakePlatform({f"t{i}": Script(lasts=500) for i in range(3)}))
    outcome = run_judged(judged_plan(tmp_path, max_gpu_hours=5 * 100 / 3600), platform, journal)
    assert outcome.ended_by is Reason.LIMIT_REACHED
    assert moment(platform.deleted, "judge") == pytest.approx(100, abs=2)


# --- what is told of it -----------------------------------------------------------------------------------------------


def test_status_and_time_line_show_it_as_what_it_is(tmp_path, journal, probing):
    platform = probing(FakePlatform())
    run_judged(judged_plan(tmp_path), platform, journal)
    status = of(journal, journal.find("a1234567"))
    judge = status.tasks[-1]
    assert (judge.task, judge.reason, judge.alive, judge.is_auxiliary) == ("judge", "released", False, True)
    assert journal.find("a1234567").tasks == ("t0", "t1", "t2")
    spans = {span.name: span for span in timeline.of(journal, journal.find("a1234567")).spans}
    assert spans[JUDGE].users == ["t0", "t1", "t2"] and spans[JUDGE].ready is not None and spans[JUDGE].gpus == 2


def test_jobs_are_told_where_it_is(tmp_path, journal, probing):
    platform = probing(FakePlatform())
    told: list[str | None] = []

    async def submit(task, spec, url, original=platform.submit_job):
        told.append(task.auxiliary["judge"].url)
        return await original(task, spec, url)

    platform.submit_job = submit
    run_judged(judged_plan(tmp_path), platform, journal)
    assert told == [f"http://{JUDGE}"] * 3


# --- a launcher that dies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("facts", range(1, 50, 4))
@pytest.mark.parametrize("ends", [False, True], ids=["resumed", "resumed-and-stopped"])
def test_a_launcher_that_dies_at_any_fact_leaves_nothing_and_loses_nothing(
    tmp_path, monkeypatch, probing, facts: int, ends: bool
):
    for module in (journals, recover):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: asyncio.get_running_loop().time()))
    plan = judged_plan(tmp_path, uses={"t2": []}, max_attempts=2)
    scripts = {JUDGE: Script(endpoint_dies_after=30), "t0": Script(lasts=5), "t1": Script(lasts=40)}
    platform = probing(Adopting({name: dataclasses.replace(script) for name, script in scripts.items()}))
    journal = Dying(tmp_path / "journal.db")
    journal.facts_left, journal.killed = facts, asyncio.Event()

    async def both() -> RunOutcome:
        await until_killed(Run(plan, platform, journal), journal)
        journal.facts_left = float("inf")
        again = Run(plan, platform, journal, facts=journal.facts(plan.invocation))
        if ends:
            again.stop()
        outcome = await again.run()
        again.conclude(outcome)
        return outcome

    outcome = run_virtual(both())
    journal.close()
    assert platform.left == [] and outcome.leftovers == []
    assert len(set(platform.asked)) == len(platform.asked)
    if not ends:
        assert set(reasons(outcome)) == {Reason.COMPLETED}


def test_a_run_that_failed_for_its_judge_gets_a_new_one_when_it_is_resumed(tmp_path, journal, probing):
    plan = judged_plan(tmp_path, uses={"t2": []})
    platform = probing(FakePlatform({JUDGE: Script(create_fails=True)}))
    assert reasons(run_judged(plan, platform, journal)) == [Reason.AUXILIARY_FAILED] * 2 + [Reason.COMPLETED]
    again = Run(plan, platform, journal, facts=journal.facts(plan.invocation))
    outcome = run_virtual(again.run())
    assert reasons(outcome) == [Reason.COMPLETED] * 3 and platform.asked[-3:].count(SECOND) == 1
    assert platform.left == []


def test_a_resumed_run_whose_scores_are_all_home_makes_no_new_one(tmp_path, journal, probing):
    plan = judged_plan(tmp_path)
    platform = probing(FakePlatform())
    run_judged(plan, platform, journal)
    outcome = run_virtual(Run(plan, platform, journal, facts=journal.facts(plan.invocation)).run())
    assert outcome.exit_code == 0 and platform.asked.count(JUDGE) == 1 and len(platform.asked) == 4
    assert outcome.auxiliary[0].reason is Reason.RELEASED


def test_on_a_platform_where_all_ends_with_the_launcher_it_is_made_anew(tmp_path, monkeypatch, probing):
    for module in (journals, recover):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: asyncio.get_running_loop().time()))
    plan = judged_plan(tmp_path)
    first = probing(FakePlatform(close_ends_all=True, close_ends_jobs=True))
    journal = Dying(tmp_path / "journal.db")
    journal.facts_left, journal.killed = 18, asyncio.Event()
    run_virtual(until_killed(Run(plan, first, journal), journal))
    journal.facts_left = float("inf")
    second = probing(FakePlatform(close_ends_all=True, close_ends_jobs=True))
    outcome = run_virtual(Run(plan, second, journal, facts=journal.facts(plan.invocation)).run())
    assert reasons(outcome) == [Reason.COMPLETED] * 3 and SECOND in second.asked
    assert any(fact.kind is Fact.TASK_RETRY and fact.task == "judge" for fact in journal.facts(plan.invocation))


def test_evidence_of_a_failed_judge_is_in_the_record(tmp_path, journal, probing):
    plan = judged_plan(tmp_path)
    outcome = run_judged(plan, probing(FakePlatform({"judge": Script(boot=9, endpoint_dies_after=3)})), journal)
    record = json.loads(msgspec.json.encode(write.build(plan, outcome)))
    assert record["tasks"][0]["evidence"]["auxiliary"] == [f"last words of {JUDGE}"]
    assert record["auxiliary"][0]["evidence"] == {"endpoint": [f"last words of {JUDGE}"]}
