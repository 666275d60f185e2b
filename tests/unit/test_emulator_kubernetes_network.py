"""Services of the emulated cluster: an address each, which leads to a pod that is ready, and nowhere without one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from launcher.emulators.common.clock import Clock
from launcher.emulators.common.simulated import Script
from launcher.emulators.kubernetes.cluster import Cluster
from launcher.emulators.kubernetes.config import Config
from launcher.emulators.kubernetes.kinds import DEPLOYMENTS, SERVICES
from tests.unit.kube_plane import deployment

Json = dict[str, Any]


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def free_port() -> int:
    """A port that no other test takes when a service gives it up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def service(name: str, **spec: Any) -> Json:
    wanted = {"selector": {"app": "x"}, "ports": [{"port": free_port()}], **spec}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": wanted}


async def ask(made: Json) -> str:
    """What answers at the address of a service; the name of the error where nothing does."""
    url = f"http://{made['spec']['clusterIP']}:{made['spec']['ports'][0]['port']}"
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(url)).text
    except httpx.TransportError as error:
        return type(error).__name__


@pytest.fixture
def inside(tmp_path: Path) -> Callable[[Callable[[Cluster], Awaitable[None]]], None]:
    """Runs something within the loop of a cluster."""

    def run(work: Callable[[Cluster], Awaitable[None]]) -> None:
        async def living() -> None:
            simulations = {"sim/server": lambda _: Script(application=hello)}
            cluster = Cluster(Config(), Clock(), tmp_path, simulations)
            try:
                await work(cluster)
            finally:
                await cluster.network.close()

        asyncio.run(living())

    return run


def serve(cluster: Cluster) -> None:
    manifest = deployment("web")
    manifest["metadata"]["namespace"] = "default"
    cluster.create(DEPLOYMENTS, manifest)
    for _ in range(4):
        cluster.tick()


def test_a_service_leads_to_a_pod_that_is_ready(inside: Any) -> None:
    async def work(cluster: Cluster) -> None:
        made = cluster.create(SERVICES, service("web"))
        before = await ask(made)
        serve(cluster)

        assert before != "hello", "there is no pod yet"
        assert await ask(made) == "hello"
        assert await ask(made) == "hello"

    inside(work)


def test_labels_that_no_pod_has_lead_nowhere(inside: Any) -> None:
    async def work(cluster: Cluster) -> None:
        serve(cluster)
        made = cluster.create(SERVICES, service("other", selector={"app": "other"}))

        assert await ask(made) != "hello"

    inside(work)


def test_services_have_addresses_of_their_own_and_headless_ones_have_none(inside: Any) -> None:
    async def work(cluster: Cluster) -> None:
        first, second = (cluster.create(SERVICES, service(name))["spec"]["clusterIP"] for name in ("a", "b"))
        headless = cluster.create(SERVICES, service("c", clusterIP="None"))

        assert first != second
        assert first.startswith("127.")
        assert headless["spec"]["clusterIP"] == "None"

    inside(work)


def test_a_service_that_is_gone_is_heard_no_more(inside: Any) -> None:
    async def work(cluster: Cluster) -> None:
        serve(cluster)
        made = cluster.create(SERVICES, service("web"))
        assert await ask(made) == "hello"

        cluster.begin_deletion(SERVICES, made, "")
        cluster.tick()

        assert await ask(made) == "ConnectError"

    inside(work)
