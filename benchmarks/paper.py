"""Scale on paper: the orchestrator with thousands of tasks, on a virtual clock and a platform in memory.

The processor time is that of the orchestrator and its journal, which lies in memory; that of the platform is taken out.
It passes on the virtual clock, too, as it would on a real one: a supervisor with too many tasks is late.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

ROOT = Path(__file__).resolve().parent.parent


SIZES, QUICK = (100, 300, 1000, 3000, 10_000, 30_000, 100_000), (100, 300, 1000)
LIMIT, QUICK_LIMIT = 600.0, 100.0
"""Seconds of wall time after which no larger size is begun."""
FACTS = 8
"""Of each task in a run where all goes well: the events that the orchestrator has to bring about or notice."""
BEND = 1.5
"""From where on an event takes so much more processor time than at best, the curve is said to bend."""


def run(*, quick: bool) -> tuple[list[Figure], list[dict[str, Any]]]:
    """Each size in a process of its own, so that its memory is its own."""
    rows: list[dict[str, Any]] = []
    began = time.monotonic()
    for size in QUICK if quick else SIZES:
        if time.monotonic() - began > (QUICK_LIMIT if quick else LIMIT):
            break
        rows.append(_in_a_process(size))
    return _figures(rows), rows


def _in_a_process(size: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.paper", str(size)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def _figures(rows: list[dict[str, Any]]) -> list[Figure]:
    base, figures = rows[0], list[Figure]()
    for row in rows[1:]:
        grown = (row["memory_kib"] - base["memory_kib"]) / (row["tasks"] - base["tasks"])
        name = f"N = {row['tasks']:,}"
        values = (
            ("events a second of processor time", FACTS * row["tasks"] / row["cpu"], "", True),
            ("processor time of a task", 1000 * row["cpu"] / row["tasks"], "ms", False),
            ("memory of a task", grown, "KiB", False),
            ("share of one core", row["cpu"] / row["virtual_seconds"], "", False),
            ("time over the bound", row["virtual_seconds"] / row["bound"], "", False),
        )
        figures += [
            Figure(bench="paper", name=f"{name}, {what}", value=value, unit=unit, more_is_better=more)
            for what, value, unit, more in values
        ]
    most = tasks_of_a_supervisor(rows)
    note = f"within {WITHIN:g} of the bound; 100,000 tasks need {math.ceil(100_000 / most)}"
    if most == rows[-1]["tasks"]:
        note = "the most that was tried: all are near the bound"
    bends = "" if _is_dear(rows)[-1] else "nowhere: it is the largest size that was tried"
    return [
        *figures,
        Figure(bench="paper", name="tasks of one supervisor", value=most, more_is_better=True, note=note),
        Figure(bench="paper", name="where the curve bends, tasks", value=bend(rows), more_is_better=True, note=bends),
    ]


WITHIN = 1.10
"""Most of the bound that the tasks of one supervisor may take."""


def tasks_of_a_supervisor(rows: list[dict[str, Any]]) -> float:
    """Most tasks that one supervisor brings to their end within WITHIN of the bound: between sizes a straight line."""
    ratios = [(row["tasks"], row["virtual_seconds"] / row["bound"]) for row in rows]
    good = [pair for pair in ratios if pair[1] <= WITHIN]
    if not good:
        return float(rows[0]["tasks"])
    tasks, ratio = good[-1]
    worse = next((pair for pair in ratios if pair[0] > tasks), None)
    if worse is None:
        return float(tasks)
    return tasks + (worse[0] - tasks) * (WITHIN - ratio) / (worse[1] - ratio)


def bend(rows: list[dict[str, Any]]) -> float:
    """The first size from which on an event takes BEND times the processor time of the best; else the last."""
    dear = _is_dear(rows)
    return float(next((row["tasks"] for i, row in enumerate(rows) if all(dear[i:])), rows[-1]["tasks"]))


def _is_dear(rows: list[dict[str, Any]]) -> list[bool]:
    costs = [row["cpu"] / row["tasks"] for row in rows]
    return [cost > BEND * min(costs) for cost in costs]


def _peak_memory() -> int:
    """Most memory of this process in KiB; getrusage would count that of the process which started it."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def main() -> None:
    """One size, whose figures are printed as JSON."""
    import asyncio
    import heapq
    import itertools

    from launcher.orchestrator.journal import Journal
    from launcher.orchestrator.run import Run
    from launcher.plan.model import EndpointPlan, JobPlan, TaskPlan
    from launcher.platforms.base import Observation, Progress, Resource, ResourceState, RunnerEnd
    from tests.fakes.clock import VirtualLoop
    from tests.fakes.platform import FakePlatform, Script
    from tests.unit.test_orchestrator_run import make_plan

    class Metered(FakePlatform):
        """The fake platform for runs where all goes well: a look takes what has come since the last one.

        It counts the processor time of its looks, which is not the orchestrator's.
        """

        used = 0.0

        def __init__(self, scripts: dict[str, Script]) -> None:
            super().__init__(scripts, poll_interval=1.0)
            self.shown: dict[str, dict[str, Resource]] = {"endpoint": {}, "job": {}}
            self.coming: list[tuple[float, int, str, str, Resource | None]] = []
            self.order = itertools.count()

        def comes(self, kind: str, name: str, after: float, thing: Resource | None) -> None:
            """So many seconds from now this is what is seen."""
            at = asyncio.get_running_loop().time() + after
            heapq.heappush(self.coming, (at, next(self.order), kind, name, thing))

        async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:  # noqa: ARG002
            await asyncio.sleep(0.01)
            made = Resource(name=spec.name, state=RUNNING, id=spec.name, url=f"http://{spec.name}")
            self.shown["endpoint"][spec.name] = made
            return made

        async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:  # noqa: ARG002
            await asyncio.sleep(0.01)
            script, name = self.scripts[task.key], spec.name
            boot, over = script.boot or 0.0, (script.boot or 0.0) + (script.lasts or 0.0)
            phases = [Progress(phase=phase) for phase in ("waiting", "evaluating", "ended")]
            self.shown["job"][name] = made = Resource(name=name, state=RUNNING, progress=phases[0])
            self.comes("job", name, boot, Resource(name=name, state=RUNNING, progress=phases[1]))
            end = RunnerEnd(reason="completed")
            ended = Resource(name=name, state=ResourceState.SUCCEEDED, progress=phases[2], end=end)
            self.comes("job", name, over, ended)
            return made

        async def delete_endpoint(self, name: str) -> None:
            self.comes("endpoint", name, 0.5, None)

        async def cancel_job(self, name: str) -> None:
            self.comes("job", name, 0.0, None)

        async def observe(self) -> Observation:
            began, now = time.process_time(), asyncio.get_running_loop().time()
            self.observed += 1
            while self.coming and self.coming[0][0] <= now:
                _, _, kind, name, thing = heapq.heappop(self.coming)
                if thing is None:
                    self.shown[kind].pop(name, None)
                else:
                    self.shown[kind][name] = thing
            seen = Observation(endpoints=dict(self.shown["endpoint"]), jobs=dict(self.shown["job"]))
            Metered.used += time.process_time() - began
            return seen

    class Laden(VirtualLoop):
        """What the orchestrator works passes on its clock."""

        def time(self) -> float:
            return self.elapsed + time.process_time() - Metered.used - started

    RUNNING = ResourceState.RUNNING
    started = time.process_time()
    tasks, dice = int(sys.argv[1]), random.Random(7)
    scripts = {
        f"t{number}": Script(boot=dice.lognormvariate(4, 0.4), lasts=dice.lognormvariate(5, 0.4))
        for number in range(tasks)
    }
    bound = max((script.boot or 0.0) + (script.lasts or 0.0) for script in scripts.values())
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        made = make_plan(Path(folder), tasks, execution={"usd_per_gpu_hour": 1.0})
        platform = Metered(scripts)

        async def life() -> Any:
            await asyncio.sleep(1)
            return await Run(made, platform, Journal(Path(folder) / "journal.db")).run()

        began, cpu = time.monotonic(), time.process_time()
        with asyncio.Runner(loop_factory=Laden) as runner:
            outcome = runner.run(life())
        used = time.process_time() - cpu
    row = {
        "tasks": tasks,
        "wall": time.monotonic() - began,
        "cpu": used - Metered.used,
        "platform_cpu": Metered.used,
        "looks": platform.observed,
        "bound": bound,
        "virtual_seconds": outcome.seconds,
        "scored": sum(bool(task.scores) for task in outcome.tasks),
        "memory_kib": _peak_memory(),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
