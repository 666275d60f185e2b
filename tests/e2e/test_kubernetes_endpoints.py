"""`nv-eval endpoints` on Kubernetes: how people outside the cluster reach an endpoint, and that it goes."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")
pytest.importorskip("wsproto", reason="pip install 'nv-eval-launcher[emulators]'")

from launcher.emulators.kubernetes import Config, KubernetesEmulator, Timing
from launcher.emulators.kubernetes.kinds import EXTENSIONS
from launcher.platforms.base import CheckState
from launcher.platforms.kubernetes.client import access
from launcher.platforms.kubernetes.forwarding import Forward
from launcher.platforms.kubernetes.rbac import FORWARDING, NEEDED, ROUTING
from tests.e2e.cli import Home, wait_for
from tests.e2e.cluster_bench import FAST, bench
from tests.e2e.test_endpoints_command import CONFIG, completes, up
from tests.e2e.test_kubernetes_rights import install
from tests.e2e.test_kubernetes_runs import cluster_home, deployment, emulator, write_config

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
__all__ = ["cluster_home", "emulator"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_an_endpoint_is_reached_by_a_port_of_this_machine_and_goes(
    cluster_home: Home, emulator: KubernetesEmulator
) -> None:
    cluster_home.extra["KUBECONFIG"] = str(emulator.kubeconfig_of(install(emulator, (*NEEDED, *FORWARDING), "person")))
    write_config(cluster_home, [], deployment())

    endpoint = up(cluster_home)
    said = [completes(endpoint) for _ in range(3)]
    logs = cluster_home.run("endpoints", "logs", endpoint["id"])
    listed = json.loads(cluster_home.run("endpoints", "ls", "--json").stdout)["endpoints"]
    down = cluster_home.run("endpoints", "down", endpoint["id"])

    assert all(said)
    assert "listening on" in logs.stdout, logs.stderr
    assert [one["url"] for one in listed] == [endpoint["url"]]
    assert down.stdout == f"{endpoint['id']}: stopped\n", down.stderr
    wait_for(lambda: not emulator.left(), "nothing is left")


@pytest.mark.parametrize(
    "emulator", [Config(extensions=EXTENSIONS, gateways=("models",), timing=Timing(tick=0.02))], indirect=True
)
def test_an_endpoint_is_reached_by_a_gateway(cluster_home: Home, emulator: KubernetesEmulator) -> None:
    token = install(emulator, (*NEEDED, *ROUTING), "person")
    cluster_home.extra["KUBECONFIG"] = str(emulator.kubeconfig_of(token))
    port = emulator.gateway_port("models")
    by_gateway = {"by": "gateway", "gateway": "models", "hostname": "localhost", "scheme": "http", "port": port}
    write_config(cluster_home, [], deployment(), execution={"access": by_gateway})

    endpoint = up(cluster_home)

    assert endpoint["url"] == f"http://localhost:{port}"
    assert completes(endpoint)
    assert cluster_home.run("endpoints", "down", endpoint["id"]).returncode == 0
    wait_for(lambda: not emulator.left(), "nothing is left")


@pytest.mark.parametrize(
    ("extensions", "words"),
    [
        (("gateway.networking.k8s.io",), "execution.access.gateway: there is no Gateway models in default"),
        ((), "the cluster has no gateway.networking.k8s.io/v1; use port_forward"),
    ],
)
async def test_a_gateway_that_is_not_there_is_told(extensions: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with bench(tmp_path, Config(extensions=extensions, timing=FAST)) as made:
        access = {"by": "gateway", "gateway": "models", "hostname": "{name}.example.com"}
        plan = replace(made.plan(access=access), expires=4e9)
        platform = made.open(plan)
        checks = [check.message for check in await platform.preflight(plan) if check.state is CheckState.PROBLEM]
        await platform.close()

    assert [words in check for check in checks] == [True], checks


async def test_why_a_connection_is_not_carried_is_said_in_the_servers_place(tmp_path: Path) -> None:
    pods: list[str] = []
    with bench(tmp_path, Config(timing=FAST)) as made:
        made.token = install(made.emulator, NEEDED, "person")
        execution: Any = made.plan().execution_config()
        forward = Forward(access(execution), lambda: pods[0] if pods else None, 8000, None)
        url = await forward.open()
        async with httpx.AsyncClient() as client:
            none = await client.post(url, content=b"x" * 1_000_000)
            pods.append("serving")
            refused = await client.get(f"{url}/v1/models")
        await forward.close()

    assert (none.status_code, refused.status_code) == (503, 502)
    assert none.json()["error"]["message"] == "nv-eval: no pod of the endpoint answers now"
    assert "does not connect to pod serving" in refused.text and "403" in refused.text


def test_what_keeps_it_from_being_reached_is_told_before_anything_is_made(
    cluster_home: Home, emulator: KubernetesEmulator
) -> None:
    cluster_home.extra["KUBECONFIG"] = str(emulator.kubeconfig_of(install(emulator, NEEDED, "person")))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        write_config(cluster_home, [], deployment(), execution={"access": {"port": port}})
        forbidden = cluster_home.run("endpoints", "up", *CONFIG)
        cluster_home.extra["KUBECONFIG"] = str(emulator.kubeconfig)
        taken = cluster_home.run("endpoints", "up", *CONFIG)

    assert (forbidden.returncode, taken.returncode) == (3, 3)
    assert "not allowed in default: get pods/portforward, create pods/portforward" in forbidden.stderr
    assert f"execution.access.port: another program listens on port {port}" in taken.stderr
    assert emulator.left() == []
