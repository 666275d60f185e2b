"""What sacct says of jobs that squeue has forgotten and that left no record."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from launcher.config.execution import Slurm
from launcher.config.validate import validate
from launcher.plan.build import build
from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.slurm import scripts
from launcher.platforms.slurm.platform import SlurmPlatform
from launcher.platforms.slurm.shell import Answer

ID = "a1b2c3d4"
NAME = f"vllm-gsm8k-0-{ID}"


class Cluster:
    """Its controller has forgotten the one job; `said` is what sacct says."""

    def __init__(self, said: str, label: str) -> None:
        self.said = said
        self.label = label
        self.asked: list[str] = []

    async def run(self, script: str, *arguments: str, payload: bytes = b"", timeout: float = 60.0) -> Answer:
        return Answer(0, self._answer(script, arguments).encode(), "")

    ask = run

    async def close(self) -> None:
        """Nothing is open."""

    def _answer(self, script: str, arguments: tuple[str, ...]) -> str:
        if script == scripts.SACCT:
            self.asked.append(arguments[0])
            return self.said
        if script == scripts.LOOK:
            jobs = '{"jobs": []}' if "--json" in arguments else ""
            return f"{jobs}{scripts.RECORDS}jobs/{NAME}/id\0nonce {self.label}\n"
        return "/home/me" if script == scripts.HOME else "slurm 24.05.1"


def told(tmp_path: Path, said: str, label: str = "12") -> tuple[Resource, list[str]]:
    """What is told of the evaluation, and for which jobs sacct was asked."""
    config = {
        "execution": {"type": "slurm"},
        "deployment": {"type": "vllm", "model_id": "acme/model"},
        "evaluation": {"tasks": [{"name": "gsm8k"}]},
    }
    plan, cluster = build(validate(config), ID), Cluster(said, label)

    async def looked() -> Resource:
        platform = SlurmPlatform(Slurm(), cluster)  # type: ignore[arg-type]
        await platform.open(plan, tmp_path)
        seen = await platform.observe()
        await platform.close()
        return seen.jobs[plan.tasks[0].job.name]

    return asyncio.run(looked()), cluster.asked


@pytest.mark.parametrize(
    ("said", "detail", "reason"),
    [
        ("12|CANCELLED by 1000|0:15\n", "cancelled from outside", "stopped"),
        ("12|TIMEOUT|0:0\n", "at its time limit", "harness_timeout"),
        ("12|NODE_FAIL|1:0\n", "its node failed", None),
        ("12|PREEMPTED|0:0\n", "job of higher priority", None),
        ("12|OUT_OF_MEMORY|0:125\n", "out of memory", None),
    ],
)
def test_how_it_ended_is_what_accounting_says(tmp_path: Path, said: str, detail: str, reason: str | None) -> None:
    job, asked = told(tmp_path, said)

    assert asked == ["12"]
    assert job.state is ResourceState.FAILED and detail in job.detail
    assert (job.end.reason if job.end else None) == reason
    assert job.preempted == ("PREEMPTED" in said)


def test_an_element_of_an_array_is_asked_for_by_its_own_number(tmp_path: Path) -> None:
    job, asked = told(tmp_path, "12_1|COMPLETED|0:0\n12_3|NODE_FAIL|1:0\n", "12_3")

    assert (asked, "its node failed" in job.detail) == (["12_3"], True)


def test_without_accounting_it_is_waited_for_as_its_record_may_come_late(tmp_path: Path) -> None:
    job, _ = told(tmp_path, "")

    assert job.state is ResourceState.RUNNING
