"""Every fault on every route of the control plane, in both families, one by one and several at once."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from launcher.orchestrator.reasons import Reason
from tests.e2e.lepton_faults import (
    BURSTS,
    FAILING,
    HIT,
    PASSING,
    TASKS,
    check_end,
    config,
    routes,
    run_one,
    try_seed,
)

pytestmark = pytest.mark.e2e
FAMILIES = pytest.mark.parametrize("new", [False, True], ids=["legacy", "new"])
SEEDS = int(os.environ.get("NV_EVAL_TEST_SEEDS", "40"))
SHARED = [route for route in routes(new=False) if route in routes(new=True)]
"""Routes that both families have; each burst hits each of them in one family, the next burst in the other."""
OWN = [(new, route) for new in (False, True) for route in routes(new=new) if route not in SHARED]
GRID = [
    (new, route, burst)
    for number, burst in enumerate(BURSTS)
    for new, route in (*OWN, *((number % 2 == index % 2, route) for index, route in enumerate(SHARED)))
]


@FAMILIES
def test_the_routes_below_are_those_that_a_run_uses(tmp_path: Path, new: bool) -> None:
    made, _, outcome, problems = run_one(tmp_path, config(new=new))

    assert problems == []
    check_end(made, outcome)
    used = {f"{record.method} {record.path}" for record in made.emulator.requests}
    known = routes(new=new)
    assert [route for route in used if not any(fnmatchcase(route, pattern) for pattern in known)] == []


@pytest.mark.parametrize(
    ("new", "route", "burst"),
    GRID,
    ids=[f"{'new' if new else 'legacy'} {route}: {burst}" for new, route, burst in GRID],
)
def test_a_burst_on_a_route_costs_no_score(tmp_path: Path, new: bool, route: str, burst: str) -> None:
    fault = BURSTS[burst](route)
    made, _, outcome, problems = run_one(tmp_path, config(fault, new=new, seed=11))

    assert problems == []
    assert [task.reason for task in outcome.tasks] == [Reason.COMPLETED] * TASKS, outcome.tasks
    check_end(made, outcome)


@FAMILIES
@pytest.mark.parametrize("name", [*PASSING, *FAILING])
def test_a_fault_of_one_resource_costs_at_most_its_own_score(tmp_path: Path, new: bool, name: str) -> None:
    trouble = (PASSING | FAILING)[name]
    made, _, outcome, _ = run_one(tmp_path, config(*trouble.faults, new=new))

    hit = outcome.tasks[HIT]
    check_end(made, outcome)
    assert hit.reason in trouble.ends, hit
    assert trouble.detail in hit.detail, hit
    assert hit.seconds <= trouble.within, hit
    siblings = [task for task in outcome.tasks if task is not hit]
    assert [task.reason for task in siblings] == [Reason.COMPLETED] * (TASKS - 1)
    assert all(task.seconds < 45 for task in siblings), "a sibling waited"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_several_faults_at_once_leave_nothing_and_cost_no_score_but_their_own(tmp_path: Path, seed: int) -> None:
    try_seed(seed, tmp_path)
