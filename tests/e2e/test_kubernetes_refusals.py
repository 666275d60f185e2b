"""What a cluster can refuse or do to a run, provoked on the emulator, and what a person is told."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from launcher.emulators.common.faults import Fault
from launcher.emulators.kubernetes import Config, Crash, Deny, Evict, LoseAnswer, Node, PullError, Refuse, Script
from launcher.orchestrator.reasons import Reason
from launcher.platforms.base import CheckState
from launcher.platforms.kubernetes.platform import KubernetesPlatform
from tests.e2e.cluster_bench import FAST, Bench, bench
from tests.e2e.lepton import SCORES, job_output
from tests.e2e.test_kubernetes_runs import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
SERVER = "container-*"


@pytest.fixture(autouse=True)
def little_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backstop behind a server's own time-outs, which takes a minute."""
    monkeypatch.setattr("launcher.orchestrator.decide.SLACK", 1.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def cluster(*faults: Fault, **keys: object) -> Config:
    return dataclasses.replace(Config(timing=FAST, faults=faults), **keys)  # type: ignore[arg-type]


async def ending(folder: Path, config: Config, **keys: object) -> tuple[Reason, str]:
    """How one task ended on such a cluster, which is empty afterwards."""
    with bench(folder, config) as made:
        task = await made.task(**keys)
        wait_for(lambda: not made.emulator.left(), "nothing is left")
        return task.reason, task.detail


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (PullError(resource=SERVER), Reason.ENDPOINT_EXITED, "the image sim/server cannot be pulled: Back-off pulling"),
        (
            Crash(resource=SERVER, exit_code=3, message="no such model"),
            Reason.ENDPOINT_EXITED,
            "the server exited with code 3; its last line: no such model",
        ),
        (
            Crash(resource=SERVER, exit_code=137, reason="OOMKilled", message="loading"),
            Reason.ENDPOINT_OUT_OF_MEMORY,
            "the server ran out of memory (OOMKilled), exited with code 137; raise execution.endpoint.memory_gib",
        ),
        (Evict(resource=SERVER), Reason.PREEMPTED, "evicted: The node was low on resource: memory."),
        (
            Deny(route="POST *deployments*"),
            Reason.ENDPOINT_NOT_CREATED,
            'admission webhook "policy.example.com" denied the request: GPUs are reserved for another team',
        ),
        (PullError(resource="eval-*"), Reason.JOB_LOST, "the image sim/job cannot be pulled"),
    ],
    ids=["image", "crash", "out of memory", "evicted", "denied", "the job's image"],
)
async def test_what_ends_a_task_is_told_in_words(fault: Fault, reason: Reason, words: str, tmp_path: Path) -> None:
    found, detail = await ending(tmp_path, cluster(fault))

    assert (found, words in detail) == (reason, True), (found, detail)


async def test_more_gpus_than_are_free_wait_with_the_resource_that_is_short(tmp_path: Path) -> None:
    config = cluster(nodes=(Node(name="only", gpus=1),))

    reason, detail = await ending(tmp_path, config, deployment={"gpus": 2})

    assert reason is Reason.ENDPOINT_START_TIMEOUT
    assert "waits for a node with nvidia.com/gpu free (Unschedulable: 0/1 nodes are available" in detail


async def test_a_used_up_quota_is_told(tmp_path: Path) -> None:
    reason, detail = await ending(tmp_path, cluster(quota={"pods": "0"}))

    assert reason is Reason.ENDPOINT_START_TIMEOUT
    assert "the namespace's quota is used up: " in detail
    assert "exceeded quota: team, requested: pods=1, used: pods=0, limited: pods=0" in detail


async def test_a_secret_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan(deployment={"envs": {"HF_TOKEN": {"secret": "team-keys/hf"}}})
        platform = made.open(plan)
        checks = [check for check in await platform.preflight(plan) if check.state is CheckState.PROBLEM]
        await platform.close()
        task = (await made.run(plan)).tasks[0]

    assert [check.message for check in checks] == [
        "Kubernetes: a reference: there is no secret team-keys in default; make it first"
    ]
    assert task.reason is Reason.ENDPOINT_EXITED
    assert "secret team-keys does not exist in the namespace (CreateContainerConfigError)" in task.detail


