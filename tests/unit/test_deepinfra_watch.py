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
from launcher.platforms.deepinfra.meter import HOUR, Meter
from launcher.platforms.deepinfra.names import expiring
from launcher.platforms.http import RetryPolicy
from launcher.platforms.tracking import APPEARS_WITHIN, ASK_AGAIN, LIST_LAG
from tests.fakes.clock import run_virtual

MINE = "a1234567"
NAME = f"{MARK}-t-0-{MINE}"
FULL = expiring(model_name(NAME), 4 * 3600.0, time.time())
LATER = expiring(model_name(NAME), 5 * 3600.0, time.time())
PAST = expiring(model_name(NAME), 0.0, time.time() - 3600.0)
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
        self.silent_creations = 0
        self.paths: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = f"{request.method} {request.url.path}"
        self.paths.append(path)
        if path == "POST /deploy/llm" and self.silent_creations > 0:
            self.silent_creations -= 1
            raise httpx.ReadTimeout("silence", request=request)
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


def test_one_404_for_a_deletion_does_not_make_it_gone_and_it_is_asked_for_again() -> None:
    service = Service(row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        await look(endpoints)
        service.answers["DELETE /deploy/one"] = httpx.Response(404, json={"error": "not found"})
        await endpoints.delete(NAME)
        assert await look(endpoints, 5) == {NAME: ResourceState.RUNNING}, "it costs until it is gone"
        service.answers["DELETE /deploy/one"] = httpx.Response(200, json={"deploy_id": "one"})
        await endpoints.delete(NAME)
        await endpoints.delete(NAME)
        assert service.paths.count("DELETE /deploy/one") == 2, "the one that was heard is not asked for at once again"
        service.listed = []
        assert await look(endpoints, 5) == {NAME: ResourceState.GONE}
        await endpoints.close()

    run_virtual(scenario())


def test_a_service_that_is_behind_and_knows_nothing_of_it_yet_does_not_make_it_gone() -> None:
    service = Service()
    service.answers["POST /deploy/llm"] = httpx.Response(200, json=row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        await endpoints.create(NAME, {"model_name": FULL})
        await endpoints.delete(NAME)
        assert await look(endpoints, LIST_LAG - 2) == {NAME: ResourceState.RUNNING}
        service.listed = [row("one")]
        await look(endpoints, 3)
        service.answers["DELETE /deploy/one"] = httpx.Response(200, json={"deploy_id": "one"})
        await endpoints.delete(NAME)
        assert service.paths.count("DELETE /deploy/one") == 2
        await endpoints.close()

    run_virtual(scenario())


def test_what_the_service_shows_again_is_there_again_and_can_be_deleted() -> None:
    service = Service(row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        await look(endpoints)
        service.answers["DELETE /deploy/one"] = httpx.Response(200, json={"deploy_id": "one"})
        await endpoints.delete(NAME)
        service.listed = []
        assert await look(endpoints, 5) == {NAME: ResourceState.GONE}
        service.listed = [row("one")]
        assert await look(endpoints, 10) == {NAME: ResourceState.RUNNING}
        await endpoints.delete(NAME)
        assert service.paths.count("DELETE /deploy/one") == 2
        await endpoints.close()

    run_virtual(scenario())


def test_what_a_request_without_an_answer_makes_late_is_waited_for_and_can_be_deleted() -> None:
    service = Service()
    service.answers["POST /deploy/llm"] = httpx.Response(200, json=row("one"))
    service.answers["DELETE /deploy/two"] = httpx.Response(200, json={"deploy_id": "two"})
    late = f"{NAME}@late-1"

    async def scenario() -> None:
        endpoints = service.endpoints()
        service.silent_creations = 1
        await endpoints.create(NAME, {"model_name": FULL})
        service.listed = [row("one")]
        await endpoints.delete(late)
        assert await look(endpoints, 20) == {NAME: ResourceState.RUNNING, late: ResourceState.UNKNOWN}
        service.listed = [row("one"), row("two")]
        await look(endpoints, 10)
        assert {name: found.id for name, found in endpoints.resources().items()} == {NAME: "one", late: "two"}
        await endpoints.delete(late)
        assert "DELETE /deploy/two" in service.paths
        await endpoints.close()

    run_virtual(scenario())


def test_what_never_came_of_a_request_without_an_answer_is_not_waited_for_for_ever() -> None:
    service = Service()
    service.answers["POST /deploy/llm"] = httpx.Response(200, json=row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        service.silent_creations = 1
        await endpoints.create(NAME, {"model_name": FULL})
        service.listed = [row("one")]
        found = await look(endpoints, APPEARS_WITHIN + ASK_AGAIN)
        assert found == {NAME: ResourceState.RUNNING, f"{NAME}@late-1": ResourceState.GONE}
        await endpoints.close()

    run_virtual(scenario())


def test_one_that_has_expired_is_not_adopted_but_shown_beside_the_new_one() -> None:
    service = Service(row("old", model_name=f"acme/{PAST}"))
    service.answers["POST /deploy/llm"] = httpx.Response(200, json=row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        made = await endpoints.create(NAME, {"model_name": FULL})
        assert made.id == "one"
        service.listed.append(row("one"))
        await look(endpoints, 5)
        assert {name: found.id for name, found in endpoints.resources().items()} == {NAME: "one", f"{NAME}@old": "old"}
        await endpoints.close()

    run_virtual(scenario())


def test_one_that_had_expired_before_this_launcher_came_cannot_be_used() -> None:
    service = Service(row("old", model_name=f"acme/{PAST}"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        assert await look(endpoints) == {NAME: ResourceState.FAILED}
        found = endpoints.resources()[NAME]
        assert found.fatal
        assert "its expiry has passed" in found.detail
        service.answers["DELETE /deploy/old"] = httpx.Response(200, json={"deploy_id": "old"})
        await endpoints.delete(NAME)
        assert endpoints.resources()[NAME].state is ResourceState.RUNNING, "it costs until it is gone"
        await endpoints.close()

    run_virtual(scenario())


@pytest.mark.parametrize("answer", [{}, {"one": None}, {"one": 1.0}])
def test_a_meter_that_forgets_takes_nothing_back(answer: dict[str, float | None]) -> None:
    service = Service(row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        await look(endpoints, 60)
        assert endpoints.resources()[NAME].usd == pytest.approx(1.0, abs=0.05)
        service.answers["GET /payment/usage/rent"] = httpx.Response(200, json={"id_to_duration": answer})
        service.listed = []
        assert await look(endpoints, LIST_LAG + 10) == {NAME: ResourceState.GONE}
        assert (endpoints.resources()[NAME].usd or 0.0) >= 1.0
        await endpoints.close()

    run_virtual(scenario())


def test_without_a_meter_the_cost_is_reckoned_from_the_price_and_the_time_that_instances_run() -> None:
    service = Service(row("one"))
    service.answers["GET /payment/usage/rent"] = httpx.Response(500, json={"error": "out of order"})

    async def scenario() -> None:
        endpoints = service.endpoints()
        await look(endpoints, HOUR)
        usd = endpoints.resources()[NAME].usd
        service.listed = []
        await look(endpoints, LIST_LAG + 10)
        await look(endpoints, HOUR)
        assert usd == pytest.approx(2.0, rel=0.1)
        assert endpoints.resources()[NAME].usd == pytest.approx(2.0, rel=0.1), "what is gone costs no more"
        await endpoints.close()

    run_virtual(scenario())


ODD_ROWS: list[Any] = [
    {"deploy_id": "zz", "model_name": "me/foo", "type": "legacy", "status": "running", "created_at": None},
    {"deploy_id": "zy", "model_name": None, "type": "llm", "status": None},
    {"deploy_id": None, "model_name": "me/bar", "type": "llm", "config": "large"},
    "a word",
    None,
]


@pytest.mark.parametrize("odd", ODD_ROWS, ids=repr)
def test_an_odd_row_of_somebody_else_hides_nothing(odd: Any) -> None:
    service = Service(odd, row("one"))

    async def scenario() -> None:
        endpoints = service.endpoints()
        assert await look(endpoints) == {NAME: ResourceState.RUNNING}
        await endpoints.close()

    run_virtual(scenario())


def test_an_odd_row_of_ours_is_seen_in_an_unknown_state_and_keeps_what_was_known() -> None:
    service = Service(row("one", config=12, instances=["?"]))

    async def scenario() -> None:
        endpoints = service.endpoints()
        assert await look(endpoints) == {NAME: ResourceState.UNKNOWN}
        service.listed = [row("one", created_at=None, instances={"running": 1, "pending": None})]
        assert await look(endpoints, 5) == {NAME: ResourceState.RUNNING}
        service.listed = [row("one", config=12)]
        assert await look(endpoints, 60) == {NAME: ResourceState.UNKNOWN}
        assert endpoints.resources()[NAME].id == "one"
        service.listed = []
        await look(endpoints, LIST_LAG + 10)
        assert endpoints.resources()[NAME].usd == 1.0, "its price is that of the shape that was seen"
        await endpoints.close()

    run_virtual(scenario())


def test_a_log_is_read_whatever_its_stamps_are() -> None:
    service = Service(row("one"))
    a = [["2026-11-21T16:00:02Z", "second"], ["yesterday", "third"], [None, "fourth"]]
    b = [[1795276801.5, "first"], ["2026-11-21T16:00:03.123456789+00:00", "fifth"], ["NaN", "sixth"]]
    service.answers["GET /v1/logs/query"] = httpx.Response(200, json={"entries": []})
    pods = {"entries": {"a": a, "b": b, "c": None}}
    service.answers["GET /v1/deployment_logs/query"] = httpx.Response(200, json=pods)

    async def scenario() -> None:
        endpoints = service.endpoints()
        await look(endpoints)
        found = await endpoints.last_lines(NAME, 9)
        assert found == ["first", "second", "third", "fourth", "fifth", "sixth"]
        await endpoints.close()

    run_virtual(scenario())
