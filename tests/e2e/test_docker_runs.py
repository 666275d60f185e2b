"""Whole runs in containers, on a real Docker Engine: the same scenario as with processes, and nothing left."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.platforms.local.gpulocks import holders
from launcher.platforms.local.machine import Gpu
from tests.e2e.cli import Home, assert_nothing_left, kill, wait_for
from tests.e2e.scenario import BENCHMARK, benchmark, by_key, run, write_config
from tests.engines.docker import TEST_IMAGE, engine_socket
from tests.servers import openai_server

pytestmark = [pytest.mark.e2e, pytest.mark.engine]
GPUS = (Gpu(number=0, visible="0"),)


def program(source: str) -> list[str]:
    """A Python program as an argument list that holds no placeholder by accident."""
    text = base64.b64encode(source.encode()).decode()
    return ["python3", "-c", f"import base64; exec(compile(base64.b64decode('{text}'), 'program', 'exec'))"]


def serve(*options: str) -> dict[str, Any]:
    source = Path(openai_server.__file__).read_text()
    command = [*program(source), "--host", "0.0.0.0", "--port", "{port}", "--model", "{model}", *options]
    times = {"start_timeout": 20, "health_timeout": 5}
    return {"type": "container", "model_id": "fake", "image": TEST_IMAGE, "command": command, **times}


def bench(name: str, kind: str = "works", seconds: float = 0.2) -> dict[str, Any]:
    task = benchmark(name, kind, seconds)
    return {**task, "command": [*program(BENCHMARK), kind, str(seconds)], "image": TEST_IMAGE}


@pytest.fixture
def docker_home(home: Home) -> Iterator[Home]:
    import docker

    home.extra["DOCKER_HOST"] = engine_socket()
    client = docker.DockerClient(base_url=engine_socket())
    before = remains(client)
    yield home
    wait_for(lambda: remains(client) <= before, "containers, networks and volumes are gone", timeout=15)
    client.close()
    assert_nothing_left(str(home.folder), within=10)  # the reaper looks a while for late containers


def remains(client: Any) -> set[str]:
    """Ids of all containers, networks and volumes."""
    containers = client.containers.list(all=True, ignore_removed=True)  # one may go while they are listed
    things = (*containers, *client.networks.list(), *client.volumes.list())
    return {thing.id for thing in things}


def configure(home: Home, tasks: list[dict[str, Any]], deployment: dict[str, Any]) -> None:
    write_config(home, tasks, deployment, execution={"runtime": "docker"})


def test_three_tasks_in_containers_score_and_nothing_is_left(docker_home: Home):
    configure(docker_home, [bench("a"), bench("b"), bench("a")], serve())
    code, record = run(docker_home)
    assert code == 0, record
    folder = docker_home.results / record["invocation"] / "a"
    assert (folder / "scores.json").is_file() and (folder / "image.json").is_file()


def test_faults_in_containers_end_as_their_own_reasons(docker_home: Home):
    configure(docker_home, [bench("fails", "fails"), bench("silent", "silent"), bench("works")], serve())
    code, record = run(docker_home)
    reasons = {key: task["reason"] for key, task in by_key(record).items()}
    assert reasons == {"fails": "harness_failed", "silent": "results_missing", "works": "completed"}
    assert code == 4


def test_a_container_that_runs_out_of_memory_while_loading_is_told_with_its_last_lines(docker_home: Home):
    configure(docker_home, [bench("a")], serve("--fault", "die_loading"))
    _, record = run(docker_home)
    task = by_key(record)["a"]
    assert task["reason"] == "endpoint_out_of_memory"
    assert any("OutOfMemory" in line for line in task["evidence"]["endpoint"])


def test_kill_9_of_the_launcher_removes_containers_and_network(docker_home: Home):
    gpu = {"runtime": "docker", "gpus": [0]}
    write_config(docker_home, [bench("a", seconds=60)], {**serve(), "gpus": 1}, execution=gpu)
    process = docker_home.start("run", "--config-dir", ".", "--config-name", "config")
    docker_home.invocation()
    log = docker_home.results / docker_home.invocation() / "a" / "job.log"
    wait_for(lambda: log.is_file() and "@nv-eval" in log.read_text(), "the job runs", timeout=60)
    kill(process)
    process.communicate()
    reserved = docker_home.folder / "gpu-locks"
    assert list(holders(GPUS, reserved).holders) == [0]  # its container is still there
    wait_for(lambda: not holders(GPUS, reserved).holders, "the GPU is free")
    assert containers_of(docker_home.invocation()) == []


def containers_of(invocation: str) -> list[str]:
    import docker

    from launcher.platforms.local.docker.engine import listed

    client = docker.DockerClient(base_url=engine_socket())
    try:
        return [found["Id"] for found in listed(client, invocation)]
    finally:
        client.close()