async def test_a_job_that_outlives_its_deadline_is_ended_by_the_cluster(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.lasts = lambda _: 1000.0
        running = asyncio.ensure_future(made.task())
        await asyncio.to_thread(wait_for, lambda: jobs_run(made), "the job runs")
        made.emulator.advance(700)
        task = await running
        wait_for(lambda: not made.emulator.left(), "nothing is left")

    assert task.reason is Reason.JOB_LOST
    assert task.detail == "the cluster ended it: it was active for longer than its deadline"


def jobs_run(made: Bench) -> bool:
    pods = [p for p in made.emulator.objects("Pod") if p["metadata"]["name"].startswith("eval-")]
    return any((pod.get("status") or {}).get("phase") == "Running" for pod in pods)


async def test_lost_answers_and_refusals_make_nothing_twice(tmp_path: Path) -> None:
    faults = (
        LoseAnswer(route="POST *", probability=0.5),
        Refuse(route="* *", probability=0.1),
        Refuse(status=429, probability=0.1, retry_after=0),
    )
    with bench(tmp_path, cluster(*faults)) as made:
        outcome = await made.run(made.plan(tasks=3, deployment={"start_timeout": 60}))
        wait_for(lambda: not made.emulator.left(), "nothing is left")
        names = [one.name for one in made.emulator.made() if one.kind in ("Deployment", "Job")]

    assert [task.reason for task in outcome.tasks] == [Reason.COMPLETED] * 3
    assert len(names) == len(set(names)) == 6


async def test_a_watch_that_is_told_410_lists_again(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.lasts = lambda _: 2.0
        running = asyncio.ensure_future(made.task())
        await asyncio.to_thread(wait_for, lambda: jobs_run(made), "the job runs")
        made.emulator.outage(0.3)
        made.emulator.forget_changes()
        assert (await running).reason is Reason.COMPLETED
        platform: KubernetesPlatform = made.platform  # type: ignore[assignment]
        lists = [r for r in made.emulator.requests if r.path.endswith("/deployments") and "watch" not in r.query]
        assert platform.requests > 0
        assert sum(r.method == "GET" for r in lists) >= 2


async def test_a_plan_that_no_node_can_take_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan(deployment={"gpus": 16}, storage={"claim": "nowhere"})
        platform = made.open(plan)
        checks = [check.message for check in await platform.preflight(plan) if check.state is CheckState.PROBLEM]
        await platform.close()

        assert made.emulator.made() == []
    assert len(checks) == 2
    assert checks[0] == "Kubernetes: execution.storage.claim: there is no claim nowhere in default; make it first"
    assert checks[1].startswith("Kubernetes: an endpoint needs 16 nvidia.com/gpu, and the largest of 2 nodes")


async def test_results_that_do_not_fit_into_the_log_come_from_the_volume(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.output = lambda _: job_output(not_printed=True)
        plan = made.plan(storage={"claim": "results"})
        job, printed = made.job, stored_results()
        made.job = lambda c: job(c) if "fetch" not in c.env["HOSTNAME"] else fetched(c.argv, printed)  # type: ignore[method-assign]

        outcome = await made.run(plan)

        wait_for(lambda: not made.emulator.left(), "nothing is left")
    assert outcome.tasks[0].reason is Reason.COMPLETED, outcome.tasks[0].detail


def stored_results() -> str:
    """What `base64` prints of the archive that a job keeps on its volume."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("results.json", SCORES)
    return base64.encodebytes(buffer.getvalue()).decode()


def fetched(argv: tuple[str, ...], printed: str) -> Script:
    """The pod that reads results."""
    assert argv == ("/bin/sh", "-c", "base64 /nv-eval/results.zip")
    return Script(output=printed, seconds=0.1)
