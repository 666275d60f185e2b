"""A sweep of 200 points of 5 tasks each on timer jobs, on a virtual clock: what its supervisor costs.

`python -m benchmarks.sweep [--points N]`. Prints ratios: the makespan over that of list scheduling on as many places,
looks at the platform per task over those of one run of the same tasks, and CPU and memory of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import heapq
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from launcher.config.sweep import Sweep as Settings  # noqa: E402
from launcher.config.validate import validate  # noqa: E402
from launcher.orchestrator import sweeps  # noqa: E402
from launcher.orchestrator.blocking import Interrupts  # noqa: E402
from launcher.orchestrator.journal import Journal  # noqa: E402
from launcher.plan.build import build  # noqa: E402
from launcher.plan.model import Plan  # noqa: E402
from launcher.sweep import record  # noqa: E402
from launcher.sweep.contents import Contents  # noqa: E402
from launcher.sweep.drive import SweepResult, SweepSupervision  # noqa: E402
from launcher.sweep.model import PlannedPoint, SweepPlan  # noqa: E402
from tests.fakes.clock import run_virtual  # noqa: E402
from tests.fakes.platform import FakePlatform, Script  # noqa: E402

SLOTS, TASKS, BOOT, POLL = 20, 5, 60.0, 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a sweep took: ratios, seconds of CPU, and MB."""

    points: int
    makespan: float
    over_bound: float
    looks_over_single: float
    cpu_seconds: float
    peak_mb: float
    exit_code: int


def measure(points: int, folder: Path, slots: int = SLOTS) -> Measured:
    """Run a sweep of so many points and a run of one point alone."""
    chance = random.Random(7)
    plans = [_point(folder, n, [chance.uniform(120, 1800) for _ in range(TASKS)]) for n in range(1, points + 1)]
    single = _run(folder / "one", plans[:1], slots)
    before = time.process_time()
    whole = _run(folder / "all", [_renewed(point, folder) for point in plans], slots)
    durations = [BOOT + (t.expected_duration or 0.0) for p in plans for t in p.plan.tasks]
    return Measured(
        points=points,
        makespan=whole.seconds,
        over_bound=whole.seconds / listed(durations, slots),
        looks_over_single=(whole.looks / (points * TASKS)) / (single.looks / TASKS),
        cpu_seconds=time.process_time() - before,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        exit_code=whole.result.exit_code,
    )


def listed(durations: list[float], places: int) -> float:
    """Makespan of list scheduling, the longest first: each to the place that is free first."""
    free = [0.0] * places
    for seconds in sorted(durations, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def _point(folder: Path, number: int, durations: list[float]) -> PlannedPoint:
    tasks = [{"name": f"t{i}", "expected_duration": seconds} for i, seconds in enumerate(durations)]
    tree = {
        "execution": {"type": "local", "output_dir": str(folder / "results")},
        "deployment": {"type": "container", "model_id": "m", "command": "serve {port}", "gpus": 1},
        "evaluation": {"harness": "command", "command": ["bench"], "tasks": tasks, "limit": number},
        "limits": {"max_attempts": 1},
    }
    plan = build(validate(tree))
    identity = Contents().identity(plan)
    return PlannedPoint(number=number, words=f"evaluation.limit={number}", identity=identity, plan=plan)


def _renewed(point: PlannedPoint, folder: Path) -> PlannedPoint:
    """The same under an id of its own."""
    return _point(folder, point.number, [task.expected_duration or 0.0 for task in point.plan.tasks])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ran:
    result: SweepResult
    seconds: float
    looks: int


def _run(folder: Path, points: list[PlannedPoint], slots: int) -> _Ran:
    journal = Journal(folder / "state" / "journal.db")
    journal._db.execute("PRAGMA synchronous = OFF")  # nothing here pulls the plug, and a disk's time is not asked for
    plan = SweepPlan(
        id=sweeps.new_id(),
        folder=str(folder / "sweep"),
        points=tuple(points),
        settings=Settings(max_parallel_tasks=slots),
    )
    looks = 0

    class Counting(FakePlatform):
        async def observe(self):  # type: ignore[no-untyped-def]
            nonlocal looks
            looks += 1
            return await super().observe()

    def opener(wanted: Plan) -> FakePlatform:
        scripts = {task.key: Script(boot=BOOT, lasts=task.expected_duration) for task in wanted.tasks}
        return Counting(scripts, poll_interval=POLL)

    async def timed() -> tuple[SweepResult, float]:
        supervision = SweepSupervision(plan=plan, journal=journal, opener=opener)  # type: ignore[arg-type]
        return await supervision.run(Interrupts()), asyncio.get_running_loop().time()

    record.begin(plan, journal)
    result, seconds = run_virtual(timed())
    return _Ran(result=result, seconds=seconds, looks=looks)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200, help="points of five tasks; default: 200")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.points, Path(folder))
    if args.json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    print(f"{found.points} points of {TASKS} tasks on {SLOTS} places, exit code {found.exit_code}")
    print(f"makespan over list scheduling: {found.over_bound:.3f}")
    print(f"looks per task over those of one run: {found.looks_over_single:.2f}")
    print(f"CPU {found.cpu_seconds:.1f} s, peak {found.peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
