"""Simulated endpoints of the emulated workspace: they answer what the launcher asks, from when they are ready."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from launcher.emulators.lepton import Config, LeptonEmulator, SimulatedServer
from launcher.emulators.lepton.config import load
from launcher.runner import runner
from tests.contract.lepton.plane import QUICK, TOKEN, Plane, wait_for

LATE = 500.0
"""Seconds of the emulator's clock."""


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    servers = (SimulatedServer(pattern="slow/*", model="m", opens_after=LATE), SimulatedServer(pattern="*vllm*"))
    with LeptonEmulator(Config(timing=QUICK, simulated_servers=servers)) as emulator, Plane(emulator) as found:
        yield found


def target(url: str, model: str = "m", **keys: object) -> runner.Target:
    return runner.Target(url=url, model=model, start_timeout=0.0, health_timeout=1.0, **keys)  # type: ignore[arg-type]


def test_what_the_launcher_asks_before_it_calls_an_endpoint_ready_is_answered(plane: Plane) -> None:
    command = ["vllm", "serve", "org/model", "--served-model-name", "short"]
    url = plane.create_ready("serving", container={"image": "vllm/vllm-openai:latest", "command": command})

    for kind in ("completions", "chat"):
        runner.wait_ready(target(url, "short", endpoint_type=kind), key=TOKEN)

    with pytest.raises(runner.EndpointProblem, match="other is not served; /v1/models lists short"):
        runner.wait_ready(target(url, "other"), key=TOKEN)


def test_it_answers_from_when_it_is_ready_and_not_before(plane: Plane) -> None:
    plane.create("later", image="slow/server")
    wait_for(lambda: "container is starting" in str(plane.ok("GET", "/deployments/later/readiness")))
    url = plane.ok("GET", "/deployments/later")["status"]["endpoint"]["external_endpoint"]

    with pytest.raises(runner.EndpointProblem, match="HTTP 503: no healthy upstream"):
        runner.wait_ready(target(url), key=TOKEN)
    assert plane.state("later") == "Starting"

    plane.emulator.advance(LATE)

    assert plane.state("later") == "Ready"
    runner.wait_ready(target(url), key=TOKEN)


def test_a_simulated_server_is_as_closed_as_a_real_one(plane: Plane) -> None:
    url = plane.create_ready("guarded", image="vllm", api_tokens=[{"value": "the-key-of-this-one"}])

    assert httpx.get(f"{url}/health", trust_env=False).status_code == 401
    runner.wait_ready(target(url), key="the-key-of-this-one")
    with pytest.raises(runner.EndpointProblem, match="HTTP 401"):
        runner.wait_ready(target(url), key="another")


def test_log_probabilities_are_not_made_up(plane: Plane) -> None:
    url = plane.create_ready("words", image="vllm")

    with pytest.raises(runner.EndpointProblem) as problem:
        runner.wait_ready(target(url, needs_loglikelihood=True), key=TOKEN)

    assert problem.value.reason == "loglikelihood_unsupported"


def test_a_job_with_the_image_of_a_simulated_server_runs(plane: Plane) -> None:
    job = plane.submit("real", sys.executable, "-c", "print(6 * 7)", image="vllm")

    assert plane.finish(job) == "Completed"
    wait_for(lambda: plane.log(job=job) == ["42"])


def test_a_config_file_names_simulated_servers(tmp_path: Path) -> None:
    path = tmp_path / "emulator.yaml"
    path.write_text('simulated_servers: [{pattern: "*vllm*", opens_after: 20}]\n')

    config = load(path)

    assert config.simulated_server("vllm/vllm-openai:v1") == SimulatedServer(pattern="*vllm*", opens_after=20.0)
    assert config.simulated_server("python:3.11") is None
