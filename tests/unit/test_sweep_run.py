"""Sweeps on a platform in memory and a virtual clock: order, limits, policies, endpoints that serve several points."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from launcher.config.sweep import Sweep as Settings
from launcher.config.validate import validate
from launcher.errors import PlatformError
from launcher.orchestrator import keeper, sweeps
from launcher.orchestrator.blocking import Interrupts
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.sweeps import PointState
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.platforms.base import Capacity, Observation
from launcher.sweep import record
from launcher.sweep.contents import Contents
from launcher.sweep.drive import SweepResult, SweepSupervision
from launcher.sweep.model import PlannedPoint, SweepPlan
from launcher.sweep.resume import decide
from tests.fakes.clock import run_virtual
from tests.fakes.lending import lend, seconds_of
from tests.fakes.platform import FakePlatform, Script

SECONDS = [10.0, 30.0, 20.0]


def point(folder: Path, number: int, durations: list[float], model: str = "m", **limits: Any) -> PlannedPoint:
    """A point whose tasks last for the given seconds."""
    tasks = [{"name": f"t{i}", "expected_duration": seconds} for i, seconds in enumerate(durations)]
    tree = {
        "execution": {"type": "local", "output_dir": str(folder)},
        "deployment": {"type": "container", "model_id": model, "command": "serve {port}", "gpus": 1},
        "evaluation": {"harness": "command", "command": ["bench"], "tasks": tasks, "limit": number},
        "limits": {"max_attempts": 1, **limits},
    }
    plan = build(validate(tree))
    identity = Contents().identity(plan)
    return PlannedPoint(number=number, words=f"evaluation.limit={number}", identity=identity, plan=plan)


@dataclasses.dataclass
class Bench:
    """One sweep and the places its points run in, by invocation."""

    folder: Path
    journal: Journal
    script: Callable[[PlannedPoint, str, float], Script] = lambda _point, _task, seconds: Script(boot=1, lasts=seconds)
    platforms: dict[str, FakePlatform] = dataclasses.field(default_factory=dict)
    at: list[tuple[float, str, int]] = dataclasses.field(default_factory=list)
    said: list[str] = dataclasses.field(default_factory=list)

    def plan(self, points: list[PlannedPoint], **settings: Any) -> SweepPlan:
        made = SweepPlan(
            id=sweeps.new_id(), folder=str(self.folder / "sweep"), points=tuple(points), settings=Settings(**settings)
        )
        record.begin(made, self.journal)
        return made

    def opener(self, plan: SweepPlan) -> Callable[[Plan], FakePlatform]:
        by_id = {p.plan.invocation: p for p in plan.points}

        def open_(wanted: Plan) -> FakePlatform:
            found = by_id.get(wanted.invocation)
            scripts = {
                task.key: self.script(found, task.key, task.expected_duration or 0.0) for task in wanted.tasks if found
            }
            return self.platforms.setdefault(wanted.invocation, FakePlatform(scripts, poll_interval=0.5))

        return open_

    def supervision(self, plan: SweepPlan, **keys: Any) -> SweepSupervision:
        opener = self.opener(plan)
        return SweepSupervision(plan=plan, journal=self.journal, say=self.said.append, opener=opener, **keys)

    def run(self, plan: SweepPlan, **keys: Any) -> SweepResult:
        return run_virtual(self.supervision(plan, **keys).run(Interrupts()))

    def begun(self, number: int, plan: SweepPlan) -> float:
        found = next(p for p in plan.points if p.number == number)
        return min(at for at, _ in self.platforms[found.plan.invocation].created)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Journal(tmp_path / "state" / "journal.db"))


def test_every_point_is_an_invocation_with_its_own_scores(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, n, SECONDS) for n in (1, 2, 3)])
    result = bench.run(plan)
    assert result.exit_code == 0
    assert [(p.state, p.scored, p.tasks) for p in result.status.points] == [(PointState.SCORED, 3, 3)] * 3
    assert all(sweeps.is_complete(bench.journal, p.plan.invocation) for p in plan.points)
    assert all(platform.left == [] for platform in bench.platforms.values())


# --- order and limits -----------------------------------------------------------------------------------------------


def test_the_point_with_the_longest_task_begins_first(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, 1, [5.0]), point(bench.folder, 2, [50.0])], max_parallel_tasks=1)
    bench.run(plan)
    assert bench.begun(2, plan) < bench.begun(1, plan)


def test_a_point_waits_for_one_whose_turn_it_is_and_that_is_slow_to_look(bench: Bench) -> None:
    class Slow(FakePlatform):
        async def observe(self) -> Observation:
            await asyncio.sleep(3.0)
            return await super().observe()

    plan = bench.plan([point(bench.folder, n, [seconds]) for n, seconds in ((1, 50.0), (2, 5.0))], max_parallel_tasks=1)
    first = plan.points[0].plan.invocation
    bench.platforms[first] = Slow({"t0": Script(boot=1, lasts=50.0)}, poll_interval=0.5)

    result = bench.run(plan)

    assert [(p.state, p.scored) for p in result.status.points] == [(PointState.SCORED, 1)] * 2
    assert bench.begun(1, plan) < bench.begun(2, plan)


def test_no_more_tasks_run_at_once_than_there_are_places(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, n, [10.0] * 3) for n in (1, 2, 3, 4)], max_parallel_tasks=4)
    result = bench.run(plan)
    moments = [(at, 1) for p in bench.platforms.values() for at, _ in p.created]
    moments += [(at, -1) for p in bench.platforms.values() for at, _ in p.deleted]
    alive = most = 0
    for _, change in sorted(moments):
        alive += change
        most = max(most, alive)
    assert result.exit_code == 0 and most == 4


def test_places_are_shared_fairly_between_points_that_have_begun(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, n, [10.0] * 6) for n in (1, 2)], max_parallel_tasks=8)
    bench.run(plan)
    first = [p.plan.invocation for p in plan.points]
    at_once = [sum(at < 5 for at, _ in bench.platforms[one].created) for one in first]
    assert sum(at_once) == 8 and min(at_once) >= 2, "the second point does not wait for the first"


@pytest.mark.parametrize(("limit", "most"), [({"max_gpus": 2}, 2), ({"max_parallel_endpoints": 3}, 3)])
def test_gpus_and_endpoints_are_counted_over_all_points(bench: Bench, limit: dict[str, int], most: int) -> None:
    plan = bench.plan([point(bench.folder, n, [10.0] * 3) for n in (1, 2)], **limit)
    result = bench.run(plan)
    assert result.exit_code == 0
    assert sum(p.most_alive for p in bench.platforms.values()) >= most
    assert sorted(at for p in bench.platforms.values() for at, _ in p.created)[most] > 10


def test_a_sweep_whose_supervisor_is_gone_is_stopped_by_whoever_ends_it(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, n, [5.0]) for n in (1, 2)])
    begun = plan.points[0].plan
    bench.journal.begin(
        begun.invocation,
        execution="local",
        deployment="container",
        folder=str(bench.folder / begun.invocation),
        tasks=["t0"],
        plan=msgspec.json.encode(begun),
        hold=False,
    )
    bench.journal.record(begun.invocation, Fact.RUN_STARTED)

    result = bench.run(plan, ends=True)

    assert result.exit_code == 130
    assert [p.state for p in result.status.points] == [PointState.STOPPED, PointState.WAITING]


def test_the_cost_of_all_points_ends_the_sweep(bench: Bench) -> None:
    points = [point(bench.folder, n, [1000.0]) for n in (1, 2)]
    points = [dataclasses.replace(p, plan=dataclasses.replace(p.plan, usd_per_gpu_hour=36.0)) for p in points]
    result = bench.run(bench.plan(points, max_cost_usd=2.0))
    assert result.exit_code == 9
    assert any("Near a limit: 1.6" in text for text in bench.said)
    assert all(platform.left == [] for platform in bench.platforms.values())


# --- failures -------------------------------------------------------------------------------------------------------


def failing(number: int) -> Callable[[PlannedPoint, str, float], Script]:
    def script(found: PlannedPoint, _task: str, seconds: float) -> Script:
        return Script(lasts=3.0, reason="harness_failed") if found.number == number else Script(lasts=seconds)

    return script


@pytest.mark.parametrize(
    ("policy", "states"),
    [
        ("continue", ["failed", "scored", "scored"]),
        ("stop_new", ["failed", "scored", "waiting"]),
        ("abort", ["failed", "stopped", "waiting"]),
    ],
)
def test_what_a_failed_point_means_for_the_others_is_the_users_choice(
    bench: Bench, policy: str, states: list[str]
) -> None:
    bench.script = failing(1)
    points = [point(bench.folder, 1, [10.0]), point(bench.folder, 2, [9.0, 60.0]), point(bench.folder, 3, [5.0])]
    points[0] = dataclasses.replace(points[0], plan=_expected(points[0].plan, 100.0))
    plan = bench.plan(points, on_failure=policy, max_parallel_tasks=2)
    result = bench.run(plan)
    assert [p.state.value for p in result.status.points] == states
    assert result.exit_code == 4


def _expected(plan: Plan, seconds: float) -> Plan:
    """A plan whose tasks are expected to last so long; they last as long as its script says."""
    tasks = tuple(dataclasses.replace(task, expected_duration=seconds) for task in plan.tasks)
    return dataclasses.replace(plan, tasks=tasks)


def test_a_point_that_the_platform_refuses_keeps_no_other_from_running(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, n, [5.0]) for n in (1, 2)])
    bench.opener(plan)(plan.points[0].plan).scripts["t0"] = Script(create_fails=True)
    result = bench.run(plan)
    assert [p.state.value for p in result.status.points] == ["failed", "scored"]


# --- the end of a supervisor, and another one ------------------------------------------------------------------------


def test_a_signal_tears_down_all_points_and_says_so_once(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, n, [1000.0]) for n in (1, 2, 3)], max_parallel_tasks=2)
    supervision = bench.supervision(plan)

    async def scenario() -> SweepResult:
        interrupts = Interrupts()
        running = asyncio.ensure_future(interrupts.attended(supervision.run(interrupts)))
        await asyncio.sleep(30)
        interrupts.react()
        return await running

    result = run_virtual(scenario())
    assert result.exit_code == 130
    assert [p.state.value for p in result.status.points] == ["stopped", "stopped", "stopped"]
    assert all(platform.left == [] for platform in bench.platforms.values())
    assert sum(text.startswith("Stopping") for text in bench.said) == 1


def test_resuming_skips_what_has_its_scores_and_goes_on_with_the_rest(bench: Bench) -> None:
    bench.script = failing(2)
    plan = bench.plan([point(bench.folder, n, [5.0, 6.0]) for n in (1, 2)])
    assert bench.run(plan).exit_code == 4
    bench.script = lambda _point, _task, seconds: Script(lasts=seconds)
    once = len(bench.platforms[plan.points[0].plan.invocation].created)
    bench.platforms.pop(plan.points[1].plan.invocation)
    going_on = decide(plan, bench.journal)
    bench.journal.take_lease(plan.id)
    result = bench.run(going_on.plan, done=going_on.done)
    assert (result.exit_code, going_on.done) == (0, frozenset({1}))
    assert "has all its scores" in going_on.why[1]
    assert len(bench.platforms[plan.points[0].plan.invocation].created) == once, "nothing of it runs again"
    assert [p.scored for p in result.status.points] == [2, 2]


def test_a_setting_that_changes_scores_runs_a_point_again_and_says_which(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, n, [5.0]) for n in (1, 2)])
    bench.run(plan)
    going_on = decide(plan, bench.journal, ["evaluation.num_fewshot=3", "sweep.max_parallel_tasks=2"])
    assert going_on.done == frozenset()
    assert going_on.why[1].startswith("runs again: evaluation.num_fewshot: unset -> 3")
    assert {p.plan.invocation for p in going_on.plan.points}.isdisjoint(p.plan.invocation for p in plan.points)
    assert going_on.plan.settings.max_parallel_tasks == 2


def test_an_operational_setting_runs_nothing_again(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, n, [5.0]) for n in (1, 2)])
    bench.run(plan)
    assert decide(plan, bench.journal, ["evaluation.concurrency=2"]).done == frozenset({1, 2})


def test_results_that_cannot_be_read_are_not_taken_for_scores(bench: Bench) -> None:
    plan = bench.plan([point(bench.folder, 1, [5.0])])
    bench.run(plan)
    (found,) = plan.points
    (bench.folder / found.plan.invocation / "results.json").write_text('{"complete": tr')
    assert decide(plan, bench.journal).done == frozenset()
    assert sweeps.completed(bench.journal, found.identity) is None


# --- endpoints that serve several tasks -------------------------------------------------------------------------------


@pytest.fixture
def lending(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> FakePlatform:
    return lend(monkeypatch)


def same(folder: Path, number: int, durations: list[float]) -> PlannedPoint:
    return point(folder, number, durations)


def test_equal_endpoints_serve_one_task_after_another_and_are_billed_for_less(
    bench: Bench, lending: FakePlatform
) -> None:
    points = [same(bench.folder, n, [20.0, 20.0]) for n in (1, 2, 3)]
    plan = bench.plan(points, reuse_endpoints=True, max_parallel_tasks=2)
    result = bench.run(plan)
    assert result.exit_code == 0, bench.said
    assert [p.scored for p in result.status.points] == [2, 2, 2]
    assert len(lending.endpoints) == 2, "six tasks, two places"
    assert seconds_of(lending) < 2 * (100 + 3 * 20) * 1.2, "two start-up times instead of six"


def test_an_endpoint_goes_when_no_task_needs_it_any_more(bench: Bench, lending: FakePlatform) -> None:
    points = [same(bench.folder, 1, [20.0, 500.0])]
    plan = bench.plan(points, reuse_endpoints=True, max_parallel_tasks=2)
    assert bench.run(plan).exit_code == 0
    short, long = sorted((thing.gone_at or 0.0) for thing in lending.endpoints.values())
    assert short < 150 < 600 < long


def test_different_deployments_share_no_endpoint(bench: Bench, lending: FakePlatform) -> None:
    points = [point(bench.folder, n, [20.0], model=f"m{n % 2}") for n in (1, 2, 3, 4)]
    plan = bench.plan(points, reuse_endpoints=True, max_parallel_tasks=1, max_parallel_endpoints=1)
    assert bench.run(plan).exit_code == 0, bench.said
    assert len(lending.endpoints) == 2
    assert lending.most_alive == 1


def test_a_task_whose_borrowed_endpoint_dies_is_tried_again_on_another(bench: Bench, lending: FakePlatform) -> None:
    lending.scripts["endpoint"] = Script(endpoint_dies_after=150.0)
    plan = bench.plan([point(bench.folder, 1, [120.0], max_attempts=2)], reuse_endpoints=True)

    result = bench.run(plan)
    reasons = {fact.data.get("reason") for fact in bench.journal.facts(plan.points[0].plan.invocation)}
    assert "endpoint_died" in reasons
    assert len(lending.endpoints) == 2
    assert result.exit_code in (0, 4)
    assert all(thing.gone_at is not None for thing in lending.endpoints.values())


@pytest.mark.parametrize(
    ("reason", "endpoints"), [("endpoint_not_serving", 2), ("endpoint_died", 2), ("harness_failed", 1)]
)
def test_an_endpoint_that_did_not_serve_a_task_is_lent_to_no_other(
    bench: Bench, lending: FakePlatform, reason: str, endpoints: int
) -> None:
    bench.script = lambda found, _task, seconds: (
        Script(lasts=3.0, reason=reason) if found.number == 1 else Script(lasts=seconds)
    )
    points = [point(bench.folder, 1, [90.0]), *(same(bench.folder, n, [20.0]) for n in (2, 3))]
    plan = bench.plan(points, reuse_endpoints=True, max_parallel_tasks=1, max_parallel_endpoints=1)
    result = bench.run(plan)
    assert [p.state.value for p in result.status.points] == ["failed", "scored", "scored"]
    assert len(lending.endpoints) == endpoints, "its keeper has seen it running all the time"
    assert lending.most_alive == 1
    assert all(thing.gone_at is not None for thing in lending.endpoints.values())


def test_endpoints_that_are_kept_belong_to_invocations_of_the_journal(bench: Bench, lending: FakePlatform) -> None:
    plan = bench.plan([same(bench.folder, n, [20.0]) for n in (1, 2)], reuse_endpoints=True)
    bench.run(plan)
    kept = sweeps.hosts(bench.journal, plan.id)
    assert {name.rpartition("-")[2] for name in lending.endpoints} == set(kept)
    assert all(bench.journal.last(one, Fact.RUN_ENDED) for one in kept)
    assert set(sweeps.expand(bench.journal, [plan.id], endpoints=True)) == {
        *kept,
        *(p.plan.invocation for p in plan.points),
    }


@pytest.fixture(params=["cannot be made", "cannot be opened", "creates nothing"])
def broken(request: pytest.FixtureRequest, lending: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> FakePlatform:
    """The place of `lending`, in which no endpoint comes into being, in the one way or the other."""
    where, good = request.param, keeper.open_endpoints

    async def refuse(*_: Any) -> Any:
        raise TypeError("a defect") if where == "cannot be opened" else PlatformError("nobody there")

    def opened(plan: Plan, shared: Any) -> Any:
        if where == "cannot be made":
            raise TypeError("a defect")
        platform: Any = good(plan, shared)
        setattr(platform, "open" if where == "cannot be opened" else "create_endpoint", refuse)
        return platform

    monkeypatch.setattr(keeper, "open_endpoints", opened)
    return lending


async def bounded(running: asyncio.Future[SweepResult], most: float = 3600.0) -> SweepResult:
    """The result; a sweep that would go on for ever fails the test instead."""
    async with asyncio.timeout(most):
        return await asyncio.shield(running)


@pytest.mark.parametrize("attempts", [1, 3])
def test_tasks_end_with_a_reason_where_no_endpoint_can_be_kept_for_them(
    bench: Bench, broken: FakePlatform, attempts: int
) -> None:
    points = [point(bench.folder, n, [20.0, 20.0], max_attempts=attempts) for n in (1, 2, 3)]
    plan = bench.plan(points, reuse_endpoints=True, max_parallel_tasks=2)
    supervision = bench.supervision(plan)

    async def scenario() -> SweepResult:
        return await bounded(asyncio.ensure_future(supervision.run(Interrupts())))

    result = run_virtual(scenario())
    assert (result.exit_code, result.left) == (4, ())
    for one in plan.points:
        ended = [f.data for f in bench.journal.facts(one.plan.invocation) if f.kind is Fact.TASK_ENDED]
        assert len(ended) == 2
        assert all(said["reason"] in ("endpoint_not_created", "endpoint_exited") for said in ended)
        assert all("a defect" in said["detail"] or "nobody there" in said["detail"] for said in ended)
    assert broken.endpoints == {}


def test_a_stop_ends_a_sweep_whose_platform_takes_for_ever_to_open(
    bench: Bench, lending: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = keeper.open_endpoints

    async def hang(*_: Any) -> Capacity:
        await asyncio.sleep(1e9)
        return Capacity()

    def opened(plan: Plan, shared: Any) -> Any:
        platform: Any = good(plan, shared)
        platform.open = hang
        return platform

    monkeypatch.setattr(keeper, "open_endpoints", opened)
    plan = bench.plan([same(bench.folder, n, [20.0]) for n in (1, 2)], reuse_endpoints=True)
    supervision = bench.supervision(plan)

    async def scenario() -> SweepResult:
        interrupts = Interrupts()
        running = asyncio.ensure_future(interrupts.attended(supervision.run(interrupts)))
        await asyncio.sleep(30)
        interrupts.react()
        return await bounded(running, 60.0)

    result = run_virtual(scenario())
    assert (result.exit_code, result.left) == (130, ())
    assert lending.endpoints == {}
