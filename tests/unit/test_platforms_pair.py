"""Endpoints of one platform, jobs of another: who is asked what, and what a launcher finds again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from launcher.config.validate import validate
from launcher.errors import PlatformError
from launcher.orchestrator.journal import Entry, Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.run import Run
from launcher.orchestrator.state import RunOutcome
from launcher.plan.build import build
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.platforms.base import Observation, Resource, ResourceState
from launcher.platforms.pair import Pair, halves
from tests.fakes.clock import run_virtual
from tests.fakes.platform import FakePlatform, Script

ID = "a1234567"
USD_PER_SECOND = 0.01


@dataclass
class Rented(FakePlatform):
    """Endpoints get an address and a name when they run, and a meter counts them, also when they are gone."""

    boot: float = 20.0
    gone: dict[str, float] = field(default_factory=dict)

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        return self._rented(await super().create_endpoint(task, spec))

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        raise AssertionError("a job was submitted where endpoints are rented")

    async def observe(self) -> Observation:
        seen = await super().observe()
        found = {name: self._rented(resource) for name, resource in seen.endpoints.items()}
        for name, thing in self.endpoints.items():
            if name not in found:
                cost = USD_PER_SECOND * ((thing.gone_at or 0.0) - thing.begun)
                found[name] = Resource(name=name, state=ResourceState.GONE, usd=cost)
        return Observation(endpoints=found)

    def _rented(self, resource: Resource) -> Resource:
        age = asyncio.get_running_loop().time() - self.endpoints[resource.name].begun
        runs = age >= self.boot
        return replace(
            resource,
            state=ResourceState.RUNNING if runs else ResourceState.PENDING,
            model=f"deploy_id:{resource.name}",
            url="http://rented" if runs else None,
            usd=USD_PER_SECOND * age,
        )


@dataclass
class Jobs(FakePlatform):
    """Jobs end with the launcher."""

    close_ends_jobs: bool = True
    addressed: list[tuple[str, str]] = field(default_factory=list)
    """URL and model of each job that was submitted."""
    opened: Plan | None = None

    async def open(self, plan: Plan, folder: Path):
        self.opened = plan
        return await super().open(plan, folder)

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        raise AssertionError("an endpoint was created where only jobs run")

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        self.addressed.append((url, task.target.model))
        return await super().submit_job(task, spec, url)


def make_plan(folder: Path, count: int = 2) -> Plan:
    config = {
        "execution": {"type": "local", "output_dir": str(folder)},
        "deployment": {"type": "deepinfra", "model_id": "m/m", "start_timeout": 100, "health_timeout": 10},
        "evaluation": {
            "harness": "command",
            "command": ["bench"],
            "tasks": [{"name": f"t{number}"} for number in range(count)],
            "timeout": 200,
        },
    }
    return build(validate(config), ID)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "journal.db")


def drive(plan: Plan, pair: Pair, journal: Journal, facts: Sequence[Entry] | None = None) -> RunOutcome:
    run = Run(plan, pair, journal, facts=facts)

    async def scenario() -> RunOutcome:
        outcome = await run.run()
        run.conclude(outcome)
        return outcome

    return run_virtual(scenario())


def test_jobs_start_when_the_rented_endpoint_runs_and_call_it_by_its_own_name(tmp_path: Path, journal: Journal) -> None:
    rented, jobs = Rented(), Jobs()

    outcome = drive(make_plan(tmp_path), Pair(rented, jobs), journal)

    assert outcome.exit_code == 0
    assert sorted(jobs.addressed) == [
        ("http://rented", f"deploy_id:nv-eval-t{number}-{number}-{ID}") for number in range(2)
    ]
    assert min(at for at, _ in jobs.submitted) >= rented.boot
    assert jobs.opened is not None and all(task.endpoint is None for task in jobs.opened.tasks)
    assert (rented.left, jobs.left) == ([], [])


def test_the_cost_is_what_the_meter_says_when_all_is_gone(tmp_path: Path, journal: Journal) -> None:
    rented = Rented()

    outcome = drive(make_plan(tmp_path), Pair(rented, Jobs()), journal)

    seconds = [(thing.gone_at or 0.0) - thing.begun for thing in rented.endpoints.values()]
    assert sum(task.usd or 0.0 for task in outcome.tasks) == pytest.approx(USD_PER_SECOND * sum(seconds))


def test_evidence_of_a_failure_is_asked_of_the_half_that_has_it(tmp_path: Path, journal: Journal) -> None:
    jobs = Jobs({"t0": Script(reason="harness_failed")})

    outcome = drive(make_plan(tmp_path, 1), Pair(Rented(), jobs), journal)

    evidence = outcome.tasks[0].evidence
    assert evidence.endpoint == (f"last words of nv-eval-t0-0-{ID}",)


def test_a_job_that_died_with_its_launcher_is_given_to_the_endpoint_that_lives(
    tmp_path: Path, journal: Journal
) -> None:
    plan, rented = make_plan(tmp_path, 1), Rented()
    name = plan.tasks[0].endpoint.name if plan.tasks[0].endpoint else ""
    first = Run(plan, Pair(rented, Jobs({"t0": Script(lasts=None)})), journal)

    async def until_the_job_runs() -> None:
        living = asyncio.create_task(first.run())
        await asyncio.sleep(60)
        living.cancel()
        await asyncio.wait({living})

    run_virtual(until_the_job_runs())
    assert [fact.kind for fact in journal.facts(ID)].count(Fact.JOB_SUBMITTED) == 1
    thing = rented.endpoints[name]
    thing.begun, thing.gone_at = -1000.0, None
    rented.created.clear()
    outcome = drive(plan, Pair(rented, Jobs()), journal, journal.facts(ID))

    assert [task.reason for task in outcome.tasks] == [Reason.COMPLETED]
    assert rented.created == [] and outcome.tasks[0].attempts == ()


def test_both_halves_are_closed_though_the_first_fails(tmp_path: Path) -> None:
    class Stubborn(Jobs):
        async def close(self, *, at_once: bool = False) -> None:
            raise RuntimeError("no")

    rented = Rented()

    async def scenario() -> None:
        with pytest.raises(RuntimeError):
            await Pair(rented, Stubborn()).close()

    run_virtual(scenario())
    assert rented.left == []


def test_a_pair_is_where_both_halves_are(tmp_path: Path) -> None:
    @dataclass
    class Away(FakePlatform):
        place: str = "account a"

    away = Away()

    assert Pair(away, Jobs()).place == "account a"
    assert Pair(away, Away(place="workspace w")).place == "account a and workspace w"
    assert list(halves(Pair(away, away))) == [away, away] and list(halves(away)) == [away]


@dataclass
class Forgetful(Rented):
    """Refuses to say anything from some time on, until another."""

    silent_from: float = float("inf")
    silent_until: float = float("inf")

    async def observe(self) -> Observation:
        if self.silent_from <= asyncio.get_running_loop().time() < self.silent_until:
            raise PlatformError("the key was revoked")
        return await super().observe()


def test_a_job_that_ends_is_seen_though_endpoints_cannot_be_asked_for(tmp_path: Path, journal: Journal) -> None:
    rented, jobs = Forgetful(silent_from=25, silent_until=90), Jobs({"t0": Script(lasts=10)})

    outcome = drive(make_plan(tmp_path, 1), Pair(rented, jobs), journal)

    ended = next(fact for fact in journal.facts(ID) if fact.kind is Fact.TASK_ENDED)
    begun = next(fact for fact in journal.facts(ID) if fact.kind is Fact.JOB_SUBMITTED)
    assert outcome.tasks[0].reason is Reason.COMPLETED and outcome.tasks[0].left == ()
    assert ended.time <= begun.time + 5 and outcome.seconds >= 90
    assert rented.left == []


def test_endpoints_that_cannot_be_asked_for_are_never_taken_for_gone(tmp_path: Path, journal: Journal) -> None:
    rented = Forgetful(silent_from=25)

    outcome = drive(make_plan(tmp_path, 1), Pair(rented, Jobs({"t0": Script(lasts=10)})), journal)

    assert outcome.tasks[0].left == (f"nv-eval-t0-0-{ID}",) and outcome.exit_code == 5


def test_a_benchmark_that_fails_for_want_of_its_endpoint_did_not_fail_by_itself(
    tmp_path: Path, journal: Journal
) -> None:
    rented = Rented({"t0": Script(endpoint_dies_after=25)})
    jobs = Jobs({"t0": Script(lasts=10, reason="harness_failed")})

    class Dying(Pair):
        async def observe(self) -> Observation:
            seen = await super().observe()
            dead = {
                name: replace(found, state=ResourceState.FAILED, detail="somebody deleted it")
                for name, found in seen.endpoints.items()
                if any(job.end for job in seen.jobs.values()) and found.state is not ResourceState.GONE
            }
            return replace(seen, endpoints=seen.endpoints | dead)

    outcome = drive(make_plan(tmp_path, 1), Dying(rented, jobs), journal)

    assert [attempt.reason for attempt in outcome.tasks[0].attempts] == [Reason.ENDPOINT_DIED]
    assert outcome.tasks[0].attempts[0].detail == "somebody deleted it"


def test_what_an_endpoint_cost_that_was_gone_at_resume_is_asked_of_the_meter(tmp_path: Path, journal: Journal) -> None:
    @dataclass
    class Remembering(Rented):
        known: dict[str, str] = field(default_factory=dict)

        async def spent(self, ids: Mapping[str, str], shapes: Mapping[str, str]) -> dict[str, float]:
            self.known |= ids
            assert set(shapes.values()) == {"1xH100-80GB"}
            return dict.fromkeys(ids, 12.5)

    plan, first = make_plan(tmp_path, 1), Rented()
    dying = Run(plan, Pair(first, Jobs({"t0": Script(lasts=None)})), journal)

    async def until_the_job_runs() -> None:
        living = asyncio.create_task(dying.run())
        await asyncio.sleep(60)
        living.cancel()
        await asyncio.wait({living})

    run_virtual(until_the_job_runs())
    name, later = next(iter(first.endpoints)), Remembering()

    outcome = drive(plan, Pair(later, Jobs()), journal, journal.facts(ID))

    assert later.known == {name: name} and outcome.tasks[0].reason is Reason.COMPLETED
    assert outcome.tasks[0].attempts[0].usd == 12.5
    assert (outcome.tasks[0].usd or 0.0) > 12.5


@pytest.mark.parametrize("trouble", ["breaks", "hangs"])
def test_a_meter_in_trouble_keeps_no_resumed_run_from_its_teardown(
    tmp_path: Path, journal: Journal, trouble: str
) -> None:
    class Broken(Rented):
        async def spent(self, ids: Mapping[str, str], shapes: Mapping[str, str]) -> dict[str, float]:
            if trouble == "breaks":
                raise ValueError("not what was expected")
            await asyncio.sleep(10**6)
            raise AssertionError("nobody waits so long")

    plan, rented = make_plan(tmp_path, 1), Broken()
    dying = Run(plan, Pair(rented, Jobs({"t0": Script(lasts=None)})), journal)

    async def dies_and_is_taken_up() -> RunOutcome:
        living = asyncio.create_task(dying.run())
        await asyncio.sleep(60)
        living.cancel()
        await asyncio.wait({living})
        again = Run(plan, Pair(rented, Jobs()), journal, facts=journal.facts(ID))
        outcome = await again.run()
        again.conclude(outcome)
        return outcome

    outcome = run_virtual(dies_and_is_taken_up())

    assert outcome.exit_code == 0 and outcome.seconds < 120
    assert rented.left == []
