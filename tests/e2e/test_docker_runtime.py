"""The docker runtime against a real engine: what only containers do. The common promises: tests/contract."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from launcher.config.execution import Docker, Local
from launcher.errors import PlatformError
from launcher.plan.model import TaskPlan
from launcher.platforms.base import CheckState, Resource, ResourceState
from launcher.platforms.local.platform import LocalPlatform
from tests.contract.bench import Bench, make_plan
from tests.contract.conftest import docker_bench
from tests.engines.docker import TEST_IMAGE, engine_socket

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.anyio]
LABEL = "nv-eval.invocation"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def bench() -> Bench:
    """Servers in containers, jobs beside the launcher."""
    return replace(docker_bench(), job_image=None)


@pytest.fixture
def client() -> Iterator[Any]:
    import docker

    client = docker.DockerClient(base_url=engine_socket())
    yield client
    client.close()


@pytest.fixture
def invocation(client: Any) -> Iterator[str]:
    """An invocation of which nothing may be left, neither containers nor networks nor volumes."""
    volumes = {volume.id for volume in client.volumes.list()}
    invocation = uuid4().hex[:10]
    yield invocation
    mine = {"label": f"{LABEL}={invocation}"}
    assert client.containers.list(all=True, filters=mine) == []
    assert client.networks.list(filters=mine) == []
    assert {volume.id for volume in client.volumes.list()} == volumes


async def until_state(platform: LocalPlatform, kind: str, name: str, *states: ResourceState) -> Resource:
    deadline = time.monotonic() + 30
    while True:
        found: Resource = getattr(await platform.observe(), kind)[name]
        if found.state in states:
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def test_a_job_beside_the_launcher_reaches_the_published_port(
    bench: Bench, invocation: str, tmp_path: Path
) -> None:
    task = bench.task(invocation)
    assert task.endpoint is not None
    platform = bench.make()
    await platform.open(make_plan(invocation, tmp_path, task), tmp_path)
    try:
        endpoint = await platform.create_endpoint(task, task.endpoint)
        await platform.submit_job(task, task.job, endpoint.url or "")
        job = await until_state(platform, "jobs", task.job.name, ResourceState.SUCCEEDED, ResourceState.FAILED)  # type: ignore[arg-type]
        assert job.end is not None
        assert job.end.reason == "completed"
        await platform.fetch(task, tmp_path / task.key / "output")
    finally:
        await platform.close()
    image = json.loads((tmp_path / task.key / "image.json").read_text())["endpoint"]
    assert image["image"] == TEST_IMAGE
    assert image["id"].startswith("sha256:")


async def test_a_server_that_needs_too_much_memory_says_so(bench: Bench, invocation: str, tmp_path: Path) -> None:
    task = with_server(bench.task(invocation), command=("python3", "-c", "x = b'x' * 2**30"), memory_gib=0.05)
    assert task.endpoint is not None
    platform = LocalPlatform(docker_execution())
    await platform.open(make_plan(invocation, tmp_path, task), tmp_path)
    try:
        await platform.create_endpoint(task, task.endpoint)
        failed = await until_state(platform, "endpoints", task.endpoint.name, ResourceState.FAILED)
        assert failed.detail == "killed for using more memory than deployment.memory_gib"
    finally:
        await platform.close()


async def test_a_command_the_image_lacks_is_in_the_log(bench: Bench, invocation: str, tmp_path: Path) -> None:
    task = with_server(bench.task(invocation), command=("no-such-server",))
    assert task.endpoint is not None
    platform = LocalPlatform(docker_execution())
    await platform.open(make_plan(invocation, tmp_path, task), tmp_path)
    try:
        await platform.create_endpoint(task, task.endpoint)
        failed = await until_state(platform, "endpoints", task.endpoint.name, ResourceState.FAILED)
        assert failed.exit_code == 127
        assert "no-such-server" in (await platform.tail(task.endpoint.name, 1))[0]
    except PlatformError as error:  # an engine without an init process refuses the start
        assert "no-such-server" in str(error)
    finally:
        await platform.close()


async def test_a_container_removed_by_somebody_else_is_a_failed_endpoint(
    bench: Bench, client: Any, invocation: str, tmp_path: Path
) -> None:
    task = bench.task(invocation)
    assert task.endpoint is not None
    platform = LocalPlatform(docker_execution())
    await platform.open(make_plan(invocation, tmp_path, task), tmp_path)
    try:
        await platform.create_endpoint(task, task.endpoint)
        client.containers.get(task.endpoint.name).remove(force=True)
        failed = await until_state(platform, "endpoints", task.endpoint.name, ResourceState.FAILED)
        assert "somebody else" in failed.detail
    finally:
        await platform.close()


async def test_an_image_that_is_not_here_is_a_preflight_problem(bench: Bench, invocation: str, tmp_path: Path) -> None:
    plan = make_plan(invocation, tmp_path, with_server(bench.task(invocation), image="nowhere/no-such-image:0"))
    checks = await LocalPlatform(docker_execution()).preflight(plan)
    assert [check.message for check in checks if check.state is CheckState.PROBLEM] == [
        "nowhere/no-such-image:0 is not on this machine and execution.docker.pull is never"
    ]


async def test_an_engine_that_does_not_answer_is_one_line(bench: Bench, invocation: str, tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/no.sock"
    execution = Local(runtime="docker", docker=Docker(host=host))
    checks = await LocalPlatform(execution).preflight(make_plan(invocation, tmp_path, bench.task(invocation)))
    problems = [check.message for check in checks if check.name == "docker"]
    assert problems == [
        f"no Docker or podman answers at {host}: there is no such socket; start it, or set execution.docker.host"
    ]


LAUNCHER = """
import asyncio, sys
from pathlib import Path
from tests.contract.bench import make_plan
from tests.contract.conftest import docker_bench

async def main(invocation, folder):
    bench = docker_bench()
    tasks = [bench.task(invocation, number, job_seconds=300) for number in (1, 2)]
    platform = bench.make()
    await platform.open(make_plan(invocation, folder, *tasks), folder)
    for task in tasks:
        made = await platform.create_endpoint(task, task.endpoint)
        await platform.submit_job(task, task.job, made.url)
    print("started", flush=True)
    await asyncio.sleep(300)

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


def test_kill_9_of_the_launcher_removes_containers_and_network(client: Any, invocation: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", LAUNCHER, invocation, str(tmp_path)]
    with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"started\n"
        mine = {"label": f"{LABEL}={invocation}"}
        assert len(client.containers.list(filters=mine)) == 4
        os.kill(launcher.pid, signal.SIGKILL)
    wait_until(lambda: not client.api.containers(filters=mine), 2)
    wait_until(lambda: not client.api.containers(all=True, filters=mine) and not client.networks.list(filters=mine), 5)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def with_server(task: TaskPlan, **changes: Any) -> TaskPlan:
    """The task with another server."""
    assert task.endpoint is not None
    return replace(task, endpoint=replace(task.endpoint, server=replace(task.endpoint.server, **changes)))


def docker_execution() -> Local:
    return Local(runtime="docker", stop_grace=1.0, gpus=[], docker=Docker(host=engine_socket(), pull="never"))
