"""Where a job in a container finds its endpoint and the auxiliary ones: by name, or from the machine's own network."""

from __future__ import annotations

import pytest

pytest.importorskip("docker")

from launcher.config.evaluation import Settings
from launcher.harnesses.spec import HarnessJob
from launcher.plan.model import JobPlan, TargetPlan, TaskPlan
from launcher.platforms.local.docker.runtime import DockerRuntime

OWN, JUDGE, HOSTED, BESIDE = (
    "http://127.0.0.1:40001",
    "http://127.0.0.1:40002",
    "https://h.example",
    "http://localhost:9",
)


def addressed(url: str, auxiliary: str) -> tuple[str, str | None, dict[str, object]]:
    """URLs of the endpoint and of its judge inside the container, and the container's network."""
    runtime = object.__new__(DockerRuntime)
    runtime._network = "nv-eval-a1"
    runtime._inside = {OWN: "http://vllm-t-0-a1:8000", JUDGE: "http://vllm-judge-1-a1:8000"}
    target = TargetPlan(model="m", endpoint_type="chat")
    job = JobPlan(name="j", run=HarnessJob(harness="command", argv=("x",)), timeout=1.0)
    task = TaskPlan(
        index=0,
        key="t",
        name="t",
        harness="command",
        settings=Settings(),
        target=target,
        job=job,
        auxiliary={"judge": TargetPlan(model="j", endpoint_type="chat", url=auxiliary)},
    )
    task, inside, network = runtime._addressed(task, url)
    return inside, task.auxiliary["judge"].url, network


@pytest.mark.parametrize(
    ("url", "auxiliary", "expected"),
    [
        (OWN, JUDGE, ("http://vllm-t-0-a1:8000", "http://vllm-judge-1-a1:8000", {"network": "nv-eval-a1"})),
        (OWN, HOSTED, ("http://vllm-t-0-a1:8000", HOSTED, {"network": "nv-eval-a1"})),
        (HOSTED, JUDGE, (HOSTED, "http://vllm-judge-1-a1:8000", {"network": "nv-eval-a1"})),
        (OWN, BESIDE, (OWN, BESIDE, {"network_mode": "host"})),
        (BESIDE, JUDGE, (BESIDE, JUDGE, {"network_mode": "host"})),
    ],
    ids=["both ours", "hosted judge", "hosted model", "judge on this machine", "model on this machine"],
)
def test_a_job_is_given_addresses_that_lead_there_from_its_network(
    url: str, auxiliary: str, expected: tuple[str, str | None, dict[str, object]]
) -> None:
    assert addressed(url, auxiliary) == expected
