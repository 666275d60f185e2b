"""Scale on paper: the orchestrator with thousands of tasks, on a virtual clock and a platform in memory."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

ROOT = Path(__file__).resolve().parent.parent


def run(*, quick: bool) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Each size in a process of its own, so that its memory is its own."""
    sizes = (100, 1000) if quick else (100, 1000, 4000)
    rows = []
    for size in sizes:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.paper", str(size)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append(json.loads(done.stdout))
    figures = []
    for row in rows[1:]:
        base = rows[0]
        grown = (row["memory_kib"] - base["memory_kib"]) / (row["tasks"] - base["tasks"])
        name = f"N = {row['tasks']:,}"
        figures += [
            Figure(bench="paper", name=f"{name}, steps a second", value=row["steps"] / row["cpu"], more_is_better=True),
            Figure(
                bench="paper",
                name=f"{name}, processor time of a task",
                value=1000 * row["cpu"] / row["tasks"],
                unit="ms",
            ),
            Figure(bench="paper", name=f"{name}, memory of a task", value=grown, unit="KiB"),
        ]
    return figures, rows


def main() -> None:
    """One size, whose figures are printed as JSON."""
    import asyncio

    from launcher.orchestrator.journal import Journal
    from launcher.orchestrator.run import Run
    from tests.fakes.clock import run_virtual
    from tests.fakes.platform import FakePlatform, Script
    from tests.unit.test_orchestrator_run import make_plan

    tasks, dice = int(sys.argv[1]), random.Random(7)
    scripts = {
        f"t{number}": Script(boot=dice.lognormvariate(4, 0.4), lasts=dice.lognormvariate(5, 0.4))
        for number in range(tasks)
    }
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        made = make_plan(Path(folder), tasks, execution={"usd_per_gpu_hour": 1.0})
        platform = FakePlatform(scripts, poll_interval=1.0)

        async def life() -> Any:
            await asyncio.sleep(1)
            return await Run(made, platform, Journal(Path(folder) / "journal.db")).run()

        began, cpu = time.monotonic(), time.process_time()
        outcome = run_virtual(life())
        used = time.process_time() - cpu
    steps = 8 * tasks + platform.observed
    row = {
        "tasks": tasks,
        "wall": time.monotonic() - began,
        "cpu": used,
        "steps": steps,
        "looks": platform.observed,
        "virtual_seconds": outcome.seconds,
        "scored": sum(bool(task.scores) for task in outcome.tasks),
        "memory_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
