"""The anchor of an invocation, what a sweep finds, what goes with the last thing: requests to an emulated cluster."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from launcher.config.fields import Reference
from launcher.config.validate import validate
from launcher.errors import PlatformError
from launcher.plan.build import build
from launcher.plan.kubernetes import EXPIRES, INVOCATION, KIND, MANAGED_BY, MARK, NAME
from launcher.plan.model import Plan
from launcher.platforms.kubernetes import anchor, sweeping
from launcher.platforms.kubernetes import client as client_module
from launcher.platforms.kubernetes.client import KubeClient
from launcher.platforms.kubernetes.things import Things
from launcher.platforms.secrets import Secrets
from tests.unit.kube_plane import APPS, BATCH, CORE, Plane, config_map, deployment, job
from tests.unit.test_kubernetes_watching import Answer, access

Json = dict[str, Any]
ID = "a1b2c3d4"
ANCHOR = f"nv-eval-{ID}"
NOW = 1_800_000_000.0


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plane:
    """A cluster that the client's requests go to."""
    found = Plane(tmp_path)

    def open_(_: Any, method: str, url: str, headers: Json, content: bytes | None, __: Any) -> Answer:
        async def send() -> httpx.Response:
            sent = {**headers, "authorization": "Bearer loopback-admin"}
            async with httpx.AsyncClient(transport=found._transport) as client:
                return await client.request(method, url, content=content, headers=sent)

        answer = asyncio.run(send())
        return Answer(answer.status_code, answer.content, content_type="application/json")

    monkeypatch.setattr(client_module, "open_", open_)
    monkeypatch.setenv("MY_TOKEN", "hf-secret")
    return found


def run(work: Callable[[KubeClient], Coroutine[Any, Any, Any]]) -> Any:
    """What something that uses a client returns."""

    async def working() -> Any:
        client = KubeClient(access())
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(working())


def plan(token: Reference | None = None) -> Plan:
    config = {
        "execution": {"type": "kubernetes"},
        "deployment": {
            "type": "container",
            "model_id": "m",
            "image": "sim/server",
            "command": ["serve"],
            "start_timeout": 100,
            "health_timeout": 20,
            "envs": {"TOKEN": token} if token else {},
        },
        "evaluation": {"harness": "command", "command": ["true"], "timeout": 80, "tasks": [{"name": "t"}]},
    }
    return build(validate(config), ID)


def ours(thing: Json, kind: str) -> Json:
    """A manifest with the marks of the launcher."""
    name = thing["metadata"]["name"]
    thing["metadata"]["labels"] = {MANAGED_BY: MARK, INVOCATION: ID, NAME: name, KIND: kind}
    return thing


def make_anchor(plane: Plane, token: Reference | None = None) -> anchor.Anchor:
    made: anchor.Anchor = run(lambda client: anchor.make(client, plan(token), NOW, Secrets()))
    return made


def names(found: list[Any]) -> list[tuple[str, str]]:
    return sorted((left.kind, left.name) for left in found)


# --- the anchor -------------------------------------------------------------------------------------------------------


def test_the_anchor_carries_its_expiry_and_owns_the_secret(plane: Plane) -> None:
    made = make_anchor(plane, Reference(env="MY_TOKEN"))

    found = plane.ok("GET", f"{CORE}/configmaps/{ANCHOR}")
    secret = plane.ok("GET", f"{CORE}/secrets/{ANCHOR}")
    longest = 100 + 20 + 80 + 300
    assert float(found["metadata"]["annotations"][EXPIRES]) == NOW + 2 * longest
    assert base64.b64decode(secret["data"]["MY_TOKEN"]) == b"hf-secret"
    assert [owner["uid"] for owner in secret["metadata"]["ownerReferences"]] == [made.uid]


