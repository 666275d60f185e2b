"""One endpoint for all tasks of a run: made once, gone with the last, replaced when it dies, paid for once."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.config.validate import validate
from launcher.errors import PlatformError
from launcher.orchestrator import journal as journals
from launcher.orchestrator import recover
from launcher.orchestrator.journal import Entry, Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.run import DELETE_PATIENCE, Run
from launcher.orchestrator.state import EndpointClock, RunOutcome, TaskState
from launcher.orchestrator.status import of
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.plan.render import render
from launcher.platforms.base import Capacity, Observation, Resource
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform, Script

FIRST, SECOND = "container-shared-0-a1234567", "container-shared-0r2-a1234567"


def shared_plan(folder: Path, count: int = 3, *, metered: bool = False, price: float | None = None, **limits) -> Plan:
    tree = {
        "execution": {"type": "local", "output_dir": str(folder), "usd_per_gpu_hour": price},
        "deployment": {
            "type": "container",
            "model_id": "m",
            "command": "serve {port}",
            "gpus": 1,
            "sharing": "shared",
            "start_timeout": 400,
            "health_timeout": 10,
        },
        "evaluation": {
            "harness": "command",
            "command": ["bench"],
            "tasks": [{"name": f"t{index}"} for index in range(count)],
            "timeout": 1000,
        },
        "limits": {"max_attempts": 1, **limits},
    }
    plan = build(validate(tree), "a1234567")
    if not metered:
        return plan
    endpoint = dataclasses.replace(plan.endpoints[0], is_metered=True)
    return dataclasses.replace(plan, tasks=tuple(dataclasses.replace(t, endpoint=endpoint) for t in plan.tasks))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "journal.db")


def run_shared(plan: Plan, platform: FakePlatform, journal: Journal, *, stop_at: float | None = None) -> RunOutcome:
    run = Run(plan, platform, journal)

    async def scenario() -> RunOutcome:
        if stop_at is not None:
            asyncio.get_running_loop().call_later(stop_at, run.stop)
        outcome = await run.run()
        run.conclude(outcome)
        return outcome

    outcome = run_virtual(scenario())
    assert platform.left == [] or outcome.leftovers
    return outcome


def reasons(outcome: RunOutcome) -> dict[str, Reason]:
    return {task.key: task.reason for task in outcome.tasks}


def endpoint_time(platform: FakePlatform) -> float:
    """Seconds that endpoints existed, as the platform knows it."""
    return sum((thing.gone_at or 0.0) - thing.begun for thing in platform.endpoints.values())


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_all_tasks_of_a_plan_name_one_endpoint_that_is_counted_and_shown_once(tmp_path: Path):
    plan = shared_plan(tmp_path, price=2.0)
    assert {task.endpoint.name for task in plan.tasks if task.endpoint} == {FIRST}
    assert plan.endpoints[0].is_shared and len(plan.endpoints) == 1
    assert plan.worst_case.gpu_hours == pytest.approx((400 + 10 + 1000) / 3600, abs=1e-3)
    text = render(plan)
    assert text.count("command   serve") == 1
    assert "1 endpoint and 3 jobs" in text and text.count(f"{FIRST}: shared by all tasks, 1 GPU") == 1


def test_endpoints_are_dedicated_unless_the_config_says_otherwise(tmp_path: Path):
    config = shared_plan(tmp_path).config
    del config["deployment"]["sharing"]
    plan = build(validate({**config, "export": {}, "notify": {}}), "a1234567")
    assert len(plan.endpoints) == 3 and not any(endpoint.is_shared for endpoint in plan.endpoints)


# --- its life ---------------------------------------------------------------------------------------------------------


def test_it_is_created_once_all_jobs_run_side_by_side_and_it_goes_with_the_last(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"t0": Script(lasts=5), "t1": Script(lasts=60), "t2": Script(lasts=20)})
    outcome = run_shared(shared_plan(tmp_path), platform, journal)
    assert outcome.exit_code == 0 and platform.asked == [FIRST]
    assert max(at for at, _ in platform.submitted) < 1
    assert [at for at, _ in platform.deleted] == [pytest.approx(61, abs=1)]
    ended = {fact.task: fact.time for fact in journal.facts("a1234567") if fact.kind is Fact.TASK_GONE}
    assert list(ended) == ["t0", "t2", "t1"]
    left = {f.task for f in journal.facts("a1234567") if f.kind is Fact.TASK_GONE and f.data.get("left")}
    assert left == {"t0", "t2"}


def test_evidence_of_every_task_is_home_before_it_goes(tmp_path: Path, journal: Journal):
    outcome = run_shared(shared_plan(tmp_path, 2), FakePlatform({"shared": Script(endpoint_dies_after=5)}), journal)
    for task in outcome.tasks:
        assert task.reason is Reason.ENDPOINT_DIED
        assert task.evidence.endpoint == (f"last words of {FIRST}",)
    kinds = [fact.kind for fact in journal.facts("a1234567")]
    assert max(i for i, kind in enumerate(kinds) if kind is Fact.TASK_COLLECTED) < kinds.index(
        Fact.INTEND_DELETE_ENDPOINT
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(reason="harness_failed"), Reason.HARNESS_FAILED),
        (Script(silent_end=True), Reason.JOB_LOST),
        (Script(submit_fails=True), Reason.JOB_NOT_SUBMITTED),
        (Script(results="{bad"), Reason.RESULTS_INVALID),
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else "",
)
def test_the_fault_of_one_task_takes_it_from_nobody(tmp_path: Path, journal: Journal, script: Script, reason: Reason):
    platform = FakePlatform({"t1": script, "t0": Script(lasts=50), "t2": Script(lasts=50)})
    outcome = run_shared(shared_plan(tmp_path), platform, journal)
    assert reasons(outcome) == {"t0": Reason.COMPLETED, "t1": reason, "t2": Reason.COMPLETED}
    assert platform.asked == [FIRST] and len(platform.deleted) == 1


def test_what_cannot_be_created_is_asked_for_once_and_ends_all_tasks(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"shared": Script(create_fails=True)})
    outcome = run_shared(shared_plan(tmp_path), platform, journal)
    assert set(reasons(outcome).values()) == {Reason.ENDPOINT_NOT_CREATED} and platform.asked == [FIRST]
    assert {task.detail for task in outcome.tasks} == {"no capacity"}


def test_a_lost_answer_leaves_nothing(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"shared": Script(created_but_unheard=True)})
    outcome = run_shared(shared_plan(tmp_path), platform, journal)
    assert set(reasons(outcome).values()) == {Reason.ENDPOINT_NOT_CREATED} and platform.left == []


def test_it_occupies_its_gpus_once(tmp_path: Path, journal: Journal):
    platform = FakePlatform(capacity=Capacity(gpus=1))
    outcome = run_shared(shared_plan(tmp_path, 5, max_parallel_endpoints=1, max_gpus=1), platform, journal)
    assert outcome.exit_code == 0 and max(at for at, _ in platform.submitted) < 1


def test_tasks_are_let_in_together_even_where_it_is_too_large(tmp_path: Path, journal: Journal):
    platform = FakePlatform(capacity=Capacity(gpus=0))
    assert run_shared(shared_plan(tmp_path), platform, journal).exit_code == 0
    assert max(at for at, _ in platform.submitted) < 1


def test_what_refuses_to_go_is_left_over_once(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"shared": Script(delete_refusals=10**6)})
    outcome = run_shared(shared_plan(tmp_path), platform, journal)
    assert outcome.leftovers == [FIRST] and outcome.exit_code == 5
    assert outcome.seconds < 11 + DELETE_PATIENCE + 5


@pytest.mark.parametrize("at", [0.0, 0.005, 0.015, 0.5, 3.0, 11.2, 11.6])
def test_stop_is_valid_in_every_state_and_leaves_nothing(tmp_path: Path, journal: Journal, at: float):
    platform = FakePlatform({"t1": Script(lasts=11)})
    outcome = run_shared(shared_plan(tmp_path, max_attempts=2), platform, journal, stop_at=at)
    assert platform.left == [] and outcome.exit_code == 130 and outcome.seconds < 15


class JobsStay(FakePlatform):
    """Its jobs do not go."""

    async def cancel_job(self, name: str) -> None:
        raise PlatformError("not now")


class FallsSilent(FakePlatform):
    """From second 5 on nobody can see what exists; what is asked for is done."""

    async def observe(self) -> Observation:
        if asyncio.get_running_loop().time() > 5:
            raise PlatformError("no answer")
        return await super().observe()


@pytest.mark.parametrize("kind", [JobsStay, FallsSilent])
@pytest.mark.parametrize("ends", ["on request", "at a limit"])
def test_it_is_asked_to_go_at_once_though_no_job_is_seen_to_go(
    tmp_path: Path, journal: Journal, kind: type[FakePlatform], ends: str
):
    """Each of its tasks holds it until its job is gone: they must not wait for one another."""
    platform = kind({f"t{index}": Script(lasts=500) for index in range(3)})
    plan = shared_plan(tmp_path, max_attempts=3, **({"max_gpu_hours": 20 / 3600} if ends == "at a limit" else {}))
    outcome = run_shared(plan, platform, journal, stop_at=20 if ends == "on request" else None)
    assert [at for at, _ in platform.deleted] == [pytest.approx(20, abs=1)]
    assert outcome.exit_code == 5 and {f"eval-t{index}-{index}-a1234567" for index in range(3)} <= {*outcome.leftovers}
    assert (FIRST in outcome.leftovers) == (kind is FallsSilent)


def test_a_job_that_does_not_go_takes_it_from_nobody_who_still_needs_it(tmp_path: Path, journal: Journal):
    stays = {f"t{index}": Script(lasts=3, reason="harness_failed") for index in range(2)}
    platform = JobsStay({**stays, "t2": Script(lasts=60)})
    outcome = run_shared(shared_plan(tmp_path), platform, journal)
    assert reasons(outcome)["t2"] is Reason.COMPLETED
    assert [at for at, _ in platform.deleted] == [pytest.approx(61, abs=1)]


def test_status_shows_it_with_the_tasks_that_hold_it(tmp_path: Path, journal: Journal):
    plan = shared_plan(tmp_path, 2)
    seen: list[list[bool | None]] = []

    class Watched(FakePlatform):
        async def observe(self):
            if asyncio.get_running_loop().time() > 20:
                seen.append([task.alive for task in of(journal, journal.find("a12")).tasks])
            return await super().observe()

    run_shared(plan, Watched({"t0": Script(lasts=5), "t1": Script(lasts=30)}), journal)
    assert seen[0] == [False, True]


# --- another one in its place -----------------------------------------------------------------------------------------


def test_when_it_dies_all_tasks_get_their_next_attempt_on_one_new_endpoint(tmp_path: Path, journal: Journal):
    platform = FakePlatform({FIRST: Script(endpoint_dies_after=5), "t1": Script(lasts=30)})
    outcome = run_shared(shared_plan(tmp_path, max_attempts=2), platform, journal)
    assert outcome.exit_code == 0 and platform.asked == [FIRST, SECOND] and platform.most_alive == 1
    for task in outcome.tasks:
        assert [past.reason for past in task.attempts] == [Reason.ENDPOINT_DIED]
    assert platform.endpoints[FIRST].gone_at < platform.endpoints[SECOND].begun


def test_a_job_that_is_lost_gets_its_next_attempt_on_the_same_endpoint(tmp_path: Path, journal: Journal):
    lost, again = "eval-t1-1-a1234567", "eval-t1-1r2-a1234567"
    platform = FakePlatform({lost: Script(lasts=3, silent_end=True), again: Script(lasts=5), "t0": Script(lasts=60)})
    outcome = run_shared(shared_plan(tmp_path, 2, max_attempts=2), platform, journal)
    assert outcome.exit_code == 0 and platform.asked == [FIRST]
    assert platform.jobs[again].uses == FIRST


def test_it_waits_for_the_next_attempt_of_the_only_task_left(tmp_path: Path, journal: Journal):
    lost = "eval-t1-1-a1234567"
    platform = FakePlatform({lost: Script(lasts=20, silent_end=True), "t0": Script(lasts=2)})
    outcome = run_shared(shared_plan(tmp_path, 2, max_attempts=2), platform, journal)
    assert outcome.exit_code == 0 and platform.asked == [FIRST] and len(platform.deleted) == 1


def test_a_task_that_waits_for_its_next_attempt_does_not_hold_up_the_end_of_others(tmp_path: Path, journal: Journal):
    lost = "eval-t1-1-a1234567"
    platform = FakePlatform({lost: Script(lasts=2, silent_end=True), "t0": Script(lasts=4)})
    run_shared(shared_plan(tmp_path, 2, max_attempts=2), platform, journal)
    kinds = [(fact.kind, fact.task) for fact in journal.facts("a1234567")]
    assert kinds.index((Fact.TASK_GONE, "t0")) < len(kinds) - 1 - kinds[::-1].index((Fact.INTEND_SUBMIT_JOB, "t1"))


def test_it_dies_while_a_task_waits_for_its_next_attempt_on_it(tmp_path: Path, journal: Journal):
    lost = "eval-t1-1-a1234567"
    platform = FakePlatform(
        {
            lost: Script(lasts=2, silent_end=True),
            FIRST: Script(endpoint_dies_after=6),
            "t0": Script(lasts=30),
        }
    )
    outcome = run_shared(shared_plan(tmp_path, 2, max_attempts=3), platform, journal)
    assert outcome.exit_code == 0 and platform.asked == [FIRST, SECOND] and platform.most_alive == 1
    assert platform.jobs["eval-t0-0r2-a1234567"].uses == SECOND
    assert platform.jobs["eval-t1-1r3-a1234567"].uses == SECOND


def test_without_a_further_attempt_its_death_ends_all_tasks_and_a_dead_start_is_not_tried_again(
    tmp_path: Path, journal: Journal
):
    platform = FakePlatform({"shared": Script(endpoint_dies_after=0.5)})
    outcome = run_shared(shared_plan(tmp_path, max_attempts=3), platform, journal)
    assert set(reasons(outcome).values()) == {Reason.ENDPOINT_EXITED} and platform.asked == [FIRST]


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_its_time_and_price_are_divided_among_its_tasks_so_that_the_sum_is_exact(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"t0": Script(lasts=5), "t1": Script(lasts=60), "t2": Script(lasts=20)})
    outcome = run_shared(shared_plan(tmp_path, price=3.6), platform, journal)
    existed = endpoint_time(platform)
    assert {round(task.gpu_seconds, 6) for task in outcome.tasks} == {round(outcome.tasks[0].gpu_seconds, 6)}
    assert sum(task.gpu_seconds for task in outcome.tasks) == pytest.approx(existed, abs=0.3)
    assert sum(task.usd or 0.0 for task in outcome.tasks) == pytest.approx(existed / 1000, abs=0.001)


def test_its_meter_is_read_once_over_all_generations(tmp_path: Path, journal: Journal):
    platform = FakePlatform(
        {FIRST: Script(endpoint_dies_after=5), "t1": Script(lasts=30)}, poll_interval=0.1, usd_per_second=0.01
    )
    outcome = run_shared(shared_plan(tmp_path, metered=True, max_attempts=2), platform, journal)
    assert platform.asked == [FIRST, SECOND]
    assert sum(task.usd or 0.0 for task in outcome.tasks) == pytest.approx(0.01 * endpoint_time(platform), abs=0.01)


def test_a_limit_on_gpu_time_counts_it_once(tmp_path: Path, journal: Journal):
    platform = FakePlatform({"t0": Script(lasts=5), "t1": Script(lasts=500), "t2": Script(lasts=500)})
    outcome = run_shared(shared_plan(tmp_path, max_gpu_hours=0.02), platform, journal)
    assert outcome.exit_code == 9 and reasons(outcome)["t0"] is Reason.COMPLETED
    assert 72.0 <= sum(task.gpu_seconds for task in outcome.tasks) <= 74.0


def test_a_clock_without_users_costs_nobody_anything():
    clock = EndpointClock(name=FIRST, started_at=0.0, usd=1.0)
    assert (clock.seconds(60.0), clock.share_usd()) == (0.0, None)


def test_a_meter_that_has_said_nothing_costs_nothing_known(tmp_path: Path):
    task = TaskState(plan=shared_plan(tmp_path, 1, metered=True).tasks[0])
    task.use(EndpointClock(name=FIRST, started_at=0.0))
    assert task.usd(60.0, 2.0) is None
    task.note_cost(0.4)
    task.note_cost(None)
    assert task.usd(60.0, 2.0) == 0.4


# --- crashes ----------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands in for SIGKILL."""


