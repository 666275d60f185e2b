"""The real `lep` CLI works on the emulator, in every family that its version speaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from launcher.emulators.lepton import Config, LeptonEmulator, Timing
from tests.contract.lepton.lep import Lep, program
from tests.contract.lepton.plane import SERVE, TOKEN, Plane, wait_for

SERVER = "server.py"
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

    status = plane.ok("GET", f"{plane.family}/vllm-llama")["status"]
    url = status.get("external_url") or status["endpoint"]["external_endpoint"]
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


def test_login_and_what_the_workspace_has(lep: Lep) -> None:
    lep("login", "-c", f"ws1:{TOKEN}", "-u", lep.emulator.url)

    assert "ws1" in lep("workspace", "list")
    assert "h100-pool" in lep("node", "list")
    lep("secret", "create", "-n", "ANOTHER", "-v", "canary-value")
    listed = lep("secret", "list")
    assert "ANOTHER" in listed
    assert "canary-value" not in listed


def test_files_go_up_and_down_where_the_version_has_storage(lep: Lep) -> None:
    if not lep.version.startswith("0.27"):
        pytest.skip("this version has no file storage")
    (lep.home / "up.txt").write_text("content")
    lep("storage", "mkdir", "/folder")
    lep("storage", "upload", "up.txt", "/folder/up.txt")
    assert "up.txt" in lep("storage", "ls", "/folder")
    lep("storage", "download", "/folder/up.txt", "down.txt")
    assert (lep.home / "down.txt").read_text() == "content"
    lep("storage", "rm", "/folder/up.txt")
    lep("storage", "rmdir", "/folder")
    assert not (lep.emulator.volume() / "folder").exists()