def test_who_comes_again_adopts_anchor_and_secret(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_anchor(plane, Reference(env="MY_TOKEN"))
    monkeypatch.setenv("MY_TOKEN", "another")

    assert make_anchor(plane, Reference(env="MY_TOKEN")) == first
    secret = plane.ok("GET", f"{CORE}/secrets/{ANCHOR}")
    assert base64.b64decode(secret["data"]["MY_TOKEN"]) == b"hf-secret"


def test_a_launcher_that_died_before_the_secret_makes_it_when_it_comes_again(plane: Plane) -> None:
    make_anchor(plane)
    assert plane.ask("GET", f"{CORE}/secrets/{ANCHOR}").status_code == 404

    make_anchor(plane, Reference(env="MY_TOKEN"))

    assert plane.ask("GET", f"{CORE}/secrets/{ANCHOR}").status_code == 200


def test_the_name_of_the_anchor_that_somebody_else_took_is_told(plane: Plane) -> None:
    plane.ok("POST", f"{CORE}/configmaps", config_map(ANCHOR))

    with pytest.raises(PlatformError, match="exists already and is not of this invocation"):
        make_anchor(plane)


def test_the_expiry_moves_while_the_launcher_lives_and_what_was_deleted_stays_deleted(plane: Plane) -> None:
    make_anchor(plane)

    run(lambda client: anchor.renew(client, plan(), NOW + 600))
    moved = plane.ok("GET", f"{CORE}/configmaps/{ANCHOR}")["metadata"]["annotations"][EXPIRES]
    plane.ok("DELETE", f"{CORE}/configmaps/{ANCHOR}")

    assert float(moved) == NOW + 600 + 1000
    with pytest.raises(PlatformError, match="was deleted"):
        run(lambda client: anchor.renew(client, plan(), NOW + 1200))
    assert plane.ask("GET", f"{CORE}/configmaps/{ANCHOR}").status_code == 404


# --- sweeping ---------------------------------------------------------------------------------------------------------


def sweep(invocation: str = "") -> list[Any]:
    found: list[Any] = run(lambda client: sweeping.sweep(client, invocation))
    return found


def test_a_sweep_finds_what_carries_our_mark_and_nothing_else(plane: Plane) -> None:
    make_anchor(plane)
    plane.ok("POST", f"{APPS}/deployments", ours(deployment("mine"), "endpoint"))
    plane.ok("POST", f"{BATCH}/jobs", ours(job("work"), "job"))
    plane.ok("POST", f"{APPS}/deployments", deployment("somebody-elses"))

    found = sweep()

    assert names(found) == [("endpoint", "mine"), ("job", "work")]
    assert {left.invocation for left in found} == {ID}
    assert all(left.expiry_is_ours and left.expires_in is not None for left in found)
    assert sweep("ffff") == []


def test_an_anchor_shows_only_where_it_has_nothing_left_to_own(plane: Plane) -> None:
    make_anchor(plane)

    assert names(sweep(ID)) == [("network", ANCHOR)]


def test_with_the_last_thing_goes_the_anchor(plane: Plane) -> None:
    make_anchor(plane)
    for name in ("one", "two"):
        plane.ok("POST", f"{APPS}/deployments", ours(deployment(name), "endpoint"))
    first, second = sweep(ID)

    run(lambda client: sweeping.remove(client, first))
    assert plane.ask("GET", f"{CORE}/configmaps/{ANCHOR}").status_code == 200
    run(lambda client: sweeping.remove(client, second))
    plane.tick(6)

    assert plane.ask("GET", f"{CORE}/configmaps/{ANCHOR}").status_code == 404
    assert sweep(ID) == []


def test_what_was_made_again_under_the_name_since_the_sweep_is_left_alone(plane: Plane) -> None:
    make_anchor(plane)
    plane.ok("POST", f"{APPS}/deployments", ours(deployment("mine"), "endpoint"))
    (seen,) = sweep(ID)
    plane.ok("DELETE", f"{APPS}/deployments/mine")
    plane.ok("POST", f"{APPS}/deployments", ours(deployment("mine"), "endpoint"))

    run(lambda client: sweeping.remove(client, seen))

    assert plane.names(f"{APPS}/deployments") == ["mine"]
    assert plane.ask("GET", f"{CORE}/configmaps/{ANCHOR}").status_code == 200


def test_removing_twice_is_no_error(plane: Plane) -> None:
    make_anchor(plane)
    (left,) = sweep(ID)

    for _ in range(2):
        run(lambda client: sweeping.remove(client, left))

    assert sweep(ID) == []


# --- half of an endpoint ----------------------------------------------------------------------------------------------


def test_a_deployment_whose_launcher_died_before_its_service_gets_one(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it no job would ever reach the server, and GPUs would wait for the time-out."""
    monkeypatch.setattr(plane.cluster.network, "give_address", lambda made: made["spec"].update(clusterIP="fd00::7"))
    (planned,) = plan().endpoints
    assert planned.request is not None
    wanted, service = planned.request["items"]
    made = plane.ok("POST", f"{APPS}/deployments", wanted)

    async def find(client: KubeClient) -> str | None:
        things = Things(client, ID, 0.0, lambda text: text)
        things.deployments.items = {planned.name: made}
        things._see(made)
        for _ in range(2):
            await things.find_service(planned.name)
        return things._entries[planned.name].url

    assert run(find) == f"http://[fd00::7]:{service['spec']['ports'][0]['port']}"
    (found,) = plane.ok("GET", f"{CORE}/services")["items"]
    assert (found["metadata"]["name"], found["metadata"]["labels"]) == (planned.name, service["metadata"]["labels"])
    assert found["spec"]["selector"] == service["spec"]["selector"]
    assert [owner["uid"] for owner in found["metadata"]["ownerReferences"]] == [made["metadata"]["uid"]]
