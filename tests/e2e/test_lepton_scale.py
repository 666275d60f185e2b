"""A hundred tasks at once: what the control plane is asked, how long it takes, what one failure does to the rest.

The program is the real one, in a process of its own, so that its processor time can be told from the emulator's.
`pytest -s` prints the figures.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.emulators.lepton import Config, NoCapacity
from launcher.emulators.lepton.config import Timing
from launcher.orchestrator.reasons import Reason
from tests.e2e.cli import Home
from tests.e2e.lepton import TOKEN, Bench, bench
from tests.e2e.lepton_virtual import virtual_bench
from tests.fakes.clock import run_virtual

pytestmark = [pytest.mark.e2e, pytest.mark.engine]  # alone on the machine: it measures time
TASKS = 100
MOST_REQUESTS = 8
"""Per task."""
CPU_GOAL, CPU_LIMIT = 0.050, 0.075
"""Seconds of processor time per task besides the start-up: what is wanted, and what fails; machines are noisy."""


@dataclass
class Done:
    """One run of the program. Times in seconds."""

    code: int
    record: dict[str, Any]
    wall: float
    cpu: float
    errors: str = field(repr=False, default="")


@dataclass
class Scale:
    """A workspace on loopback, and the program."""

    made: Bench
    home: Home

    def write(self, tasks: int) -> None:
        served = {
            "type": "container",
            "model_id": "m",
            "image": "sim/server",
            "command": ["serve"],
            "start_timeout": 60,
            "health_timeout": 9,
        }
        execution = {
            "type": "lepton",
            "node_group": "h100-pool",
            "resource_shape": "gpu.1xh100",
            "output_dir": "results",
        }
        names = [{"name": f"t{number}"} for number in range(tasks)]
        evaluation = {"harness": "command", "command": ["true"], "timeout": 60, "tasks": names}
        config = {"execution": execution, "deployment": served, "evaluation": evaluation}
        (self.home.folder / "config.yaml").write_text(yaml.safe_dump(config))

    def run(self, *arguments: str) -> Done:
        """The program, to its end."""
        words = [sys.executable, "-m", "launcher.cli.main", "run", "--config-dir", ".", "--config-name", "config"]
        out, err = self.home.folder / "out", self.home.folder / "err"
        actions = [
            (os.POSIX_SPAWN_OPEN, 1, str(out), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, str(err), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        began = time.monotonic()
        here = Path.cwd()
        os.chdir(self.home.folder)
        try:
            words = [*words, "--json", *arguments]
            pid = os.posix_spawn(sys.executable, words, self.home.env(), file_actions=actions)
        finally:
            os.chdir(here)
        _, status, used = os.wait4(pid, 0)
        wall, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
        text = out.read_text()
        return Done(os.waitstatus_to_exitcode(status), json.loads(text) if text else {}, wall, cpu, err.read_text())


@pytest.fixture
def scale(tmp_path: Path, home: Home, request: pytest.FixtureRequest) -> Iterator[Scale]:
    with bench(tmp_path, getattr(request, "param", None)) as made:
        home.extra |= {
            "LEPTON_WORKSPACE_ID": made.emulator.config.workspace,
            "LEPTON_WORKSPACE_TOKEN": TOKEN,
            "LEPTON_WORKSPACE_URL": made.emulator.url,
        }
        yield Scale(made, home)


def times(low: float, high: float, seed: int) -> list[float]:
    dice = random.Random(seed)
    return [dice.uniform(low, high) for _ in range(TASKS)]


def creates_overlap(made: Bench) -> bool:
    """Whether every endpoint was asked for before the first was ready."""
    asked = [record.time for record in made.emulator.requests if record.method == "POST" and "/deploy" in record.path]
    ready = [when for item in made.emulator.state().endpoints for when, state in item.states if state == "Ready"]
    return len(asked) == TASKS and max(asked) < min(ready)


def jobs_follow_their_own_endpoints(made: Bench) -> bool:
    """Whether each job was submitted when its own endpoint was ready, neither before nor much later."""
    state = made.emulator.state()
    ready = {i.name.split("-")[-2]: min(t for t, s in i.states if s == "Ready") for i in state.endpoints}
    begun = {item.name.split("-")[-2]: item.states[0][0] for item in state.jobs}
    return all(0 <= begun[key] - when < 3 for key, when in ready.items())


def endpoints_go_with_their_own_tasks(made: Bench) -> bool:
    """Whether each endpoint was deleted when its own job had ended, and not with the others at the end."""
    state = made.emulator.state()
    deleted = {i.name.split("-")[-2]: min(t for t, s in i.states if s == "Deleting") for i in state.endpoints}
    ended = {i.name.split("-")[-2]: min(t for t, s in i.states if s == "Completed") for i in state.jobs}
    return all(0 <= when - ended[key] < 3 for key, when in deleted.items())


def test_a_hundred_tasks_take_as_long_as_the_longest_and_few_requests(scale: Scale) -> None:
    made, boots, lasts = scale.made, times(4, 8, 3), times(2, 8, 4)
    made.boots, made.lasts = boots.__getitem__, lasts.__getitem__
    scale.write(1)
    idle = scale.run("--dry-run")
    before = len(made.emulator.requests)
    scale.write(TASKS)

    done = scale.run()

    crowded = os.getloadavg()[0] > 2 * (os.cpu_count() or 1)  # others slow us; the virtual clock below is exact
    requests = len(made.emulator.requests) - before
    longest = max(boot + last for boot, last in zip(boots, lasts, strict=True))
    cpu = (done.cpu - idle.cpu) / TASKS
    seconds = done.record["seconds"]
    print(
        f"\nN = {TASKS}: {seconds:.1f} s, longest boot + job {longest:.1f} s; "
        f"{requests / TASKS:.1f} requests per task; "
        f"{1000 * cpu:.0f} ms of processor time per task, start-up {idle.cpu:.2f} s"
        f"{'' if cpu <= CPU_GOAL else ' (more than wanted)'}"
    )
    print(Counter(f"{r.method} /{r.path.split('/')[1]}" for r in made.emulator.requests[before:]))
    assert done.code == 0, done.errors
    assert [task["scores"][0]["value"] for task in done.record["tasks"]] == [0.5] * TASKS
    assert made.emulator.state().alive == ()
    assert creates_overlap(made)
    assert jobs_follow_their_own_endpoints(made)
    assert endpoints_go_with_their_own_tasks(made)
    assert requests <= MOST_REQUESTS * TASKS
    assert seconds <= longest * 1.05 + 2 + (2 if crowded else 0)
    assert cpu <= CPU_LIMIT


@pytest.mark.parametrize("scale", [Config(faults=(NoCapacity(resource="container-t7-7-*"),))], indirect=True)
def test_one_endpoint_that_never_starts_costs_only_its_own_score(scale: Scale) -> None:
    scale.made.boots, scale.made.lasts = (lambda _: 2.0), (lambda _: 2.0)
    scale.write(TASKS)

    done = scale.run("deployment.start_timeout=3", "deployment.health_timeout=1")

    assert done.code == 4, done.errors
    scored = [task for task in done.record["tasks"] if task["reason"] == Reason.COMPLETED]
    failed = [task for task in done.record["tasks"] if task not in scored]
    assert len(scored) == TASKS - 1
    assert all(task["scores"][0]["value"] == 0.5 for task in scored)
    assert [(task["key"], task["reason"]) for task in failed] == [("t7", Reason.ENDPOINT_START_TIMEOUT)]
    assert "no capacity in the node group" in failed[0]["detail"]
    assert scale.made.emulator.state().alive == ()


@pytest.mark.parametrize(("minutes", "most"), [(0.25, 8.0), (2.0, 8.0), (20.0, 9.0)])
def test_a_run_that_lasts_asks_no_more_of_the_service(tmp_path: Path, minutes: float, most: float) -> None:
    """On a virtual clock: requests grow with the logarithm of the time only, and the delay stays a share of it."""
    scale = minutes * 60 / 16
    boots, lasts = times(3 * scale, 8 * scale, 5), times(2 * scale, 8 * scale, 6)

    async def run() -> tuple[Bench, float]:
        config = Config(timing=Timing(tick=scale / 20 + 0.05))
        async with virtual_bench(tmp_path, config, boots=boots.__getitem__, lasts=lasts.__getitem__) as made:
            outcome = await made.run(made.plan(TASKS, deployment={"start_timeout": 3600, "health_timeout": 600}))
            assert outcome.exit_code == 0
            return made, outcome.seconds

    made, seconds = run_virtual(run())

    requests = len(made.emulator.requests) / TASKS
    longest = max(boot + last for boot, last in zip(boots, lasts, strict=True))
    print(f"\n{seconds:.0f} s, longest boot + job {longest:.0f} s, {requests:.2f} requests per task")
    assert requests <= most
    assert seconds <= longest * 1.05 + 2


def test_a_place_that_becomes_free_is_soon_taken(tmp_path: Path) -> None:
    """On a virtual clock: against list scheduling of the same times on as many places."""
    boots, lasts, places = times(12, 28, 7)[:24], times(10, 20, 8)[:24], 6

    async def run() -> float:
        async with virtual_bench(tmp_path, boots=boots.__getitem__, lasts=lasts.__getitem__) as made:
            plan = dataclasses.replace(made.plan(len(boots)), max_parallel_endpoints=places)
            outcome = await made.run(plan)
            assert outcome.exit_code == 0
            return outcome.seconds

    seconds = run_virtual(run())

    free = [0.0] * places
    for boot, last in zip(boots, lasts, strict=True):
        heapq.heapreplace(free, free[0] + boot + last)
    print(f"\n{seconds:.0f} s, {seconds / max(free):.3f} of list scheduling")
    assert seconds <= max(free) * 1.12
