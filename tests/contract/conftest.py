"""The platforms that the contract suite runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from launcher.config.execution import Docker, Local
from launcher.plan.model import Mount
from launcher.platforms.local.platform import LocalPlatform
from tests.contract.bench import Bench, Scene
from tests.engines.docker import TEST_IMAGE, engine_socket

SERVER = Path(__file__).parents[1] / "servers" / "openai_server.py"


@pytest.fixture
def anyio_backend() -> str:
    """The launcher runs on asyncio."""
    return "asyncio"


def process_bench() -> Bench:
    """Processes of this machine."""
    return Bench(
        make=lambda: LocalPlatform(Local(stop_grace=2.0, gpus=[0, 1])),
        server=("{python}", str(SERVER), "--port", "{port}"),
    )


def docker_bench() -> Bench:
    """Containers of a Docker Engine, jobs too. (Jobs beside the launcher: tests/e2e/test_docker_runtime.py.)"""
    socket = engine_socket()
    execution = Local(runtime="docker", stop_grace=1.0, gpus=[0, 1], docker=Docker(host=socket, pull="never"))
    return Bench(
        make=lambda: LocalPlatform(execution),
        server=("{python}", "/srv/openai_server.py", "--host", "{host}", "--port", "{port}"),
        image=TEST_IMAGE,
        job_image=TEST_IMAGE,
        mounts=(Mount(source=str(SERVER), path="/srv/openai_server.py", read_only=True),),
        limit=30.0,
    )


@pytest.fixture(params=["processes", pytest.param("containers", marks=pytest.mark.engine)])
def bench(request: pytest.FixtureRequest) -> Bench:
    """One platform after the other."""
    return process_bench() if request.param == "processes" else docker_bench()


@pytest.fixture
def scene(bench: Bench, tmp_path: Path) -> Iterator[Scene]:
    """A folder with an awkward name and an invocation that is used once."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    yield Scene(bench, uuid4().hex[:10], folder)
