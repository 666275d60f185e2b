"""Models over several nodes: one server in the pods of a LeaderWorkerSet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from launcher.emulators.kubernetes import Config, KubernetesEmulator, LoseAnswer, Node, Script
from launcher.emulators.kubernetes.kinds import EXTENSIONS
from launcher.emulators.lepton.container import Command
from launcher.orchestrator.reasons import Reason
from launcher.platforms.base import CheckState
from launcher.platforms.kubernetes.rbac import NEEDED, SETS
from tests.e2e.cli import Home, wait_for
from tests.e2e.cluster_bench import FAST, Bench, bench
from tests.e2e.scenario import benchmark, run
from tests.e2e.test_kubernetes_rights import install, used
from tests.e2e.test_kubernetes_runs import cluster_home, emulator, write_config

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
__all__ = ["cluster_home", "emulator"]
NODES = (Node(name="one", gpus=2), Node(name="two", gpus=2))
CLUSTER = Config(extensions=EXTENSIONS, nodes=NODES, timing=FAST)
TWO_NODES = {"type": "sglang", "model_id": "m", "image": "sim/server", "command": ["serve"], "gpus": 4}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("emulator", [CLUSTER], indirect=True, ids=["two nodes"])
def test_a_server_over_two_nodes_is_scored_and_leaves_nothing(cluster_home: Home, emulator: KubernetesEmulator) -> None:
    program = [sys.executable, "-m", "tests.servers.group_server", "--port", "{port}", "--model", "{model}"]
    server = {"type": "sglang", "model_id": "fake", "image": "test/server:1", "command": program, "gpus": 4}
    times = {"start_timeout": 60, "health_timeout": 20}
    write_config(cluster_home, [benchmark("a")], {**server, **times}, execution={"gpus_per_node": 2})

    code, record = run(cluster_home)

    assert (code, record["tasks"][0]["scores"][0]["value"]) == (0, 0.5)
    assert record["tasks"][0]["gpu_seconds"] > 0
    log = (cluster_home.results / record["invocation"] / "a" / "endpoint.log").read_text()
    assert "all of 2 nodes are here: 0, 1" in log
    wait_for(lambda: not emulator.left(), "nothing is left")


def members(made: Bench, worker: Script) -> None:
    """Simulate a group whose workers do as told."""
    leader = made.server

    def server(command: Command) -> Script:
        return leader(command) if command.env["LWS_WORKER_INDEX"] == "0" else worker

    made.server = server  # type: ignore[method-assign]


async def test_its_role_suffices_and_each_of_its_verbs_is_used(tmp_path: Path) -> None:
    with bench(tmp_path, CLUSTER) as made:
        members(made, Script(output="joined\n", opens_after=0.1))
        made.token = install(made.emulator, (*NEEDED, *SETS), "nv-eval")
        made.emulator.inject(LoseAnswer(route="POST *leaderworkersets", times=1))

        task = await made.task(deployment={**TWO_NODES, "start_timeout": 30}, gpus_per_node=2)

        wait_for(lambda: not made.emulator.left(), "nothing is left")
        verbs = {verb for verb in used(made.emulator.requests) if "leaderworkersets" in verb}
        pods = [one.name for one in made.emulator.made() if one.kind == "LeaderWorkerSet"]
    assert task.reason is Reason.COMPLETED, task.detail
    assert verbs == {str(right) for right in SETS}
    assert len(pods) == 1


async def test_a_worker_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    with bench(tmp_path, CLUSTER) as made:
        members(made, Script(output="NCCL error: no route to host\n", seconds=0.2, exit_code=3))
        made.boots = lambda _: 1000.0

        task = await made.task(deployment={**TWO_NODES, "start_timeout": 30}, gpus_per_node=2)

        wait_for(lambda: not made.emulator.left(), "nothing is left")
    assert task.reason is Reason.ENDPOINT_EXITED
    assert task.detail == "the server exited with code 3; its last line: NCCL error: no route to host"


async def test_what_a_killed_launcher_left_is_found_and_goes(tmp_path: Path) -> None:
    with bench(tmp_path, CLUSTER) as made:
        members(made, Script(output="joined\n", opens_after=0.1))
        plan = made.plan(deployment=TWO_NODES, gpus_per_node=2)
        platform = made.open(plan)
        await platform.open(plan, tmp_path)
        await platform.create_endpoint(plan.tasks[0], plan.tasks[0].endpoint)  # type: ignore[arg-type]
        await platform.close(at_once=True)
        stranger = made.open(plan)

        (left,) = await stranger.sweep(plan.invocation)
        await stranger.remove(left)

        assert (left.kind, left.name) == ("endpoint", plan.tasks[0].endpoint.name)  # type: ignore[union-attr]
        wait_for(lambda: not made.emulator.left(), "nothing is left")
        await stranger.close()


async def test_a_cluster_without_such_sets_refuses_before_anything_is_made(tmp_path: Path) -> None:
    with bench(tmp_path, Config(nodes=NODES, timing=FAST)) as made:
        plan = made.plan(deployment=TWO_NODES, gpus_per_node=2)
        platform = made.open(plan)
        checks = [check.message for check in await platform.preflight(plan) if check.state is CheckState.PROBLEM]
        await platform.close()

    assert checks == [
        "Kubernetes: an endpoint needs several nodes, and the cluster has no leaderworkerset.x-k8s.io/v1; "
        "have LeaderWorkerSet installed, or use GPUs of one node"
    ]


@pytest.mark.parametrize(
    ("execution", "deployment", "words"),
    [
        ({"nodes": 3}, TWO_NODES, "execution.nodes: 4 GPUs cannot be spread evenly over 3 nodes"),
        ({"nodes": 2, "gpus_per_node": 1}, TWO_NODES, "2 GPUs on each of 2 nodes, and gpus_per_node is 1"),
        ({"nodes": 2}, {"gpus": 4}, "deployment container runs on one node; use vllm or sglang"),
    ],
)
async def test_nodes_that_do_not_fit_are_refused(
    execution: dict[str, Any], deployment: dict[str, Any], words: str, tmp_path: Path
) -> None:
    from launcher.errors import ConfigError

    with bench(tmp_path, CLUSTER) as made, pytest.raises(ConfigError, match=words):
        made.plan(deployment=deployment, **execution)


async def test_vllm_spreads_by_ray(tmp_path: Path) -> None:
    with bench(tmp_path, CLUSTER) as made:
        keys = {"type": "vllm", "model_id": "a/b", "command": [], "tensor_parallel_size": 2}
        plan = made.plan(deployment={**keys, "pipeline_parallel_size": 2}, gpus_per_node=2)
    sets, service = plan.tasks[0].endpoint.request["items"]  # type: ignore[union-attr, index]
    template = sets["spec"]["leaderWorkerTemplate"]
    (leader,), (worker,) = (template[f"{one}Template"]["spec"]["containers"] for one in ("leader", "worker"))

    assert template["size"] == 2
    assert leader["resources"]["limits"] == worker["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert leader["command"] == worker["command"]
    assert "ray start --head" in leader["command"][2] and leader["command"][-2:] == [
        "--distributed-executor-backend",
        "ray",
    ]
    assert "readinessProbe" in leader and "readinessProbe" not in worker
    assert service["metadata"]["name"] == f"http-{sets['metadata']['name']}"
