"""Runs whose supervisor is a Job of the cluster: the machine that began them leaves, looks, stops, goes on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from launcher.emulators.kubernetes import Config, KubernetesEmulator, Script, Timing
from launcher.emulators.lepton.config import Image
from launcher.platforms.kubernetes.rbac import NEEDED, role
from launcher.platforms.kubernetes.supervising import opened
from tests.e2e.cli import ROOT, Home, wait_for
from tests.e2e.cluster_bench import bench
from tests.e2e.scenario import benchmark
from tests.e2e.test_kubernetes_runs import delete, deployment, running_jobs, write_config

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
PYTHON = Image(path=(str(Path(sys.executable).parent),), env={"PYTHONPATH": str(ROOT)})
"""Every image is this Python."""
SUPERVISED = {"storage": {"claim": "results"}}
STATE = "volumes/results/nv-eval"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def emulator() -> Iterator[KubernetesEmulator]:
    config = Config(images=(PYTHON,), timing=Timing(tick=0.02, restart_delay=0.1))
    with KubernetesEmulator(config) as running:
        for manifest in role("nv-eval", "default", NEEDED):
            group = "api/v1" if manifest["kind"] == "ServiceAccount" else "apis/rbac.authorization.k8s.io/v1"
            plural = f"{manifest['kind'].lower()}s"
            httpx.post(f"{running.url}/{group}/namespaces/default/{plural}", json=manifest).raise_for_status()
        yield running


@pytest.fixture
def laptop(home: Home, emulator: KubernetesEmulator) -> Home:
    home.extra |= {"KUBECONFIG": str(emulator.kubeconfig), "CANARY_TOKEN": "canary-5e1f0c77"}
    return home


def detach(laptop: Home, *tasks: dict[str, Any], **sections: Any) -> str:
    """Begin a run in the cluster; returns its id. A benchmark of many seconds goes on until `let_go`."""
    served = deployment(envs={"HF_TOKEN": "${oc.env:CANARY_TOKEN}"})
    write_config(laptop, [*tasks], served, **{"execution": SUPERVISED, **sections})
    program = laptop.folder / "bench.py"
    held = f"seconds > 5 and not os.path.exists({str(laptop.folder / 'go')!r})"
    program.write_text(program.read_text().replace("time.monotonic() < deadline", held))
    done = laptop.run("run", "--detach=cluster", "--config-dir", ".", "--config-name", "config", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads(done.stdout)["invocation"])


def let_go(laptop: Home) -> None:
    """Have long benchmarks end."""
    (laptop.folder / "go").touch()


def status(laptop: Home, invocation: str) -> dict[str, Any]:
    done = laptop.run("status", invocation, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["invocations"]
    return dict(found)


def supervisors(emulator: KubernetesEmulator) -> list[dict[str, Any]]:
    pods = [pod for pod in emulator.objects("Pod") if pod["metadata"]["labels"].get("nv-eval/kind") == "supervisor"]
    return [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]


def test_the_machine_leaves_the_supervisor_dies_and_the_scores_come_home(
    laptop: Home, emulator: KubernetesEmulator
) -> None:
    invocation = detach(laptop, benchmark("a", seconds=60), benchmark("b"))
    (listed,) = json.loads(laptop.run("ls", "--json").stdout)["runs"]
    wait_for(lambda: any("-a-" in name for name in running_jobs(emulator)), "the job runs")

    running = status(laptop, invocation)
    wait_for(lambda: laptop.run("logs", invocation, "a", "--job").returncode == 0, "its output is here")
    (pod,) = supervisors(emulator)
    delete(emulator, f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}")
    wait_for(
        lambda: pod["metadata"]["name"] not in [p["metadata"]["name"] for p in supervisors(emulator)], "it is gone"
    )
    let_go(laptop)
    watched = laptop.run("attach", invocation)
    scores = laptop.run("results", invocation, "--format", "json")

    assert listed["state"] == running["state"] == "running"
    assert "in namespace default of http://127.0.0.1" in running["host"]
    assert watched.returncode == 0, watched.stdout + watched.stderr
    (record,) = json.loads(scores.stdout)
    assert [task["scores"][0]["value"] for task in record["tasks"]] == [0.5, 0.5]
    assert (laptop.results / invocation / "a" / "job.log").is_file()
    made = [one.name for one in emulator.made() if one.kind in ("Deployment", "Job")]
    assert len(made) == len(set(made)) == 5, "nothing was made twice"
    wait_for(lambda: not emulator.left(), "nothing is left")
    assert "canary-5e1f0c77" not in json.dumps([made.manifest for made in emulator.made() if made.kind != "Secret"])
    texts = [path for path in [*laptop.results.rglob("*"), *(emulator.root / STATE).rglob("*")] if path.is_file()]
    assert not [path for path in texts if b"canary-5e1f0c77" in path.read_bytes()]


def test_a_supervisor_that_is_not_started_again_is_told_and_what_it_left_goes(
    laptop: Home, emulator: KubernetesEmulator
) -> None:
    write = {**SUPERVISED, "supervisor": {"restarts": 0}}
    invocation = detach(laptop, benchmark("a", seconds=60), execution=write)
    wait_for(lambda: running_jobs(emulator) != [], "the job runs")
    assert status(laptop, invocation)["state"] == "running"

    (pod,) = supervisors(emulator)
    delete(emulator, f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}")
    wait_for(lambda: not supervisors(emulator), "it is gone")
    wait_for(lambda: status(laptop, invocation)["state"] == "interrupted", "it is told")
    stopped = laptop.run("stop", invocation)

    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert "its supervisor was gone; nothing of it is left" in stopped.stdout
    wait_for(lambda: not emulator.left(), "nothing is left")


def test_stop_ends_it_and_resume_goes_on_in_the_cluster(laptop: Home, emulator: KubernetesEmulator) -> None:
    invocation = detach(laptop, benchmark("a"), benchmark("b", seconds=60))
    wait_for(lambda: any("-b-" in name for name in running_jobs(emulator)), "the long job runs")

    stopped = laptop.run("stop", invocation)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert [task["reason"] for task in status(laptop, invocation)["tasks"]] == ["completed", "stopped"]
    wait_for(lambda: not emulator.left(), "nothing is left")

    let_go(laptop)
    resumed = laptop.run("resume", invocation, "evaluation.timeout=600")
    watched = laptop.run("attach", invocation)
    assert resumed.returncode == watched.returncode == 0, resumed.stderr + watched.stdout
    assert [task["reason"] for task in status(laptop, invocation)["tasks"]] == ["completed", "completed"]
    jobs = [made for made in emulator.made() if made.kind == "Job" and made.name.startswith("eval-")]
    assert sorted(job.name[:6] for job in jobs) == ["eval-a", "eval-b", "eval-b"], "what has scores is not run again"
    first, again = (job.manifest["spec"]["activeDeadlineSeconds"] for job in jobs[1:])
    assert first > 3600 > again, "the override counts"
    wait_for(lambda: not emulator.left(), "nothing is left")


async def test_another_machine_sees_that_it_lives_and_removes_all_of_it(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.job = lambda _: Script(output="supervising\n")  # type: ignore[method-assign]
        plan = made.plan(storage={"claim": "results"}, supervisor={"image": "sim/job", "service_account": "default"})
        platform = made.open(plan)
        await platform.open(plan, tmp_path)
        await platform.create_endpoint(plan.tasks[0], plan.tasks[0].endpoint)  # type: ignore[arg-type]
        await platform.close(at_once=True)
        config: Any = plan.execution_config()
        async with opened(config, plan.invocation) as supervised:
            await supervised.start(plan, life="1", yes=False)
        stranger = made.open(plan)

        found = await stranger.sweep(plan.invocation)
        await stranger.remove(next(left for left in found if left.name.endswith("-supervisor")))

        assert [left.launcher_alive for left in found] == [True, True]
        await asyncio.to_thread(wait_for, lambda: not made.emulator.left(), "nothing is left")
        await stranger.close()


@pytest.mark.parametrize(
    ("execution", "code", "words"),
    [
        ({}, 3, "set execution.storage.claim"),
        ({**SUPERVISED, "supervisor": {"service_account": "nobody"}}, 3, "no nobody in default; make it first"),
    ],
    ids=["no volume", "no account"],
)
def test_what_cannot_be_handed_over_is_refused_before_anything_is_made(
    execution: dict[str, Any], code: int, words: str, laptop: Home, emulator: KubernetesEmulator
) -> None:
    write_config(laptop, [benchmark("a")], deployment(), execution=execution)

    done = laptop.run("run", "--detach=cluster", "--config-dir", ".", "--config-name", "config")

    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert emulator.left() == []
