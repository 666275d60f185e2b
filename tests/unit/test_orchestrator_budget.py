"""What a run has used, over all attempts of its tasks, and which plans cannot keep their own bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.orchestrator.budget import Bound, beyond, bounds
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import Attempt, EndpointClock, TaskState
from launcher.plan.model import Plan, WorstCase
from tests.fakes.platform import FakePlatform, Script
from tests.unit.test_orchestrator_run import make_plan, run_plan


def plan(folder: Path, **limits: float) -> Plan:
    made = make_plan(folder, 2, limits=limits, execution={"usd_per_gpu_hour": 2.0})
    return replace(made, worst_case=WorstCase(gpu_hours=1.5, usd=3.0))


def used(made: Plan, tasks: list[TaskState], now: float) -> dict[str, float]:
    return {bound.key: bound.used for bound in bounds(made, tasks, now=now, elapsed=90.0)}


def test_a_plan_without_limits_has_no_bounds(tmp_path: Path):
    assert bounds(plan(tmp_path), [], now=0.0, elapsed=0.0) == []


def test_endpoints_count_from_their_request_until_they_are_gone_in_every_attempt(tmp_path: Path):
    made = plan(tmp_path, max_gpu_hours=1.0, max_cost_usd=4.0, max_duration=180.0)
    earlier = Attempt(number=1, reason=Reason.PREEMPTED, endpoint_seconds=1800.0)
    tasks = [
        TaskState(plan=made.tasks[0], past=[earlier], started_at=100.0),
        TaskState(plan=made.tasks[1], started_at=100.0, gone_at=1000.0),
    ]
    found = used(made, tasks, now=1900.0)
    assert found["limits.max_gpu_hours"] == pytest.approx((1800 + 1800 + 900) / 3600)
    assert found["limits.max_cost_usd"] == pytest.approx(2.5)
    assert found["limits.max_duration"] == pytest.approx(1.5)


def test_what_a_platform_counts_itself_is_what_counts_and_never_less_than_before(tmp_path: Path):
    task = TaskState(plan=plan(tmp_path).tasks[0], started_at=100.0)
    shared = EndpointClock(name="x", started_at=100.0, users={"a", "b"}, ran=60.0)
    for said in (None, 0.0, 45.0, 0.0):  # the last: its files are not there any more
        task.note_ran(said)
    assert (task.endpoint_seconds(5000.0), shared.seconds(5000.0)) == (45.0, 30.0)


def test_a_bound_says_how_much_of_it_is_used():
    bound = Bound(key="limits.max_cost_usd", used=3.0, most=4.0, unit="USD")
    assert (bound.share, str(bound)) == (0.75, "3.00 of 4.00 USD used (limits.max_cost_usd)")


def test_a_plan_whose_worst_case_breaks_a_limit_is_told_so(tmp_path: Path):
    assert beyond(plan(tmp_path, max_cost_usd=3.0, max_gpu_hours=1.5)) == []
    lines = beyond(plan(tmp_path, max_cost_usd=2.0, max_gpu_hours=1.0))
    assert [line.partition(":")[0] for line in lines] == ["limits.max_cost_usd", "limits.max_gpu_hours"]
    assert "3.00 USD, the limit 2.00" in lines[0] and "--yes" in lines[0]


def test_a_run_warns_at_80_percent_and_ends_within_a_tick_of_its_limit(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    made = make_plan(tmp_path, 2, limits={"max_gpu_hours": 0.02})
    platform = FakePlatform({"t0": Script(lasts=5.0), "t1": Script(lasts=500.0)})
    outcome = run_plan(made, platform, journal)
    assert {task.key: task.reason for task in outcome.tasks} == {"t0": Reason.COMPLETED, "t1": Reason.LIMIT_REACHED}
    spent = sum(task.gpu_seconds for task in outcome.tasks)
    assert 72.0 <= spent <= 72.0 + 2 * platform.poll_interval + Script().deleting_takes + 0.1
    kinds = [fact.kind for fact in journal.facts(made.invocation)]
    assert kinds.count(Fact.BUDGET_WARNING) == 1
    assert kinds.index(Fact.BUDGET_WARNING) < kinds.index(Fact.STOP_ASKED)
    assert outcome.exit_code == 9 and platform.left == []


def test_what_waits_in_a_queue_uses_no_gpus(tmp_path: Path):
    made = plan(tmp_path, max_gpu_hours=1.0)
    task = TaskState(plan=made.tasks[0], started_at=0.0)
    task.note_queue(0.0, waits=True)
    task.note_queue(600.0, waits=True)
    while_waiting = used(made, [task], now=900.0)
    task.note_queue(1000.0, waits=False)

    assert while_waiting["limits.max_gpu_hours"] == 0
    assert used(made, [task], now=1360.0)["limits.max_gpu_hours"] == pytest.approx(0.1)