class Dying(Journal):
    """A journal whose launcher is killed when it has written so many facts."""

    facts_left: float = float("inf")
    killed: asyncio.Event

    def record_all(self, invocation, entries):
        self.facts_left -= len(entries)
        if self.facts_left < 0:
            self.killed.set()
            raise Crash
        super().record_all(invocation, entries)


class Adopting(FakePlatform):
    """What exists under a name is returned."""

    async def create_endpoint(self, task, spec) -> Resource:
        there = self.endpoints.get(spec.name)
        return self._endpoint(there) if there is not None else await super().create_endpoint(task, spec)

    async def submit_job(self, task, spec, url) -> Resource:
        there = self.jobs.get(spec.name)
        return self._job(there) if there is not None else await super().submit_job(task, spec, url)


SCRIPTS = {
    FIRST: Script(endpoint_dies_after=30),
    "t0": Script(lasts=5),
    "t1": Script(lasts=40),
    "eval-t2-2-a1234567": Script(lasts=3, silent_end=True),
}


@pytest.mark.parametrize("facts", range(1, 46, 4))
@pytest.mark.parametrize("ends", [False, True], ids=["resumed", "resumed-and-stopped"])
def test_a_launcher_that_dies_at_any_fact_leaves_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: int, ends: bool
):
    for module in (journals, recover):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: asyncio.get_running_loop().time()))
    plan = shared_plan(tmp_path, max_attempts=2)
    platform = Adopting({name: dataclasses.replace(script) for name, script in SCRIPTS.items()})
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
    assert platform.left == [] and outcome.leftovers == [] and platform.most_alive <= 1
    assert len(set(platform.asked)) == len(platform.asked)
    if not ends:
        assert set(reasons(outcome).values()) == {Reason.COMPLETED}
    beyond = sum(task.gpu_seconds for task in outcome.tasks) - endpoint_time(platform)
    assert -0.5 <= beyond <= platform.create_grace + 0.5  # what is gone counts until that is certain


