"""The platforms that the contract suite runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.config.execution import Docker, Local
from launcher.plan.model import Mount
from launcher.plan.names import new_invocation_id
from launcher.platforms.local.platform import LocalPlatform
from tests.contract.batched import batched_bench, faked_bench
from tests.contract.bench import Bench, Scene
from tests.contract.clustered import clustered_bench, real_bench
from tests.contract.hosted import hosted_bench
from tests.contract.rented import rented_bench
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


CLOUDS = {"deepinfra": rented_bench, "kubernetes": clustered_bench, "lepton": hosted_bench, "slurm_fake": faked_bench}
if "NV_EVAL_TEST_KUBECONFIG" in os.environ:
    CLOUDS["cluster"] = real_bench


ENGINES = [pytest.param(name, marks=pytest.mark.engine) for name in ("containers", "slurm")]


@pytest.fixture(params=["processes", *CLOUDS, *ENGINES])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """One platform after the other."""
    if request.param == "slurm":
        with batched_bench(SERVER) as made:
            yield made
        return
    if request.param in CLOUDS:
        with CLOUDS[request.param](SERVER) as made:
            yield made
    else:
        yield process_bench() if request.param == "processes" else docker_bench()


@pytest.fixture
def scene(bench: Bench, tmp_path: Path) -> Iterator[Scene]:
    """A folder with an awkward name and an invocation that is used once."""
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    yield Scene(bench, new_invocation_id(), folder)
