"""Every route of the emulator says what DeepInfra's OpenAPI document says, and takes what it allows."""

from __future__ import annotations

import json

import httpx
import pytest

from launcher.emulators.deepinfra import DeepInfraEmulator
from launcher.emulators.deepinfra.api import account, deployments, logs
from tests.contract.deepinfra.plane import Plane, plane, wanted
from tests.contract.deepinfra.reduce import ROUTES, reduced
from tests.contract.deepinfra.validation import UNDOCUMENTED, Contract, ContractViolation, Validated

DOCUMENTED = {(method.upper(), path) for path, methods in ROUTES.items() for method in methods}


def drive(desk: Plane) -> None:
    """Ask for everything, once well and where it can go wrong also badly."""
    id_ = desk.create_running(num_gpus=1, max_batch_size=8, extra_args=["--max-model-len", "512"])
    desk.refused("POST", "/deploy/llm", json=wanted())
    desk.refused("POST", "/deploy/llm", json=wanted(gpu="abacus"))
    for path in ("/deploy/list", "/deploy/list/", "/deploy/list?status=running,failed", "/deploy/llm/gpu_availability"):
        desk.ok("GET", path)
    desk.refused("GET", "/deploy/list?status=nice")
    desk.ok("GET", "/deploy/llm/suggest_name?model_name=tiny")
    desk.ok("GET", "/deploy/stats?from=now-5h&to=now")
    desk.refused("GET", f"/deploy/{id_}/stats?from=yesterday")
    for path in ("stats", "stats2"):
        desk.ok("GET", f"/deploy/{id_}/{path}", params={"from": "now-1h"})
    for path in ("logs", "deployment_logs"):
        desk.ok("GET", f"/v1/{path}/query", params={"deploy_id": id_, "from": "0", "to": "99999999999.5"})
        desk.refused("GET", f"/v1/{path}/query", params={"deploy_id": id_, "limit": 0})
    for path in ("/v1/me", "/v1/me/gpu_limit", "/v1/me/rate_limit", "/models/deployment/list", "/models/private/list"):
        desk.ok("GET", path)
    desk.ok("GET", "/payment/usage/rent", params={"from": 0})
    desk.refused("GET", "/payment/usage/rent")
    desk.ok("GET", "/cli/version?version=0.6.0")
    desk.ok("POST", "/deploy/hf/", json={"model_name": "acme/other", "task": "text-generation"})
    desk.refused("POST", "/deploy/hf/", json={"model_name": "acme/other"})
    infer(desk, f"deploy_id:{id_}")
    desk.ok("PUT", f"/deploy/{id_}", json={"settings": {"min_instances": 2, "max_instances": 2}})
    desk.refused("PUT", f"/deploy/{id_}", json={"settings": {"min_instances": 2, "max_instances": 1}})
    desk.refused("POST", f"/deploy/{id_}/start")
    desk.ok("POST", f"/deploy/{id_}/stop")
    desk.ok("POST", f"/deploy/{id_}/start")
    desk.ok("DELETE", f"/deploy/{id_}")
    desk.refused("DELETE", f"/deploy/{id_}")
    desk.refused("GET", f"/deploy/{id_}/stats?from=0")
    desk.refused("GET", "/deploy/nobody")


def infer(desk: Plane, model: str) -> None:
    """Ask the model itself, on both bases."""
    for base in ("/v1", "/v1/openai"):
        desk.ok("GET", f"{base}/models")
        desk.ok("POST", f"{base}/completions", json={"model": model, "prompt": "Hi", "max_tokens": 1})
        chat = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        desk.ok("POST", f"{base}/chat/completions", json=chat)
        desk.refused("POST", f"{base}/embeddings", json={"model": model, "input": "Hi"})
        desk.refused("POST", f"{base}/completions", json={"model": "nobody/nothing", "prompt": "Hi"})
        desk.refused("POST", f"{base}/completions", json={"model": model, "prompt": ["Hi", "Ho"]})


def test_every_route_keeps_to_the_document() -> None:
    with plane() as desk:
        drive(desk)

        seen = {(method, path) for method, path, _ in desk.contract.seen}
        assert desk.contract.violations == []
        assert seen == DOCUMENTED | UNDOCUMENTED


def test_the_emulator_has_no_route_that_nobody_knows() -> None:
    contract = Contract()
    for method, path, _ in (*deployments.routes(), *logs.routes(), *account.routes()):
        assert contract.path_of(method, path.replace("{deploy_id}", "x"))


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("POST", "/deploy/llm", {"gpu": "H100-80GB"}, "'model_name' is a required property"),
        ("PUT", "/deploy/x", {"settings": {"min_instances": "two"}}, "'two' is not of type 'integer'"),
        ("GET", "/deploy/list?state=running", None, "unknown query parameters ['state']"),
        ("GET", "/deploy/x/stats", None, "query parameter from is missing"),
        ("GET", "/v2/me", None, "no such route"),
        ("DELETE", "/deploy/x", {"really": True}, "takes no body"),
    ],
)
def test_traffic_that_the_document_does_not_allow_is_noticed(method: str, path: str, body: object, says: str) -> None:
    contract = Contract()
    sent = httpx.Request(method, f"http://api.test{path}", content=b"" if body is None else json.dumps(body).encode())

    with pytest.raises(ContractViolation) as error:
        contract.check(sent, sent.read(), httpx.Response(200, json={"deploy_id": "x"}))

    assert says in str(error.value)
    assert contract.violations == [str(error.value)]


def test_an_answer_that_the_document_does_not_allow_is_noticed() -> None:
    transport = Validated(Contract(), httpx.MockTransport(lambda _: httpx.Response(200, json=[{"deploy_id": "x"}])))

    with httpx.Client(transport=transport, trust_env=False) as http, pytest.raises(ContractViolation, match="required"):
        http.get("http://api.test/deploy/list")


@pytest.mark.anyio
async def test_an_asynchronous_client_is_checked_too() -> None:
    contract = Contract()
    with DeepInfraEmulator() as emulator:
        transport = Validated(contract, httpx.AsyncHTTPTransport())
        headers = {"xi-api-key": emulator.key}
        async with httpx.AsyncClient(base_url=emulator.url, transport=transport, headers=headers) as http:
            assert (await http.get("/v1/me")).json()["display_name"] == emulator.config.owner

    assert contract.seen == {("GET", "/v1/me", 200)}


def test_the_reduced_document_has_no_sentences() -> None:
    def words(schema: object) -> list[str]:
        if isinstance(schema, list):
            return [word for inner in schema for word in words(inner)]
        if isinstance(schema, dict):
            own = [value for key, value in schema.items() if key in ("title", "description") and isinstance(value, str)]
            return own + [word for inner in schema.values() for word in words(inner)]
        return []

    assert words(Contract().document) == []
    described = {"type": "object", "description": "A sentence.", "properties": {"title": {"type": "string"}}}
    assert reduced(described) == {"type": "object", "properties": {"title": {"type": "string"}}}