async def until_killed(run: Run, journal: Dying) -> None:
    """Of what it was about to do nothing happens."""
    running, killed = asyncio.ensure_future(run.run()), asyncio.ensure_future(journal.killed.wait())
    await asyncio.wait({running, killed}, return_when=asyncio.FIRST_COMPLETED)
    assert journal.killed.is_set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_resumed_run_uses_the_endpoint_that_still_lives(tmp_path: Path):
    plan = shared_plan(tmp_path, 2)
    facts = [
        Entry(time=0.0, kind=Fact.INTEND_CREATE_ENDPOINT, task="t0", name=FIRST),
        Entry(time=0.1, kind=Fact.ENDPOINT_CREATED, task="t0", name=FIRST),
    ]
    platform, journal = Adopting(), Journal(tmp_path / "journal.db")

    async def scenario() -> RunOutcome:
        await platform.create_endpoint(plan.tasks[0], plan.endpoints[0])
        return await Run(plan, platform, journal, facts=facts).run()

    outcome = run_virtual(scenario())
    assert outcome.exit_code == 0 and platform.asked == [FIRST] and platform.left == []
    assert len({task.gpu_seconds for task in outcome.tasks}) == 1


class Lags(Adopting):
    """For its first seconds a launcher's lists do not show the endpoint."""

    async def observe(self) -> Observation:
        seen = await super().observe()
        return dataclasses.replace(seen, endpoints={}) if asyncio.get_running_loop().time() < 4 else seen


