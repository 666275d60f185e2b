"""DeepInfra's names, states, prices, logs and refusals, each by itself."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest

from launcher.errors import PlatformError
from launcher.plan.deepinfra import model_name
from launcher.plan.names import endpoint_name
from launcher.platforms.base import ResourceState
from launcher.platforms.creation import create_once
from launcher.platforms.deepinfra import logs, names, states
from launcher.platforms.deepinfra.client import DeepInfraClient
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.deepinfra.logs import LogWindow
from launcher.platforms.deepinfra.meter import price_of
from launcher.platforms.deepinfra.reading import moment
from launcher.platforms.deepinfra.types import Deployment, LogEntry, Me, Offer
from launcher.platforms.http import Answer, RequestFailed, RetryPolicy, message_of
from tests.fakes.clock import run_virtual

FRIDAY = 1_795_193_940.0
"""A moment in 2026."""
HOUR = 3600.0


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("task", ["gsm8k", "9 lives", "a" * 80, "x-nv-eval-x"])
def test_a_name_tells_mark_endpoint_invocation_and_expiry_to_any_machine(task: str, attempt: int) -> None:
    planned = endpoint_name("deepinfra", task, 3, "a1234567", attempt=attempt)
    full = names.expiring(model_name(planned), 4 * HOUR, FRIDAY)

    for shown, owner in ((full, ""), (f"acme/{full}", "acme"), (f"github|acme/{full}", "github|acme")):
        ours = names.parse(shown)
        assert ours is not None
        assert (ours.name, ours.invocation, ours.owner) == (planned, "a1234567", owner)
        assert 4 * HOUR <= ours.expires - FRIDAY < 4 * HOUR + 60, "never early, and at most a minute late"


NOT_OURS = [
    "",
    "llama",
    "acme/my-nv-eval-t-0-a1234567-xht0na",
    "nv-eval-t-0-a1234567",
    "nv-eval-t-0-a1234567-x",
    "nv-eval-t-0-a1234567-xHT0NA",
    "nv-eval-t-0-a123456-xht0na",
    "nv-eval-t-0-g1234567-xht0na",
    "nv-eval-t-0-11234567-xht0na",
    "acme/nv-eval-t-0-a1234567-xht0na/further",
    "nv-eval-llama-decade99-xl",
    "nv-eval-llama-decade99-xht0na",
    "nv-eval-llama-v2-decade99-xht0na",
    "nv-eval-llama-0-decade99-xl",
    "nv-eval-llama-0-decade99-xlarge",
    "nv-eval-llama-0-decade99-xsmall",
    "nv-eval-llama-0-decade99-xzzzzz",
]


@pytest.mark.parametrize("name", NOT_OURS)
def test_what_only_resembles_a_name_of_ours_is_left_alone(name: str) -> None:
    assert names.parse(name) is None


def test_only_deployments_that_rent_gpus_are_ours() -> None:
    name = "acme/nv-eval-t-0-a1234567-xht0na"

    assert deployment(model_name=name).ours is not None
    assert deployment(model_name=name, type="lora").ours is None


# --- states -----------------------------------------------------------------------------------------------------------


def deployment(**keys: Any) -> Deployment:
    """A deployment as the service shows it."""
    document = {"type": "llm", "deploy_id": "abc", "model_name": "acme/m", "status": "running", **keys}
    return msgspec.convert(document, Deployment)


ONE_H100 = {"gpu": "H100-80GB", "num_gpus": 1, "max_batch_size": 96}
STATES: list[tuple[dict[str, Any], ResourceState, str]] = [
    ({"status": "initializing"}, ResourceState.PENDING, "initializing: resources are being found"),
    ({"status": "downloading"}, ResourceState.PENDING, "downloading the weights"),
    ({"status": "deploying"}, ResourceState.PENDING, "deploying: its server is starting"),
    ({"status": "running"}, ResourceState.RUNNING, ""),
    ({"status": "deployed"}, ResourceState.RUNNING, ""),
    ({"status": "running", "instances": {"running": 1, "pending": 1}}, ResourceState.RUNNING, ""),
    (
        {"status": "running", "instances": {"running": 0, "pending": 2}, "config": ONE_H100},
        ResourceState.PENDING,
        "waiting for a GPU: 2 x 1xH100-80GB asked for",
    ),
    ({"status": "stopped"}, ResourceState.FAILED, "somebody stopped it"),
    ({"status": "failed", "fail_reason": "CUDA error"}, ResourceState.FAILED, "failed: CUDA error"),
    ({"status": "failed"}, ResourceState.FAILED, "DeepInfra gives no reason"),
    ({"status": "deleted"}, ResourceState.GONE, ""),
    ({"status": "migrating"}, ResourceState.PENDING, "DeepInfra calls it migrating"),
    ({"status": ""}, ResourceState.UNKNOWN, "DeepInfra does not say what its state is"),
]


@pytest.mark.parametrize(("keys", "state", "detail"), STATES)
def test_a_status_has_its_state_and_its_reason(keys: dict[str, Any], state: ResourceState, detail: str) -> None:
    found = deployment(**keys)

    assert states.state_of(found) is state
    assert detail in states.why(found)
    assert found.serves is (state is ResourceState.RUNNING)


def test_a_secret_is_taken_out_of_a_reason_before_the_reason_is_cut() -> None:
    secret = "hf_canary0value0of0mine"
    found = deployment(status="failed", fail_reason="x" * (states.LONGEST - 20) + secret)

    assert "hf_canary" not in states.why(found, lambda text: text.replace(secret, "***"))


def test_only_what_runs_is_billed_and_what_waits_counts_against_the_limit() -> None:
    waits = deployment(config={**ONE_H100, "num_gpus": 2}, instances={"running": 1, "pending": 1})
    silent = deployment(config=ONE_H100, settings={"min_instances": 3, "max_instances": 3})
    stopped = deployment(config=ONE_H100, status="stopped", settings={"min_instances": 3, "max_instances": 3})

    assert [one.billed_instances for one in (waits, silent, stopped)] == [1, 3, 0]
    assert [one.gpus_held for one in (waits, silent, stopped)] == [4, 3, 0]


def test_a_team_owns_its_deployments() -> None:
    assert Me(uid="u1", display_name="jo", is_team_account=True, team_display_name="acme").owner == "acme"
    assert Me(uid="u1", display_name="jo", team_display_name="acme").owner == "jo"
    assert Me(uid="u1").owner == "u1"


# --- prices -----------------------------------------------------------------------------------------------------------


def test_a_price_is_that_of_the_configuration_else_of_its_gpus() -> None:
    offers = [
        Offer(gpu_config="1xA100-80GB", usd_per_hour=1.0, available=True),
        Offer(gpu_config="2xA100-80GB", usd_per_hour=1.8, available=True),
        Offer(gpu_config="L4-24GB", usd_per_hour=0.5, available=True),
    ]

    prices = {shape: price_of(offers, shape) for shape in ("2xA100-80GB", "4xA100-80GB", "2xL4-24GB", "1xB200-180GB")}

    assert prices == {"2xA100-80GB": 1.8, "4xA100-80GB": 4.0, "2xL4-24GB": 1.0, "1xB200-180GB": None}


def test_what_is_null_or_odd_in_prices_limits_and_rent_hides_nothing_else() -> None:
    offer = {"gpu_config": "1xH100-80GB", "usd_per_hour": 2.0, "available": True}
    answers: dict[str, Any] = {
        "/deploy/llm/gpu_availability": {"gpus": [{**offer, "usd_per_hour": None}, None, 1, offer]},
        "/v1/me/gpu_limit": {
            "limits": {"H100-80GB": 8, "L4-24GB": None, "A100-80GB": "many"},
            "pending_requests": None,
        },
        "/payment/usage/rent": {"id_to_duration": {"one": 1800, "theirs": None, "odd": []}},
    }

    async def ask() -> None:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answers[request.url.path]))
        access = Credentials(key="di-0123456789", source="a test", url="http://deepinfra.test")
        client = DeepInfraClient(access, transport=transport)
        assert [found.gpu_config for found in await client.offers()] == ["1xH100-80GB"]
        assert await client.gpu_limits() == {"H100-80GB": 8}
        assert await client.rent(0.0) == {"one": 1800.0}

    run_virtual(ask())


# --- logs -------------------------------------------------------------------------------------------------------------


def read(log: list[LogEntry], limit: int) -> list[str]:
    """All lines of a log, page by page, as the service gives them."""
    window, found = LogWindow(start=LogWindow.since(0.0).start, limit=limit), list[LogEntry]()
    for _ in range(len(log) + 2):
        page = [entry for entry in log if float(entry[0]) >= float(window.start)][:limit]
        found += window.fresh(page)
        if not window.is_full(page):
            break
        window = window.after(page)
    return [text for _, text in found]


@pytest.mark.parametrize("limit", [3, 4, 100])
@pytest.mark.parametrize("moments", [[1, 2, 3, 4, 5], [1, 1, 2, 2, 3, 4, 4], [1, 2, 2]])
def test_no_line_is_lost_or_doubled_between_pages(moments: list[int], limit: int) -> None:
    log = [(f"{moment}.000000001", f"line {index}") for index, moment in enumerate(moments)]

    assert read(log, limit) == [text for _, text in log]


def test_a_page_without_stamps_ends_the_reading_and_its_lines_are_not_shown_twice() -> None:
    window = LogWindow(start=LogWindow.since(0.0).start, limit=2)
    page = logs.entries([["today", "a"], ["today", "b"]])

    assert not window.is_full(page)
    assert window.after(page).fresh(logs.entries([["today", "a"], ["today", "b"], ["today", "c"]])) == [("", "c")]


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1795276800.000000001", "1795276800.000000001"),
        ("1795276800", "1795276800"),
        ("2026-11-21T16:00:00Z", "1795276800"),
        ("2026-11-21T18:00:00+02:00", "1795276800"),
        ("2026-11-21 16:00:00.5", "1795276800.5"),
        ("", None),
        ("Infinity", None),
        ("1e999999", None),
        ("-5", None),
        ("soon", None),
    ],
)
def test_a_stamp_is_a_number_or_a_date_or_nothing(stamp: str, seconds: str | None) -> None:
    assert moment(stamp) == (Decimal(seconds) if seconds is not None else None)


def test_more_lines_of_one_moment_than_a_page_holds_do_not_stop_the_reading() -> None:
    log = [("1.5", "a"), ("1.5", "b"), ("1.5", "c"), ("2.5", "d")]

    assert read(log, 2) == ["a", "b", "d"]


# --- errors -----------------------------------------------------------------------------------------------------------

SHAPES: list[tuple[Any, str]] = [
    ({"error": "Model not found"}, "Model not found"),
    ({"detail": {"error": "Model not found"}}, "Model not found"),
    ({"detail": "Not authenticated"}, "Not authenticated"),
    ({"error": {"message": "no such model", "type": "invalid_request_error"}}, "no such model"),
    (
        {"detail": [{"loc": ["body", "hf", "token"], "msg": "not a string", "type": "x", "input": "hf_secret"}]},
        "hf.token: not a string",
    ),
    ({"detail": [{"loc": ["body", "gpu"], "msg": "bad"}, {"msg": "worse"}]}, "gpu: bad; worse"),
]


@pytest.mark.parametrize(("body", "said"), SHAPES)
def test_every_shape_of_an_error_says_the_same(body: Any, said: str) -> None:
    assert message_of(Answer(422, httpx.Headers(), json.dumps(body).encode())) == said


def refusal(status: int | None, message: str, *, maybe_done: bool = False) -> RequestFailed:
    return RequestFailed("DeepInfra", "POST", "/deploy/llm", status=status, message=message, maybe_done=maybe_done)


REFUSALS = [
    (401, "Invalid API key", "DeepInfra: the key is not valid (any more); make one at"),
    (403, "Not authenticated", "DeepInfra: the key is not valid (any more); make one at"),
    (402, "balance is 0", "DeepInfra: no payment method or balance: balance is 0; add one at"),
    (409, "the name is taken", "DeepInfra: e was not created: the name is taken (409)"),
    (409, "GPU limit of 4 exceeded", "set limits.max_gpus"),
    (422, "gpu: Input should be 'L4-24GB'", "DeepInfra: e was not created: gpu: Input should be"),
    (404, "Repository x/y not found on Hugging Face", "check deployment.model_id and deployment.revision"),
    (400, "Access to x/y is restricted: it is a gated repository", "accept the model's terms on Hugging Face"),
    (400, "invalid token", "set deployment.hf_token_name"),
]


@pytest.mark.parametrize(("status", "message", "says"), REFUSALS)
def test_a_refused_creation_says_in_one_line_what_to_do(status: int, message: str, says: str) -> None:
    said = str(states.explained(refusal(status, message), "e"))

    assert says in said
    assert "\n" not in said


def test_a_creation_that_nobody_answered_says_that_it_may_exist() -> None:
    assert "nv-eval gc" in str(states.explained(refusal(None, "no answer in time", maybe_done=True), "e"))


def test_what_the_service_repeats_of_the_key_is_taken_out() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": "bad key di-0123456789"})

    async def ask() -> None:
        client = DeepInfraClient(
            Credentials(key="di-0123456789", source="a test", url="http://deepinfra.test"),
            transport=httpx.MockTransport(answer),
            policy=RetryPolicy(),
        )
        await client.me()

    with pytest.raises(PlatformError, match=r"bad key \*\*\*"):
        run_virtual(ask())


# --- creation ---------------------------------------------------------------------------------------------------------


class Names:
    """A service with one name that lists what it made `lag` seconds late. `answers` to creations, in their order."""

    def __init__(self, *answers: str | RequestFailed) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def create(self) -> str:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, RequestFailed):
            raise answer
        return answer

    async def nothing(self) -> str | None:
        return None

    def run(self) -> str:
        return run_virtual(
            create_once(
                self.create,
                self.nothing,
                describe="a thing",
                is_ours=lambda _: True,
                is_leaving=lambda _: False,
                waits_for_name=False,
            )
        )


def test_a_conflict_that_shows_nothing_is_not_asked_again_blindly() -> None:
    service = Names(refusal(409, "GPU limit"))

    with pytest.raises(RequestFailed, match="GPU limit"):
        service.run()
    assert service.asked == 1


def test_a_conflict_after_a_lost_answer_is_the_lost_one_which_will_show() -> None:
    service = Names(refusal(None, "", maybe_done=True), refusal(409, "taken"), "shown")

    assert service.run() == "shown"
