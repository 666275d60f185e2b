"""The real kubectl against the emulated cluster, and what it says of a run of ours; our manifests by published schemas.

Both are in an environment of their own, which `python3 tasks.py kubectl` makes; NV_EVAL_TEST_KUBECTL names its folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from launcher.config.deployment import ONLY_ON_LEPTON
from launcher.config.execution import Kubernetes
from launcher.config.fields import Reference
from launcher.config.validate import validate
from launcher.emulators.kubernetes import KubernetesEmulator
from launcher.plan.build import build
from launcher.plan.kubernetes import reader, supervisor
from launcher.platforms.base import ResourceState
from launcher.platforms.kubernetes import anchor, rbac
from launcher.platforms.kubernetes.platform import helper
from tests.e2e.cli import wait_for
from tests.e2e.cluster_bench import Bench, bench

FOLDER = os.environ.get("NV_EVAL_TEST_KUBECTL")
OLDEST, NEWEST = "1.25.0", "1.37.0"
"""Versions of Kubernetes whose schemas our manifests are checked by."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.anyio,
    pytest.mark.skipif(FOLDER is None, reason="kubectl is not installed: python3 tasks.py kubectl"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as running:
        yield running


def kubectl(emulator: KubernetesEmulator, *words: str, given: str | None = None) -> str:
    env = {**os.environ, "KUBECONFIG": str(emulator.kubeconfig), "HOME": str(emulator.root)}
    program = str(Path(FOLDER or "", "kubectl"))
    done = subprocess.run(
        [program, *words], env=env, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"kubectl {' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


async def asked(made: Bench, *words: str) -> str:
    return await asyncio.to_thread(kubectl, made.emulator, *words)


def test_kubectl_applies_waits_scales_reads_and_deletes(made: Bench) -> None:
    plan = made.plan()
    request = plan.tasks[0].endpoint.request  # type: ignore[union-attr]
    name = request["items"][0]["metadata"]["name"]  # type: ignore[index]
    given = yaml.safe_dump_all(request["items"])  # type: ignore[index]
    applied = kubectl(made.emulator, "apply", "-f", "-", given=given)
    assert applied.split() == [f"deployment.apps/{name}", "created", f"service/{name}", "created"]
    assert "condition met" in kubectl(
        made.emulator, "wait", "--for=condition=Available", f"deployment/{name}", "--timeout=20s"
    )
    assert "unchanged" in kubectl(made.emulator, "apply", "-f", "-", given=given)
    assert "serverside-applied" in kubectl(
        made.emulator, "apply", "--server-side", "--force-conflicts", "-f", "-", given=given
    )
    kubectl(made.emulator, "scale", f"deployment/{name}", "--replicas=2")
    wait_for(lambda: kubectl(made.emulator, "get", "pods", "-o", "name").count("pod/") == 2, "two pods")
    assert kubectl(made.emulator, "logs", f"deployment/{name}").startswith("the server says hello")
    described = kubectl(made.emulator, "describe", "deployment", name)
    assert "2 desired" in described
    kubectl(made.emulator, "delete", "deployment,service", name, "--cascade=foreground")
    assert kubectl(made.emulator, "get", "all", "-o", "name") == ""


def test_kubectl_applies_our_list_as_one_document_and_knows_what_a_user_may(made: Bench) -> None:
    plan = made.plan()
    request = plan.tasks[0].endpoint.request  # type: ignore[union-attr]
    kubectl(made.emulator, "apply", "-f", "-", given=json.dumps(request))
    names = kubectl(made.emulator, "get", "deployments,services", "-o", "name").split()
    assert sorted(name.partition("/")[0] for name in names) == ["deployment.apps", "service"]

    manifests = [one for one in rbac.manifests("default") if one["kind"] != "CronJob"]
    kubectl(made.emulator, "apply", "-f", "-", given=yaml.safe_dump_all(manifests))
    person = made.emulator.kubeconfig_of(made.emulator.add_account("nv-eval"), tls=True)
    answers = [may(person, *words) for words in (("create", "jobs"), ("get", "pods/log"), ("delete", "nodes"))]
    assert answers == ["yes", "yes", "no"]
    whoami = kubectl(made.emulator, "--kubeconfig", str(person), "get", "pods", "-o", "name")
    assert whoami.startswith("pod/")


def may(kubeconfig: Path, *words: str) -> str:
    """What `kubectl auth can-i` answers; it ends with 1 where the answer is no."""
    program = str(Path(FOLDER or "", "kubectl"))
    done = subprocess.run(
        [program, "--kubeconfig", str(kubeconfig), "auth", "can-i", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip()


async def test_kubectl_and_the_launcher_say_the_same_of_a_run(made: Bench, tmp_path: Path) -> None:
    plan = made.plan()
    (task,) = plan.tasks
    assert task.endpoint is not None
    platform = made.open(plan)
    await platform.open(plan, tmp_path)
    await platform.create_endpoint(task, task.endpoint)
    name = task.endpoint.name
    while (found := (await platform.observe()).endpoints[name]).state is not ResourceState.RUNNING or not found.url:  # noqa: ASYNC110
        await asyncio.sleep(0.05)

    deployment = json.loads(await asked(made, "get", "deployment", name, "-o", "json"))
    service = json.loads(await asked(made, "get", "service", name, "-o", "json"))
    assert deployment["metadata"]["uid"] == found.id
    assert deployment["status"]["readyReplicas"] == 1
    assert f"http://{service['spec']['clusterIP']}:8000" == found.url
    assert (await asked(made, "logs", f"deployment/{name}")).splitlines() == await platform.tail(name, 50)
    (left,) = await platform.sweep()
    assert (
        await asked(made, "get", "deploy", "-l", "nv-eval/invocation=" + left.invocation, "-o", "name")
    ).strip() == (f"deployment.apps/{left.name}")

    await asked(made, "delete", "configmap", anchor.anchor_name(plan.invocation))
    while name in (seen := (await platform.observe()).endpoints) and seen[name].state is not ResourceState.GONE:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert made.emulator.left() == []
    await platform.close()


def manifests() -> Iterator[dict[str, Any]]:
    """Everything that we ever send, in its richest form."""
    pod = {
        "node_selector": {"a": "b"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}},
        "priority_class": "low", "runtime_class": "nvidia", "service_account": "evals",
        "security_context": {"runAsNonRoot": True, "runAsUser": 1000},
        "container_security_context": {"allowPrivilegeEscalation": False},
        "annotations": {"note": "x"}, "cpus": 1.5, "memory_gib": 8,
    }  # fmt: skip
    execution = {
        "type": "kubernetes",
        "endpoint": pod,
        "job": pod,
        "queue": "team",
        "image_pull_secrets": ["registry"],
        "storage": {"claim": "results", "model_cache": "models"},
        "labels": {"team": "evals"},
    }
    envs = {"HF_TOKEN": {"secret": "keys/hf"}, "PLAIN": "1"}
    for kind in ("vllm", "sglang", "trtllm", "llamacpp", "nim", "container"):
        assert kind not in ONLY_ON_LEPTON
        deployment: dict[str, Any] = {"type": kind, "model_id": "a/b", "image": "registry/x:1", "envs": envs}
        deployment |= {"command": ["serve"]} if kind == "container" else {}
        tasks = [{"name": "gsm8k_100"}]
        plan = build(validate({"execution": execution, "deployment": deployment, "evaluation": {"tasks": tasks}}))
        (task,) = plan.tasks
        assert isinstance(plan.execution_config(), Kubernetes)
        made = anchor.Anchor(name="nv-eval-x", uid="0a0b", owner="me")
        yield from (made.owned(item) for item in task.endpoint.request["items"])  # type: ignore[union-attr, index]
        yield made.owned(task.job.request or {})
        yield made.owned(helper(task))
        yield anchor.manifest(plan, 0.0)
        config = plan.execution_config()
        assert isinstance(config, Kubernetes)
        secret = Reference(env="HF_TOKEN")
        yield made.owned(supervisor(config, plan.invocation, [secret], life="1", yes=True))
        yield made.owned(reader(config, plan.invocation, "true", 0))
    yield from rbac.manifests("evaluations")


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_manifest_passes_the_published_schemas_strictly(version: str, tmp_path: Path) -> None:
    path = tmp_path / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(manifests()))
    words = [str(Path(FOLDER or "", "kubernetes-validate")), "-k", version, "--strict", str(path)]

    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") >= 30, done.stdout