@pytest.mark.parametrize("stop_at", [None, 2.0])
def test_a_task_that_joins_an_endpoint_which_lists_do_not_show_yet_does_not_take_it_for_gone(
    tmp_path: Path, journal: Journal, stop_at: float | None
):
    """Of the task that joins the earlier launcher had asked for nothing; the endpoint is not new for that."""
    plan = shared_plan(tmp_path, 2, max_attempts=3)
    platform = Lags()
    journal.begin(
        plan.invocation,
        execution="e",
        deployment="d",
        folder=str(tmp_path),
        tasks=[t.key for t in plan.tasks],
        plan=b"",
    )
    journal.record(plan.invocation, Fact.INTEND_CREATE_ENDPOINT, "t0", FIRST)
    journal.record(plan.invocation, Fact.ENDPOINT_CREATED, "t0", FIRST)

    async def scenario() -> RunOutcome:
        await platform.create_endpoint(plan.tasks[0], plan.endpoints[0])
        again = Run(plan, platform, journal, facts=journal.facts(plan.invocation))
        if stop_at is not None:
            asyncio.get_running_loop().call_later(stop_at, again.stop)
        return await again.run()

    outcome = run_virtual(scenario())
    assert platform.asked == [FIRST] and platform.left == [] and outcome.leftovers == []
    assert not any(fact.kind is Fact.TASK_RETRY for fact in journal.facts(plan.invocation))
    assert outcome.exit_code == (0 if stop_at is None else 130)
