"""The real `lep` CLI works on the emulator, in every family that its version speaks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from launcher.emulators.lepton import Config, LeptonEmulator, Timing
from tests.contract.lepton.lep import Lep, program
from tests.contract.lepton.plane import SERVE, TOKEN, Plane, wait_for
from tests.e2e.cli import Home
from tests.e2e.scenario import BENCHMARK, benchmark, serve

SERVER = "server.py"
PROGRESS = '"event": "progress"'
MOUNT = "/hf-cache:/root/.cache/huggingface:node-nfs:lepton-shared-fs"


def combinations() -> Iterator[object]:
    """Each version with each family it speaks."""
    for version, new in (("0.47.1", False), ("0.47.1", True), ("0.27.3", False)):
        yield pytest.param((version, new), id=f"{version}-{'endpoints' if new else 'deployments'}")


@pytest.fixture(scope="module", params=combinations())
def lep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lep]:
    version, new = request.param
    home = tmp_path_factory.mktemp("lep")
    (home / SERVER).write_text(SERVE[2])
    config = Config(
        new_deployment_api=new,
        secrets={"MY_HF_TOKEN": "hf-value"},
        image_pull_secrets=("ngc",),
        timing=Timing(tick=0.02),
    )
    with LeptonEmulator(config) as emulator:
        yield Lep(version, program(version), home, emulator)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def plane(lep: Lep) -> Iterator[Plane]:
    with Plane(lep.emulator) as found:
        yield found


def create_endpoint(lep: Lep, name: str) -> None:
    lep(
        *("endpoint", "create", "-n", name, "--container-image", "vllm/vllm-openai:v0.11.0"),
        *("--container-port", "8000:tcp", "--container-command", f"python3 {lep.home}/{SERVER} --port 8000"),
        *("-rs", "gpu.1xh100", "-ng", "h100-pool", "--mount", MOUNT, "-e", "GREETING=/root/.cache/huggingface/x"),
        *("-s", "HF_TOKEN=MY_HF_TOKEN", "--tokens", "sk-endpoint-token-000001", "--autoscale-down", "1,3600s"),
        *("--image-pull-secrets", "ngc", "--shared-memory-size", "16384", "--initial-delay-seconds", "1800"),
        *("--visibility", "private", "--log-collection", "true"),
    )


def create_job(lep: Lep, plane: Plane, name: str, command: str) -> str:
    lep(
        *("job", "create", "-n", name, "--container-image", "any", "--command", command, "-rs", "cpu.small"),
        *("-ng", "h100-pool", "-w", "1", "-e", "A=B", "-s", "HF_TOKEN=MY_HF_TOKEN"),
        *("--mount", "/results:/results:node-nfs:lepton-shared-fs", "--ttl-seconds-after-finished", "86400"),
        *("--max-failure-retry", "1", "--max-job-failure-retry", "1", "--visibility", "private"),
    )
    (id,) = [item.id for item in plane.emulator.state().jobs if item.name == name]
    return id


def test_an_endpoint_lives_from_create_to_remove(lep: Lep, plane: Plane) -> None:
    create_endpoint(lep, "vllm-llama")
    wait_for(lambda: plane.state("vllm-llama") == "Ready")

    url = external_url(plane, "vllm-llama")
    answer = plane.http.get(f"{url}/v1", headers={"Authorization": "Bearer sk-endpoint-token-000001"}).text
    assert f"{lep.emulator.volume()}/hf-cache/x" in answer
    assert plane.http.get(url, headers={"Authorization": "Bearer other"}).status_code == 401

    assert "vllm-llama" in (listed := lep("endpoint", "list"))
    assert "Ready" in listed
    assert '"resource_shape": "gpu.1xh100"' in lep("endpoint", "get", "-n", "vllm-llama")
    assert "Ready" in lep("endpoint", "status", "-n", "vllm-llama")
    assert "Started" in lep("endpoint", "events", "-n", "vllm-llama")
    assert "listening" in lep("log", "get", "-e", "vllm-llama", "--start", "today", "--end", "now")

    lep("endpoint", "stop", "-n", "vllm-llama")
    wait_for(lambda: plane.state("vllm-llama") == "Stopped")
    lep("endpoint", "update", "-n", "vllm-llama", "-r", "2")
    wait_for(lambda: plane.state("vllm-llama") == "Ready")
    assert len(plane.ok("GET", f"{plane.family}/vllm-llama/replicas")) == 2
    lep("endpoint", "remove", "-n", "vllm-llama")
    wait_for(lambda: plane.state("vllm-llama") == "gone")


def test_a_job_lives_from_create_to_remove(lep: Lep, plane: Plane) -> None:
    id = create_job(lep, plane, "eval-0", "echo printed; exec sleep 600")
    wait_for(lambda: plane.job_state(id) == "Running")

    assert id in (listed := lep("job", "list"))
    assert "Running" in listed
    assert '"value": "B"' in lep("job", "get", "--id", id)
    lep("job", "stop", "--id", id)
    wait_for(lambda: plane.job_state(id) == "Stopped")
    assert "printed" in lep("log", "get", "--job", id)
    lep("job", "start", "--id", id)
    wait_for(lambda: plane.job_state(id) == "Running")
    lep("job", "remove", "--id", id)
    wait_for(lambda: plane.job_state(id) == "gone")


def test_a_finished_job_keeps_its_output_and_its_files(lep: Lep, plane: Plane) -> None:
    id = create_job(lep, plane, "eval-1", "echo $A $LEPTON_JOB_NAME; echo score > /results/score")

    assert plane.finish(id) == "Completed"
    assert f"B {id}" in lep("job", "log", "--id", id)
    assert f"B {id}" in lep("log", "get", "--job", id)
    assert (lep.emulator.volume() / "results" / "score").read_text() == "score\n"
    assert "Completed" in lep("job", "events", "--id", id)


def test_the_guides_own_commands_make_a_server_and_show_its_log(lep: Lep, plane: Plane) -> None:
    lep(
        *("dep", "create", "-n", "pythonserver", "--container-image", "python:3.10"),
        *("--container-command", "python3 -m http.server 8080", "--public"),
        *(("--container-port", "8080") if lep.emulator.config.new_deployment_api else ()),  # else it asks for 40000
    )
    wait_for(lambda: plane.state("pythonserver") == "Ready")
    url = external_url(plane, "pythonserver")
    assert plane.http.get(url).status_code == 200

    assert "GET / HTTP" in lep.follow("GET /", "deployment", "log", "--name", "pythonserver")
    lep("deployment", "remove", "--name", "pythonserver")
    wait_for(lambda: plane.state("pythonserver") == "gone")


def test_it_shows_what_a_run_of_ours_created_and_that_it_is_gone(lep: Lep, plane: Plane, home: Home) -> None:
    write_config(home, lep)
    with home.start("run", "--config-dir", ".", "--config-name", "config", "--json") as run:
        try:
            endpoint, job = when_it_evaluates(plane)

            assert_shown(lep, endpoint, job)
            run.send_signal(signal.SIGINT)
            run.communicate(timeout=60)
        finally:
            run.kill()

    assert run.returncode == 130
    assert endpoint not in lep("endpoint", "list")
    assert job not in lep("job", "list")


def write_config(home: Home, lep: Lep) -> None:
    """One task whose job runs until it is stopped, on a server of the tests."""
    execution = {"type": "lepton", "node_group": "h100-pool", "resource_shape": "gpu.1xh100", "output_dir": "results"}
    task = benchmark("shown", seconds=600)
    task["command"] = [str(home.folder / "bench.py") if word == "bench.py" else word for word in task["command"]]
    (home.folder / "bench.py").write_text(BENCHMARK)
    config = {
        "execution": execution,
        "deployment": serve(image="test/server:1", port=8000),
        "evaluation": {"harness": "command", "tasks": [task]},
    }
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))
    home.extra |= {
        "LEPTON_WORKSPACE_ID": lep.emulator.config.workspace,
        "LEPTON_WORKSPACE_TOKEN": TOKEN,
        "LEPTON_WORKSPACE_URL": lep.emulator.url,
    }


def when_it_evaluates(plane: Plane) -> tuple[str, str]:
    """Name of the endpoint and id of the job of a run of ours, once its job evaluates."""

    def jobs() -> list[str]:
        return [item.id for item in plane.emulator.state().jobs if not item.gone and "shown" in item.name]

    wait_for(lambda: any(PROGRESS in line for job in jobs() for line in plane.log(job=job)), 60.0)
    (endpoint,) = [item.name for item in plane.emulator.state().endpoints if not item.gone and "shown" in item.name]
    return endpoint, jobs()[0]


def assert_shown(lep: Lep, endpoint: str, job: str) -> None:
    """Every command that reads finds both."""
    assert endpoint in (endpoints := lep("endpoint", "list"))
    assert "Ready" in endpoints
    assert '"no_traffic_timeout"' in lep("endpoint", "get", "-n", endpoint)
    assert "Ready" in lep("endpoint", "status", "-n", endpoint)
    assert "Started" in lep("endpoint", "events", "-n", endpoint)
    assert "listening" in lep("log", "get", "-e", endpoint, "--start", "today", "--end", "now")
    assert job in (jobs := lep("job", "list"))
    assert "Running" in jobs
    assert '"NV_EVAL_INVOCATION"' in lep("job", "get", "--id", job)
    assert "Started" in lep("job", "events", "--id", job)
    assert "@nv-eval" in lep("log", "get", "--job", job)


def external_url(plane: Plane, name: str) -> str:
    status = plane.ok("GET", f"{plane.family}/{name}")["status"]
    return str(status.get("external_url") or status["endpoint"]["external_endpoint"])


def test_login_and_what_the_workspace_has(lep: Lep) -> None:
    lep("login", "-c", f"ws1:{TOKEN}", "-u", lep.emulator.url)

    assert "ws1" in lep("workspace", "list")
    assert "h100-pool" in lep("node", "list")
    lep("secret", "create", "-n", "ANOTHER", "-v", "canary-value")
    listed = lep("secret", "list")
    assert "ANOTHER" in listed
    assert "canary-value" not in listed


@pytest.mark.parametrize("lep", [("0.27.3", False)], ids=["0.27.3-deployments"], indirect=True)
def test_files_go_up_and_down_where_the_version_has_storage(lep: Lep) -> None:
    (lep.home / "up.txt").write_text("content")
    lep("storage", "mkdir", "/folder")
    lep("storage", "upload", "up.txt", "/folder/up.txt")
    assert "up.txt" in lep("storage", "ls", "/folder")
    lep("storage", "download", "/folder/up.txt", "down.txt")
    assert (lep.home / "down.txt").read_text() == "content"
    lep("storage", "rm", "/folder/up.txt")
    lep("storage", "rmdir", "/folder")
    assert not (lep.emulator.volume() / "folder").exists()
