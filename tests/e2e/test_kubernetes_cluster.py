"""What a cluster does beside runs: its timetable collects what has expired, it chooses nodes; doctor; a judge."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from launcher.emulators.kubernetes import Config, KubernetesEmulator, Node, Timing
from launcher.orchestrator.reasons import Reason
from launcher.platforms.base import CheckState
from launcher.platforms.kubernetes import checkup, rbac
from tests.e2e.cli import Home, wait_for
from tests.e2e.cluster_bench import FAST, bench
from tests.e2e.scenario import run
from tests.e2e.test_auxiliary import PROGRAM
from tests.e2e.test_kubernetes_detached import PYTHON
from tests.e2e.test_kubernetes_rights import install
from tests.e2e.test_kubernetes_runs import cluster_home, deployment, emulator, write_config

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
__all__ = ["cluster_home", "emulator"]
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
IN_B = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}
AFFINITY = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [IN_B]}}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def apply(emulator: KubernetesEmulator, manifest: dict[str, Any]) -> None:
    group = manifest["apiVersion"]
    path = f"/apis/{group}" if "/" in group else f"/api/{group}"
    plural = f"{manifest['kind'].lower()}s"
    httpx.post(f"{emulator.url}{path}/namespaces/default/{plural}", json=manifest).raise_for_status()


async def test_the_printed_timetable_removes_what_has_expired_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("cronsim", reason="pip install 'nv-eval-launcher[emulators]'")
    with bench(tmp_path, Config(images=(PYTHON,), timing=FAST)) as made:
        for manifest in rbac.manifests("default"):
            apply(made.emulator, manifest)
        kept = []
        for expires in (1.0, 4e9):
            plan = replace(made.plan(), expires=expires)
            platform = made.open(plan)
            await platform.open(plan, tmp_path)
            await platform.create_endpoint(plan.tasks[0], plan.tasks[0].endpoint)  # type: ignore[arg-type]
            await platform.close(at_once=True)
            kept.append(plan.invocation)

        made.emulator.advance(900)
        jobs = await asyncio.to_thread(wait_for, lambda: ended_jobs(made.emulator), "the collector has run", 90)
        left = made.emulator.left()

    assert [job["metadata"]["name"].rpartition("-")[0] for job in jobs] == ["nv-eval-gc"]
    assert jobs[0]["status"]["succeeded"] == 1
    assert not [name for name in left if kept[0] in name]
    assert [name for name in left if kept[1] in name]


def ended_jobs(emulator: KubernetesEmulator) -> list[dict[str, Any]]:
    return [job for job in emulator.objects("Job", "batch/v1") if (job.get("status") or {}).get("conditions")]


async def test_tainted_and_other_nodes_are_told_and_tolerations_and_affinity_lead_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.orchestrator.decide.SLACK", 1.0)
    nodes = (Node(name="a", labels={"zone": "a"}), Node(name="b", labels={"zone": "b"}, taints=(GPU_TAINT,)))
    with bench(tmp_path, Config(nodes=nodes, timing=FAST)) as made:
        refused = await made.task(endpoint={"affinity": AFFINITY}, deployment={"start_timeout": 2})
        tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
        plan = made.plan(endpoint={"affinity": AFFINITY, "tolerations": tolerations})
        made.lasts = lambda _: 1.0
        running = asyncio.ensure_future(made.run(plan))
        where = await asyncio.to_thread(wait_for, lambda: nodes_of(made.emulator, plan.invocation), "a pod is placed")
        outcome = await running

    assert refused.reason is Reason.ENDPOINT_START_TIMEOUT
    assert "1 node(s) had untolerated taint {nvidia.com/gpu: present}" in refused.detail
    assert "its tolerations are too few" in refused.detail
    assert where == ["b"]
    assert outcome.tasks[0].reason is Reason.COMPLETED


def nodes_of(emulator: KubernetesEmulator, invocation: str) -> list[str]:
    """The nodes of the endpoints' pods of an invocation."""
    wanted = {"nv-eval/invocation": invocation, "nv-eval/kind": "endpoint"}
    pods = [p for p in emulator.objects("Pod") if wanted.items() <= p["metadata"]["labels"].items()]
    return [pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")]


def test_a_judge_serves_all_tasks_and_goes_with_the_last(cluster_home: Home, emulator: KubernetesEmulator) -> None:
    judge = {"deployment": deployment(model_id="wise") | {"image": "test/judge:1"}}
    command = [sys.executable, str(PROGRAM)]
    tasks = [{"name": name, "command": list(command), "limit": 2} for name in ("a", "b")]
    write_config(cluster_home, tasks, deployment(), auxiliary={"judge": judge})

    code, record = run(cluster_home)

    assert code == 0, record
    (one,) = record["auxiliary"]
    assert (one["reason"], one["tasks"]) == ("released", ["a", "b"])
    made = [one.name for one in emulator.made() if one.kind == "Deployment"]
    assert len(made) == 3, "one for each task, and one judge"
    wait_for(lambda: not emulator.left(), "nothing is left")


@pytest.mark.parametrize("emulator", [Config(timing=Timing(tick=0.02))], indirect=True, ids=["plain"])
async def test_doctor_says_what_it_found(emulator: KubernetesEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"context emulated, namespace default at {emulator.url}"
    found = []
    short = install(emulator, tuple(right for right in rbac.NEEDED if right.verb != "watch"), "short")
    for file in (emulator.kubeconfig, emulator.kubeconfig_of(short), emulator.kubeconfig_of("unknown")):
        monkeypatch.setenv("KUBECONFIG", str(file))
        found.append(await checkup.check(10.0))
    dead = emulator.root / "dead.yaml"
    dead.write_text(emulator.kubeconfig.read_text().replace(emulator.url, "http://127.0.0.1:9"))
    monkeypatch.setenv("KUBECONFIG", str(dead))
    found.append(await checkup.check(2.0))

    assert [check.state for check in found] == [CheckState.OK, *[CheckState.PROBLEM] * 3]
    assert found[0].message == f"{where}, v1.37.1: all rights that a run needs"
    assert found[1].message == f"{where}: not allowed: watch pods, watch deployments.apps, watch jobs.batch"
    assert found[2].message == f"{where}: Unauthorized"
    assert found[3].message.startswith("context emulated, namespace default at http://127.0.0.1:9: ")
