"""Templates and photons of the emulated workspace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from launcher.emulators.lepton import Image, LeptonEmulator, Template
from launcher.emulators.lepton.config import load
from tests.contract.lepton.plane import SERVER, TOKEN, Plane, emulator, wait_for

ARGUMENTS = Template(
    id="arguments",
    visibility="private",
    spec={"container": {"image": "sim", "command": ["serve", "${run.model}"], "ports": [{"container_port": 80}]}},
)
COMMAND = Template(id="command", workload_type="job", spec={"container": {"command": ["sh", "-c", "exec ${run}"]}})
PHOTONS = Image(pattern="photon:mine-*", instead=(sys.executable, "-c", SERVER, "--port", "{port}"))


@pytest.fixture(scope="module")
def running() -> Iterator[LeptonEmulator]:
    with emulator(templates=(ARGUMENTS, COMMAND), images=(PHOTONS,)) as found:
        yield found


@pytest.fixture
def plane(running: LeptonEmulator) -> Iterator[Plane]:
    with Plane(running) as found:
        yield found


def test_templates_are_listed_by_whose_they_are(plane: Plane) -> None:
    assert [found["metadata"]["id"] for found in plane.ok("GET", "/templates/public")] == ["command"]
    assert [found["metadata"]["id"] for found in plane.ok("GET", "/templates/private")] == ["arguments"]
    assert plane.ok("GET", "/templates/public/command")["spec"]["workload_type"] == "job"
    assert plane.refused("GET", "/templates/public/arguments") == (404, "template arguments not found")
    assert plane.refused("GET", "/templates/other")[0] == 404


def test_rendering_fills_in_what_it_is_given_and_creates_nothing(plane: Plane) -> None:
    named = plane.ok("POST", "/templates/private/arguments/render", json={"run": {"model": "org/m"}})
    whole = plane.ok("POST", "/templates/public/command/render", json={"run": "serve --fast"})

    assert named["spec"]["container"] == {
        "image": "sim",
        "command": ["serve", "org/m"],
        "ports": [{"container_port": 80}],
    }
    assert whole["spec"]["container"]["command"] == ["sh", "-c", "exec serve --fast"]
    assert plane.emulator.state().endpoints == plane.emulator.state().jobs == ()


@pytest.mark.parametrize(
    ("template", "body", "missing"),
    [
        ("private/arguments", {}, "run.model"),
        ("private/arguments", {"run": "x"}, "run.model"),
        ("public/command", {}, "run"),
    ],
)
def test_rendering_without_a_parameter_is_refused(plane: Plane, template: str, body: object, missing: str) -> None:
    refusal = plane.refused("POST", f"/templates/{template}/render", json=body)

    assert refusal == (400, f"parameter {missing} is required")


@pytest.mark.parametrize("served", [True, False])
def test_a_workspace_may_have_no_templates_or_no_such_routes(served: bool) -> None:
    with emulator(template_routes=served) as running, Plane(running) as plane:
        assert plane.http.get("/templates/public").status_code == (200 if served else 404)
        if served:
            assert plane.ok("GET", "/templates/public") == []


def test_a_photon_runs_as_the_image_of_its_name(plane: Plane) -> None:
    spec = {"photon_id": "mine-abc", "photon_namespace": "private", "api_tokens": [{"value": TOKEN}]}
    plane.ok("POST", "/deployments", json={"metadata": {"name": "photon"}, "spec": spec})
    shown = plane.ok("GET", "/deployments/photon")
    url = shown["status"]["endpoint"]["external_endpoint"]

    answer = _until_served(f"{url}/health")

    assert answer.text.startswith("/health ")
    assert shown["spec"] == spec
    plane.ok("DELETE", "/deployments/photon")


def _until_served(url: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    wait_for(lambda: httpx.get(url, headers=headers, trust_env=False).is_success)
    return httpx.get(url, headers=headers, trust_env=False)


def test_templates_come_from_the_config_file(tmp_path: Path) -> None:
    path = tmp_path / "emulator.yaml"
    path.write_text(
        "template_routes: true\ntemplates:\n  - {id: a, visibility: private, spec: {container: {image: x}}}\n"
    )

    assert load(path).templates == (Template(id="a", visibility="private", spec={"container": {"image": "x"}}),)
