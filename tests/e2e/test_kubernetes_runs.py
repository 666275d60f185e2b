"""Whole runs on Kubernetes: the command line on one side, an emulated cluster on the other, real servers and jobs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from launcher.emulators.kubernetes import Config, KubernetesEmulator, Node, Timing
from tests.e2e.cli import Home, wait_for
from tests.e2e.scenario import BENCHMARK, benchmark, run, serve

pytestmark = pytest.mark.e2e


@pytest.fixture
def emulator(request: pytest.FixtureRequest) -> Iterator[KubernetesEmulator]:
    with KubernetesEmulator(getattr(request, "param", None) or Config(timing=Timing(tick=0.02))) as running:
        yield running


@pytest.fixture
def cluster_home(home: Home, emulator: KubernetesEmulator) -> Home:
    home.extra |= {"KUBECONFIG": str(emulator.kubeconfig), "CANARY_TOKEN": "canary-5e1f0c77"}
    return home


def write_config(home: Home, tasks: list[dict[str, Any]], deployment: dict[str, Any], **sections: Any) -> None:
    program = home.folder / "bench.py"
    program.write_text(BENCHMARK)
    for task in tasks:
        task["command"] = [str(program) if word == "bench.py" else word for word in task["command"]]
    execution = {"type": "kubernetes", "output_dir": "results"} | sections.pop("execution", {})
    evaluation = {"harness": "command", "tasks": tasks}
    config = {"execution": execution, "deployment": deployment, "evaluation": evaluation}
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config | sections))


def deployment(*options: str, **keys: Any) -> dict[str, Any]:
    """A server that has time to start on a busy machine: the cluster starts one again that has not in that time."""
    times = {"start_timeout": 90, "health_timeout": 30}
    return serve(*options, image="test/server:1", port=8000, **{**times, **keys})


def running_jobs(emulator: KubernetesEmulator) -> list[str]:
    return [p["metadata"]["name"] for p in emulator.objects("Pod") if _runs(p) and p["metadata"]["name"][:4] == "eval"]


def _runs(pod: dict[str, Any]) -> bool:
    return bool((pod.get("status") or {}).get("phase") == "Running")


def test_three_tasks_are_scored_and_nothing_is_left(cluster_home: Home, emulator: KubernetesEmulator) -> None:
    tasks = [benchmark("a"), benchmark("b"), benchmark("a", seconds=0.5)]
    write_config(cluster_home, tasks, deployment(envs={"HF_TOKEN": "${oc.env:CANARY_TOKEN}"}))

    code, record = run(cluster_home)

    assert code == 0, record
    assert [task["key"] for task in record["tasks"]] == ["a", "b", "a-2"]
    assert all(task["scores"][0]["value"] == 0.5 for task in record["tasks"])
    wait_for(lambda: not emulator.left(), "nothing is left")
    assert not emulator.used()
    texts = [path.read_bytes() for path in cluster_home.folder.rglob("*") if path.is_file()]
    assert not any(b"canary-5e1f0c77" in text for text in texts)


@pytest.mark.parametrize(
    "emulator", [Config(nodes=(Node(name="only", gpus=1),), timing=Timing(tick=0.02))], indirect=True
)
def test_more_gpus_than_there_are_wait_for_each_other_and_are_all_scored(
    cluster_home: Home, emulator: KubernetesEmulator
) -> None:
    write_config(cluster_home, [benchmark("a"), benchmark("b")], deployment(gpus=1))

    code, record = run(cluster_home)

    assert code == 0, record
    assert [task["scores"][0]["value"] for task in record["tasks"]] == [0.5, 0.5]
    assert any(event["reason"] == "FailedScheduling" for event in emulator.objects("Event"))


def test_a_node_that_is_lost_costs_an_attempt_and_no_score(cluster_home: Home, emulator: KubernetesEmulator) -> None:
    write_config(cluster_home, [benchmark("a", seconds=4)], deployment(), limits={"max_attempts": 2})
    process = cluster_home.start("run", "--config-dir", ".", "--config-name", "config", "--json")
    wait_for(lambda: running_jobs(emulator) != [], "the job runs")

    emulator.lose_node("node-1")
    out, _ = process.communicate(timeout=120)

    assert process.returncode == 0, out
    assert "-0r2-" in "".join(made.name for made in emulator.made()), "there was a second attempt"
    wait_for(lambda: not emulator.left(), "nothing is left")


def test_the_program_stopped_in_the_middle_leaves_nothing(cluster_home: Home, emulator: KubernetesEmulator) -> None:
    write_config(cluster_home, [benchmark("a", seconds=60), benchmark("b", seconds=60)], deployment())
    process = cluster_home.start("run", "--config-dir", ".", "--config-name", "config", "--json")
    wait_for(lambda: len(running_jobs(emulator)) == 2, "the jobs run")

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)

    assert process.returncode == 130
    wait_for(lambda: not emulator.left(), "nothing is left")


def test_an_api_server_that_is_killed_and_started_again_loses_no_score(
    cluster_home: Home, emulator: KubernetesEmulator
) -> None:
    write_config(cluster_home, [benchmark("a", seconds=5), benchmark("b", seconds=5)], deployment())
    process = cluster_home.start("run", "--config-dir", ".", "--config-name", "config", "--json")
    wait_for(lambda: len(running_jobs(emulator)) == 2, "the jobs run")

    emulator.outage(3.0)
    emulator.forget_changes()
    out, _ = process.communicate(timeout=120)

    assert process.returncode == 0, out
    made = [one.name for one in emulator.made() if one.kind == "Deployment"]
    assert len(made) == 2, "nothing was made twice"
    wait_for(lambda: not emulator.left(), "nothing is left")


def test_what_somebody_else_deletes_is_told_and_the_rest_goes_on(
    cluster_home: Home, emulator: KubernetesEmulator
) -> None:
    write_config(cluster_home, [benchmark("a", seconds=8), benchmark("b")], deployment())
    process = cluster_home.start("run", "--config-dir", ".", "--config-name", "config", "--json")
    wait_for(lambda: any("eval-a-0" in name for name in running_jobs(emulator)), "the job runs")

    (victim,) = [d["metadata"]["name"] for d in emulator.objects("Deployment", "apps/v1") if "-a-0-" in str(d)]
    delete(emulator, f"/apis/apps/v1/namespaces/default/deployments/{victim}")
    out, _ = process.communicate(timeout=120)

    assert process.returncode == 4, out
    first, second = json.loads(out)["tasks"]
    assert first["reason"] in ("endpoint_died", "endpoint_exited")
    assert second["scores"][0]["value"] == 0.5
    wait_for(lambda: not emulator.left(), "nothing is left")


def test_deleting_the_anchor_ends_everything(cluster_home: Home, emulator: KubernetesEmulator) -> None:
    write_config(cluster_home, [benchmark("a", seconds=60)], deployment())
    process = cluster_home.start("run", "--config-dir", ".", "--config-name", "config", "--json")
    wait_for(lambda: running_jobs(emulator) != [], "the job runs")
    process.kill()
    process.communicate(timeout=10)
    (anchor,) = [c["metadata"]["name"] for c in emulator.objects("ConfigMap")]

    delete(emulator, f"/api/v1/namespaces/default/configmaps/{anchor}")

    wait_for(lambda: not emulator.left(), "everything is gone with its anchor")
    assert not emulator.used()


def delete(emulator: KubernetesEmulator, path: str) -> None:
    import httpx

    assert httpx.delete(f"{emulator.url}{path}").status_code == 200


def test_a_cluster_that_nobody_answers_for_is_told_by_its_address(
    cluster_home: Home, emulator: KubernetesEmulator
) -> None:
    write_config(cluster_home, [benchmark("a")], deployment())
    text = emulator.kubeconfig.read_text().replace(emulator.url, "http://127.0.0.1:9")
    (cluster_home.folder / "dead.yaml").write_text(text)
    cluster_home.extra["KUBECONFIG"] = str(cluster_home.folder / "dead.yaml")

    done = cluster_home.run("run", "--config-dir", ".", "--config-name", "config")

    assert done.returncode == 7
    assert "Kubernetes: http://127.0.0.1:9 cannot be asked: " in done.stderr


def test_a_launcher_that_is_killed_is_resumed_with_what_runs(cluster_home: Home, emulator: KubernetesEmulator) -> None:
    write_config(cluster_home, [benchmark("a", seconds=4), benchmark("b", seconds=4)], deployment())
    process = cluster_home.start("run", "--config-dir", ".", "--config-name", "config", "--json")
    wait_for(lambda: len(running_jobs(emulator)) == 2, "the jobs run")
    process.kill()
    process.communicate(timeout=10)
    invocation = emulator.objects("ConfigMap")[0]["metadata"]["labels"]["nv-eval/invocation"]

    done = cluster_home.run("resume", invocation, "--json")

    assert done.returncode == 0, done.stdout + done.stderr
    assert [task["scores"][0]["value"] for task in json.loads(done.stdout)["tasks"]] == [0.5, 0.5]
    made = [one.name for one in emulator.made() if one.kind in ("Deployment", "Job")]
    assert len(made) == len(set(made)) == 4, "nothing was made twice"
    wait_for(lambda: not emulator.left(), "nothing is left")


def test_what_a_killed_launcher_left_is_cleaned_up_from_another_machine(
    cluster_home: Home, emulator: KubernetesEmulator
) -> None:
    write_config(cluster_home, [benchmark("a", seconds=60)], deployment())
    process = cluster_home.start("run", "--config-dir", ".", "--config-name", "config", "--json")
    wait_for(lambda: running_jobs(emulator) != [], "the job runs")
    process.kill()
    process.communicate(timeout=10)
    invocation = emulator.objects("ConfigMap")[0]["metadata"]["labels"]["nv-eval/invocation"]
    cluster_home.extra["NV_EVAL_HOME"] = str(cluster_home.folder / "elsewhere")

    done = cluster_home.run("cleanup", invocation)

    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: not emulator.left(), "nothing is left")
