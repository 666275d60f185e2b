"""What a launcher knows of its deployments when the service is late, silent or wrong. On a virtual clock."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from launcher.errors import PlatformError
from launcher.plan.deepinfra import model_name
from launcher.plan.names import MARK
from launcher.platforms.base import ResourceState
from launcher.platforms.deepinfra.client import DeepInfraClient
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.deepinfra.endpoints import Endpoints
from launcher.platforms.deepinfra.meter import Meter
from launcher.platforms.deepinfra.names import expiring
from launcher.platforms.http import RetryPolicy
from launcher.platforms.tracking import APPEARS_WITHIN, LIST_LAG
from tests.fakes.clock import run_virtual

MINE = "a1234567"
NAME = f"{MARK}-t-0-{MINE}"
FULL = expiring(model_name(NAME), 4 * 3600.0, time.time())
LATER = expiring(model_name(NAME), 5 * 3600.0, time.time())
OFFERS = {"gpus": [{"gpu_config": "1xH100-80GB", "usd_per_hour": 2.0, "available": True}]}


def row(deploy_id: str, **keys: Any) -> dict[str, Any]:
    """A deployment as a list shows it."""
    config = {"gpu": "H100-80GB", "num_gpus": 1, "max_batch_size": 96}
    born = {"created_at": "2026-11-20T17:00:00+00:00", "fail_reason": "", "type": "llm", "config": config}
    return {"deploy_id": deploy_id, "model_name": f"acme/{FULL}", "status": "running", **born, **keys}


class Service:
    """An account whose list is `listed`; the details know those and `unlisted`. Answers by path go before it all."""

    def __init__(self, *listed: dict[str, Any], unlisted: tuple[dict[str, Any], ...] = ()) -> None:
        self.listed, self.unlisted = list(listed), list(unlisted)
        self.answers: dict[str, httpx.Response] = {}
        self.paths: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = f"{request.method} {request.url.path}"
        self.paths.append(path)
        if path in self.answers:
            return self.answers[path]
        if path == "GET /deploy/list":
            return httpx.Response(200, json=self.listed)
        if path == "GET /deploy/llm/gpu_availability":
            return httpx.Response(200, json=OFFERS)
        if path == "GET /payment/usage/rent":
            return httpx.Response(200, json={"id_to_duration": {"one": 1800}})
        found = [one for one in [*self.listed, *self.unlisted] if path.endswith(f"/{one['deploy_id']}")]
        return httpx.Response(200, json=found[0]) if found else httpx.Response(404, json={"error": "not found"})

    def endpoints(self) -> Endpoints:
        access = Credentials(key="di-0123456789", source="a test", url="http://deepinfra.test")
        policy = RetryPolicy(deadline=1.0)
        client = DeepInfraClient(access, transport=httpx.MockTransport(self), policy=policy)
        return Endpoints(client, Meter(client), MINE, 0.0, url="http://deepinfra.test", redact=str)


async def look(endpoints: Endpoints, seconds: float = 0.0) -> dict[str, ResourceState]:
    """What is known after so many seconds of looking."""
    clock = asyncio.get_running_loop()
    until = clock.time() + seconds
    await endpoints.refresh()
    while clock.time() < until:
        await asyncio.sleep(0.2)
        await endpoints.refresh()
    return {name: found.state for name, found in endpoints.resources().items()}


def test_a_list_without_it_is_no_proof_that_it_is_gone() -> None:
    service = Service(row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        assert await look(endpoints) == {NAME: ResourceState.RUNNING}
        service.unlisted, service.listed = service.listed, []
        assert await look(endpoints, LIST_LAG + 30) == {NAME: ResourceState.RUNNING}
        service.unlisted = []
        assert await look(endpoints, LIST_LAG + 30) == {NAME: ResourceState.GONE}
        assert endpoints.resources()[NAME].usd == 1.0, "half an hour of 2 USD"
        await endpoints.close()

    run_virtual(scenario())


def test_a_service_that_cannot_be_asked_says_nothing_of_what_is_there() -> None:
    service = Service(row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        await look(endpoints)
        service.answers["GET /deploy/list"] = httpx.Response(503)
        with pytest.raises(PlatformError):
            await look(endpoints, 30)
        assert endpoints.resources()[NAME].state is ResourceState.RUNNING
        await endpoints.close()

    run_virtual(scenario())


def test_of_two_for_the_same_endpoint_the_older_one_keeps_the_name_whatever_the_list_says() -> None:
    younger = row("two", created_at="2026-11-20T18:00:00+00:00", model_name=f"acme/{LATER}")
    service = Service(younger, row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        await look(endpoints)
        service.listed.reverse()
        await look(endpoints, 5)
        assert {name: found.id for name, found in endpoints.resources().items()} == {NAME: "one", f"{NAME}@two": "two"}

        service.listed, service.answers["DELETE /deploy/one"] = [younger], httpx.Response(404, json={"error": "gone"})
        await endpoints.delete(NAME)
        found = await look(endpoints, LIST_LAG + 5)
        assert found == {NAME: ResourceState.GONE, f"{NAME}@two": ResourceState.RUNNING}, "it does not take its name"
        await endpoints.close()

    run_virtual(scenario())


def test_what_an_earlier_launcher_asked_for_may_appear_late_and_later_nobody_asks_any_more() -> None:
    service = Service()

    async def scenario() -> None:
        endpoints = service.endpoints()
        assert await look(endpoints, 25) == {}
        service.listed = [row("one")]
        assert await look(endpoints, 10) == {NAME: ResourceState.RUNNING}
        await endpoints.close()

    async def nothing_ever() -> None:
        endpoints = service.endpoints()
        service.listed = []
        await look(endpoints, APPEARS_WITHIN + 5)
        before = len(service.paths)
        await look(endpoints, 600)
        assert len(service.paths) == before

    run_virtual(scenario())
    run_virtual(nothing_ever())


def test_a_creation_that_is_cut_off_may_still_have_made_something() -> None:
    service = Service()

    async def scenario() -> None:
        endpoints = service.endpoints()
        service.answers["POST /deploy/llm"] = httpx.Response(200, content=b"no json")
        making = asyncio.create_task(endpoints.create(NAME, {"model_name": FULL}))
        await asyncio.sleep(0.5)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert endpoints.resources()[NAME].state is ResourceState.UNKNOWN
        service.listed = [row("one")]
        assert await look(endpoints, 5) == {NAME: ResourceState.RUNNING}
        await endpoints.close()

    run_virtual(scenario())


def test_the_meter_of_those_that_run_is_asked_rarely() -> None:
    service = Service(row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        await look(endpoints, 600)
        assert endpoints.resources()[NAME].usd == 1.0
        await endpoints.close()

    run_virtual(scenario())
    assert 10 <= service.paths.count("GET /payment/usage/rent") <= 30
    assert service.paths.count("GET /deploy/llm/gpu_availability") == 1
