"""Endpoints that their platform asks itself, as this machine may not reach them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from launcher.config.validate import validate
from launcher.orchestrator.decide import Action, Step, World, decide
from launcher.orchestrator.probing import EndpointProblem, Probes
from launcher.orchestrator.state import TaskState
from launcher.plan.build import build
from launcher.platforms.base import RunnerEnd

ID = "a1b2c3d4"


class Platform:
    """Says what was found out, once it is known."""

    def __init__(self, end: RunnerEnd | None) -> None:
        self.end = end
        self.asked: list[str] = []

    async def answers(self, name: str, say: Callable[[str, str], None]) -> RunnerEnd:
        self.asked.append(name)
        say("probing", "does it complete a token")
        return self.end or await asyncio.Future[RunnerEnd]()


@pytest.fixture
def task() -> TaskState:
    config = {
        "execution": {"type": "slurm"},
        "deployment": {"type": "vllm", "model_id": "acme/model"},
        "evaluation": {"tasks": [{"name": "gsm8k"}]},
    }
    return TaskState(plan=build(validate(config), ID).tasks[0])


def test_one_that_answers_is_ready_and_its_phases_are_told(task: TaskState) -> None:
    platform, said = Platform(RunnerEnd(reason="completed")), []

    asyncio.run(Probes(ID, platform).answers(task, lambda phase, _: said.append(phase)))

    assert (platform.asked, said) == ([f"vllm-gsm8k-0-{ID}"], ["probing"])


def test_one_that_does_not_ends_its_task_with_the_reason(task: TaskState) -> None:
    platform = Platform(RunnerEnd(reason="loglikelihood_wrong", detail="off by 3"))

    with pytest.raises(EndpointProblem, match="off by 3") as problem:
        asyncio.run(Probes(ID, platform).answers(task))

    assert problem.value.reason == "loglikelihood_wrong"


def test_an_endpoint_that_evaluates_is_made_after_the_auxiliary_ones(task: TaskState) -> None:
    task.admitted = True

    assert decide(task, World(now=0.0, follows_auxiliary=True)) is None
    assert decide(task, World(now=0.0)) == Step(Action.CREATE_ENDPOINT)


def test_nobody_waits_for_it_once_it_is_stopped(task: TaskState) -> None:
    async def stopped() -> str:
        probes = Probes(ID, Platform(None))
        asking = asyncio.ensure_future(probes.answers(task))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        probes.stop_all()
        with pytest.raises(EndpointProblem) as problem:
            await asking
        return problem.value.reason

    assert asyncio.run(stopped()) == "stopped"
