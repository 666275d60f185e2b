"""A hundred tasks at once: what the control plane is asked, how long it takes, what one failure does to the rest."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from launcher.emulators.lepton import Config, NoCapacity
from launcher.orchestrator.reasons import Reason
from tests.e2e.lepton import Bench, bench

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.anyio]  # alone on the machine: it measures time
TASKS = 100


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def overlap(made: Bench) -> bool:
    """Whether every endpoint was asked for before the first was ready."""
    asked = [record.time for record in made.emulator.requests if record.method == "POST" and "deploy" in record.path]
    first_job = min(r.time for r in made.emulator.requests if r.method == "POST" and r.path.endswith("/jobs"))
    return len(asked) == TASKS and max(asked) < first_job


async def test_a_hundred_tasks_take_as_long_as_the_longest_and_few_requests(tmp_path: Path) -> None:
    dice = random.Random(3)
    boots = [dice.uniform(3, 6) for _ in range(TASKS)]
    lasts = [dice.uniform(2, 8) for _ in range(TASKS)]
    with bench(tmp_path) as made:
        made.boots, made.lasts = boots.__getitem__, lasts.__getitem__
        outcome = await made.run(made.plan(TASKS, deployment={"start_timeout": 60}))

        assert {task.reason for task in outcome.tasks} == {Reason.COMPLETED}
        assert made.emulator.state().alive == ()
        assert overlap(made)
        assert len(made.emulator.requests) <= 8 * TASKS
        longest = max(boot + last for boot, last in zip(boots, lasts, strict=True))
        assert outcome.seconds <= longest * 1.05 + 2 + 2, "two seconds more: the emulator shares this process"


async def test_one_endpoint_that_never_starts_costs_only_its_own_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.orchestrator.decide.SLACK", 1.0)
    with bench(tmp_path, Config(faults=(NoCapacity(resource="container-t7-7-*"),))) as made:
        plan = made.plan(20, deployment={"start_timeout": 3, "health_timeout": 1})
        outcome = await made.run(plan)

        assert outcome.exit_code == 4
        failed = [task for task in outcome.tasks if task.reason is not Reason.COMPLETED]
        assert [(task.key, task.reason) for task in failed] == [("t7", Reason.ENDPOINT_START_TIMEOUT)]
        assert made.emulator.state().alive == ()
