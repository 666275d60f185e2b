"""What the points of a sweep ask one workspace together, on a virtual clock."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from launcher.config.sweep import Sweep as Settings
from launcher.emulators.lepton import Config
from launcher.errors import PreflightError
from launcher.orchestrator import sweeps
from launcher.orchestrator.blocking import Interrupts
from launcher.orchestrator.journal import Journal
from launcher.sweep import record
from launcher.sweep.drive import SweepSupervision
from launcher.sweep.model import PlannedPoint, SweepPlan
from tests.e2e.lepton import Bench
from tests.e2e.lepton_virtual import virtual_bench
from tests.fakes.clock import run_virtual

pytestmark = pytest.mark.e2e
POINTS, TASKS = 6, 3
TIMES: dict[str, Any] = {"boots": lambda _: 15.0, "lasts": lambda number: 20.0 + 2 * number}


def sweep(bench: Bench, **settings: Any) -> SweepSupervision:
    """A sweep of points alike."""
    points = [
        PlannedPoint(number=number, words=f"n={number}", identity=str(number), plan=bench.plan(TASKS))
        for number in range(1, POINTS + 1)
    ]
    plan = SweepPlan(
        id=sweeps.new_id(), folder=str(bench.folder / "sweep"), points=tuple(points), settings=Settings(**settings)
    )
    journal = Journal(bench.folder / "journal.db")
    record.begin(plan, journal)
    made = SweepSupervision(plan=plan, journal=journal)
    made.opener = lambda wanted: bench.open(wanted, shared=made.shared)
    return made


def test_points_of_a_sweep_ask_about_as_often_as_one_run_of_their_tasks(tmp_path: Path) -> None:
    async def alone() -> int:
        async with virtual_bench(tmp_path / "alone", **TIMES) as bench:
            done = await bench.run(dataclasses.replace(bench.plan(POINTS * TASKS), max_parallel_endpoints=9))
            assert done.exit_code == 0
            return len(bench.emulator.requests)

    async def together() -> tuple[int, int]:
        async with virtual_bench(tmp_path / "together", **TIMES) as bench:
            made = sweep(bench, max_parallel_tasks=9)
            done = await made.run(Interrupts())
            assert done.exit_code == 0 and bench.emulator.state().alive == ()
            assert made.shared.by_account == {}, "its connections are closed"
            return len(bench.emulator.requests), len(
                [one for one in bench.emulator.requests if one.path == "/workspace"]
            )

    one, (all_points, workspace) = run_virtual(alone()), run_virtual(together())
    print(f"requests per task: {one / POINTS / TASKS:.1f} alone, {all_points / POINTS / TASKS:.1f} in a sweep")
    assert all_points <= 1.3 * one
    assert workspace == 1


def test_what_all_points_need_at_once_must_fit_into_the_quota(tmp_path: Path) -> None:
    async def run(**settings: Any) -> int:
        async with virtual_bench(tmp_path / str(len(settings)), Config(quota_accelerators=6), **TIMES) as bench:
            return (await sweep(bench, **settings).run(Interrupts())).exit_code

    with pytest.raises(PreflightError, match="need 16 GPUs and 6 are left; set sweep"):
        run_virtual(run())
    assert run_virtual(run(max_parallel_endpoints=6)) == 0, "points wait for each other, and none is refused"
