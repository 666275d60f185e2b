"""The emulated DeepInfra account: who may enter, what is rented, what it costs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from launcher.emulators.common import canned as model_without_weights
from launcher.emulators.deepinfra import After, Gpu, Launch, Repo, Script, Timing
from tests.contract.deepinfra.plane import Plane, plane, wanted
from tests.contract.lepton.plane import wait_for

HOUR = 3600.0
SECRET = "hf_canary0001"


@pytest.fixture(scope="module")
def account() -> Iterator[Plane]:
    with plane() as found:
        yield found


@pytest.fixture
def desk(account: Plane) -> Iterator[Plane]:
    """An account without deployments."""
    yield account
    for id_ in account.listed():
        account.ok("DELETE", f"/deploy/{id_}")


def test_a_deployment_goes_through_its_states_and_answers(desk: Plane) -> None:
    made = desk.ok("POST", "/deploy/llm", json=wanted(max_batch_size=8))
    id_ = made["deploy_id"]
    assert (made["status"], made["instances"]) == ("initializing", {"running": 0, "pending": 1})
    assert made["model_name"] == "nv-eval-tester/tiny"

    desk.wait(id_, "running")

    states = [status for _, status in desk.emulator.state().alive[0].states]
    assert states == ["initializing", "downloading", "deploying", "running"]
    assert desk.details(id_)["instances"] == {"running": 1, "pending": 0}
    assert desk.details(id_)["config"]["max_batch_size"] == 8


def test_states_wait_for_reads_and_for_seconds() -> None:
    timing = Timing(tick=0.01, initializing=After(reads=2), downloading=After(seconds=600), deploying=After(seconds=60))
    with plane(timing=timing) as desk:
        id_ = desk.create()
        assert desk.status(id_) == "initializing"
        desk.wait(id_, "downloading")
        desk.emulator.advance(601)
        desk.wait(id_, "deploying")
        desk.emulator.advance(61)
        desk.wait(id_, "running")


def test_weights_of_a_public_model_are_there_already() -> None:
    with plane(timing=Timing(tick=0.01, downloading=After(seconds=600))) as desk:
        desk.create_running(hf=None, base_model="meta-llama/Meta-Llama-3-8B-Instruct")


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer di-loopbackkey0001"}, {"xi-api-key": "di-loopbackkey0001"}]
)
def test_either_header_opens_the_account(headers: dict[str, str]) -> None:
    with plane(key=None) as desk:
        assert desk.ok("GET", "/v1/me", headers=headers)["display_name"] == "nv-eval-tester"


@pytest.mark.parametrize(
    ("how", "status", "body"),
    [
        ("error", 401, {"error": "Invalid or missing API key"}),
        ("detail", 401, {"detail": {"error": "Invalid or missing API key"}}),
        ("forbidden", 403, {"detail": "Not authenticated"}),
    ],
)
def test_a_wrong_key_is_refused_in_one_of_three_ways(how: str, status: int, body: dict[str, Any]) -> None:
    with plane(key="wrong", unauthorized=how) as desk:
        answer = desk.http.get("/deploy/list")

    assert (answer.status_code, answer.json()) == (status, body)


def test_the_version_of_the_command_line_is_told_to_everybody(desk: Plane) -> None:
    assert httpx.get(f"{desk.emulator.url}/cli/version", params={"version": "0.6.0"}, trust_env=False).is_success


def test_a_body_needs_no_content_type_and_a_path_may_end_with_a_slash(desk: Plane) -> None:
    made = desk.ok("POST", "/deploy/llm/", content=json.dumps(wanted()))

    assert desk.ok("GET", f"/deploy/{made['deploy_id']}/")["deploy_id"] == made["deploy_id"]


@pytest.mark.parametrize(
    ("keys", "status", "says"),
    [
        ({"gpu": "abacus"}, 422, "body.gpu"),
        ({"gpu": "B300-270GB"}, 422, "gpu B300-270GB is not offered"),
        ({"num_gpus": 9}, 422, "body.num_gpus"),
        ({"num_gpus": 8}, 409, "GPU limit of 4 exceeded"),
        ({"max_batch_size": 257}, 422, "body.max_batch_size"),
        ({"settings": {"min_instances": 2, "max_instances": 1}}, 422, "min_instances"),
        ({"model_name": "somebody/tiny"}, 422, "prefix 'somebody' must match user display name 'nv-eval-tester'"),
        ({"model_name": "a b"}, 422, "must not have"),
        ({"model_name": "nv-eval-tester/"}, 422, "must not have"),
        ({"hf": None}, 422, "one of hf, base_model and container_image"),
        ({"hf": {"revision": "main"}}, 422, "body.hf.repo"),
    ],
)
def test_what_cannot_be_rented_is_refused(desk: Plane, keys: dict[str, Any], status: int, says: str) -> None:
    answer = desk.http.post("/deploy/llm", json=wanted(**keys))

    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert desk.emulator.state().alive == ()


def test_without_a_payment_method_nothing_is_rented() -> None:
    with plane(has_payment=False) as desk:
        assert desk.refused("POST", "/deploy/llm", json=wanted())[0] == 402


def test_a_name_is_free_again_once_its_deployment_is_deleted(desk: Plane) -> None:
    id_ = desk.create("mine")
    assert desk.refused("POST", "/deploy/llm", json=wanted("nv-eval-tester/mine"))[0] == 409
    assert desk.ok("GET", "/deploy/llm/suggest_name?model_name=mine")["model_name"] == "nv-eval-tester/mine-2"

    desk.ok("DELETE", f"/deploy/{id_}")

    assert desk.create("nv-eval-tester/mine") != id_


def test_no_token_is_ever_shown(desk: Plane) -> None:
    id_ = desk.create(hf={"repo": "acme/gated", "token": SECRET})

    shown = [desk.http.get(path).text for path in ("/deploy/list", f"/deploy/{id_}", "/models/private/list")]
    assert SECRET not in "".join(shown) + repr(desk.emulator.state())
    assert desk.details(id_)["config"]["weights"] == {"repo": "acme/gated", "revision": None, "token": None}


GATED = (Repo(pattern="acme/gated", gated=True), Repo(pattern="acme/*", revisions=("main",)))


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"repo": "nobody/nothing"}, "Repository nobody/nothing not found"),
        ({"repo": "acme/gated"}, "Access to acme/gated is restricted"),
        ({"repo": "acme/gated", "token": "hf_of_a_stranger"}, "Access to acme/gated is restricted"),
        ({"repo": "acme/open", "revision": "v2"}, "Revision v2 of acme/open not found"),
    ],
)
def test_weights_that_cannot_be_had_are_noticed_late_or_at_once(weights: dict[str, str], reason: str) -> None:
    with plane(repos=GATED, hf_tokens=(SECRET,)) as desk:
        id_ = desk.create(hf=weights)
        desk.wait(id_, "failed")
        assert reason in desk.details(id_)["fail_reason"]
        assert desk.emulator.meter().usd == 0
    with plane(repos=GATED, hf_tokens=(SECRET,), checks_weights="at_once") as desk:
        status, says = desk.refused("POST", "/deploy/llm", json=wanted(hf=weights))
        assert status == 422 and reason in says


def test_the_right_token_opens_a_gated_repository() -> None:
    with plane(repos=GATED, hf_tokens=(SECRET,)) as desk:
        desk.create_running(hf={"repo": "acme/gated", "token": SECRET})


def test_a_base_model_must_exist() -> None:
    with plane(base_models=("acme/*",)) as desk:
        id_ = desk.create(hf=None, base_model="somebody/else")
        desk.wait(id_, "failed")


def test_the_list_shows_what_is_not_deleted_or_what_is_asked_for(desk: Plane) -> None:
    kept, gone = desk.create_running("kept"), desk.create_running("gone")
    desk.ok("DELETE", f"/deploy/{gone}")

    assert desk.listed() == [kept]
    assert gone in desk.listed(status="deleted") and kept not in desk.listed(status="deleted")
    assert desk.listed(status="deleted,running")[-2:] == [kept, gone]
    assert desk.refused("GET", "/deploy/list?status=running,nice") == (400, "unknown status nice")


def test_the_list_has_rows_of_models_that_cost_nothing(desk: Plane) -> None:
    (row,) = desk.ok("GET", "/deploy/list")
    assert (row["type"], row["config"], row["instances"]) == ("legacy", None, None)

    id_ = desk.ok("POST", "/deploy/hf/", json={"model_name": "acme/other"})["deploy_id"]

    assert id_ in [row["deploy_id"] for row in desk.ok("GET", "/deploy/list/")]
    assert id_ not in [line.deploy_id for line in desk.emulator.meter().lines]


@pytest.mark.parametrize(("details", "status"), [("deleted", 200), ("404", 404)])
def test_a_deleted_deployment_still_has_details_or_not(details: str, status: int) -> None:
    with plane(deleted_details=details) as desk:
        id_ = desk.create_running()
        desk.ok("DELETE", f"/deploy/{id_}")

        assert desk.http.get(f"/deploy/{id_}").status_code == status
        assert desk.refused("DELETE", f"/deploy/{id_}")[0] == 404
        assert desk.refused("GET", f"/deploy/{id_}/stats?from=0")[0] == 410
        assert desk.emulator.state().alive == ()


def test_a_deployment_can_be_deleted_while_it_deploys() -> None:
    with plane(timing=Timing(tick=0.01, deploying=After(seconds=600))) as desk:
        id_ = desk.create()
        desk.wait(id_, "deploying")
        desk.ok("DELETE", f"/deploy/{id_}")
        assert desk.status(id_) == "deleted"


def test_a_stopped_deployment_keeps_its_name_costs_nothing_and_starts_again(desk: Plane) -> None:
    id_ = desk.create_running()
    assert desk.refused("POST", f"/deploy/{id_}/start")[0] == 400

    desk.ok("POST", f"/deploy/{id_}/stop")
    before = desk.emulator.meter().of(id_)
    desk.emulator.advance(HOUR)
    assert (desk.status(id_), desk.running(id_), desk.emulator.meter().of(id_)) == ("stopped", 0, before)
    assert desk.refused("POST", f"/deploy/{id_}/stop")[0] == 400

    desk.ok("POST", f"/deploy/{id_}/start")
    desk.wait(id_, "running")


def test_scaling_starts_and_ends_instances_and_the_meter_counts_each(desk: Plane) -> None:
    id_ = desk.create_running()
    desk.emulator.advance(HOUR)
    settings = {"min_instances": 3, "max_instances": 3, "inactive_shutdown": None}
    desk.ok("PUT", f"/deploy/{id_}", json={"settings": settings})
    wait_for(lambda: desk.running(id_) == 3)
    desk.emulator.advance(HOUR)
    desk.ok("PUT", f"/deploy/{id_}", json={"settings": {"min_instances": 1, "max_instances": 1}})
    wait_for(lambda: desk.running(id_) == 1)
    desk.emulator.advance(HOUR)
    desk.ok("DELETE", f"/deploy/{id_}")
    desk.emulator.advance(HOUR)

    line = desk.emulator.meter().of(id_)
    assert line.seconds == pytest.approx(5 * HOUR, abs=20)
    assert line.usd == pytest.approx(5 * 1.79, abs=0.01)
    rent = desk.ok("GET", "/payment/usage/rent", params={"from": 0})["id_to_duration"]
    assert rent[id_] == pytest.approx(line.seconds, abs=0.5)


@pytest.mark.parametrize("settings", [{"min_instances": 2, "max_instances": 1}, {"min_instances": -1}])
def test_bounds_that_cannot_be_are_refused(desk: Plane, settings: dict[str, int]) -> None:
    id_ = desk.create_running()

    assert desk.refused("PUT", f"/deploy/{id_}", json={"settings": settings})[0] == 400
    assert desk.details(id_)["settings"] == {"min_instances": 1, "max_instances": 1}


def test_the_price_is_that_of_all_gpus_of_an_instance() -> None:
    with plane(gpus=(Gpu(type="A100-80GB", usd_per_hour=2.0),)) as desk:
        offers = {one["gpu_config"]: one for one in desk.ok("GET", "/deploy/llm/gpu_availability")["gpus"]}
        id_ = desk.create_running(gpu="A100-80GB", num_gpus=2)
        desk.emulator.advance(64 * HOUR)

        assert offers["2xA100-80GB"]["usd_per_hour"] == 4.0
        assert desk.emulator.meter().of(id_).usd == pytest.approx(256.0, abs=0.1)


def test_the_bill_of_a_period_has_only_that_period(desk: Plane) -> None:
    id_ = desk.create_running()
    desk.emulator.advance(HOUR)
    middle = int(desk.emulator.clock.now())
    desk.emulator.advance(HOUR / 2)

    rent = desk.ok("GET", "/payment/usage/rent", params={"from": middle, "to": middle + 600})["id_to_duration"]
    assert rent == {id_: 600}
    stats = desk.ok("GET", f"/deploy/{id_}/stats", params={"from": "now-30m"})
    assert stats["total_amount"] == pytest.approx(90, abs=1)


def test_gpus_beyond_the_limit_are_refused_or_wait() -> None:
    with plane(gpu_limit=2) as desk:
        desk.create_running("one", num_gpus=2)
        assert desk.refused("POST", "/deploy/llm", json=wanted("two"))[0] == 409
    with plane(gpu_limit=2, over_limit="pending") as desk:
        first, second = desk.create_running("one", num_gpus=2), desk.create("two")
        assert desk.details(second)["instances"] == {"running": 0, "pending": 1}
        desk.ok("DELETE", f"/deploy/{first}")
        desk.wait(second, "running")


def test_gpus_that_are_not_available_are_waited_for() -> None:
    with plane(gpus=(Gpu(type="H100-80GB", usd_per_hour=2.0, available=False),)) as desk:
        id_ = desk.create()
        assert not desk.ok("GET", "/deploy/llm/gpu_availability")["gpus"][0]["available"]
        assert (desk.status(id_), desk.details(id_)["instances"]["pending"]) == ("initializing", 1)


def test_limits_are_told_by_type() -> None:
    gpus = (Gpu(type="H100-80GB", usd_per_hour=2.0, limit=1), Gpu(type="L4-24GB", usd_per_hour=0.5))
    with plane(gpus=gpus) as desk:
        assert desk.ok("GET", "/v1/me/gpu_limit")["limits"] == {"H100-80GB": 1, "L4-24GB": 4}
        id_ = desk.create_running(settings={"min_instances": 2, "max_instances": 2})
        assert desk.details(id_)["instances"] == {"running": 1, "pending": 1}


def talkative(launch: Launch) -> Script:
    return Script(output=f"serving {launch.weights}\nready\n")


def test_logs_are_told_as_a_whole_and_by_instance() -> None:
    with plane(simulations={"acme/*": talkative}) as desk:
        id_ = desk.create_running(settings={"min_instances": 2, "max_instances": 2})
        wait_for(lambda: len(desk.ok("GET", f"/v1/logs/query?deploy_id={id_}")["entries"]) == 4)

        entries = desk.ok("GET", f"/v1/logs/query?deploy_id={id_}")["entries"]
        by_pod = desk.ok("GET", f"/v1/deployment_logs/query?deploy_id={id_}")["entries"]
        assert {pod: [text for _, text in lines] for pod, lines in by_pod.items()} == {
            f"{id_}-1": ["serving acme/tiny-llm", "ready"],
            f"{id_}-2": ["serving acme/tiny-llm", "ready"],
        }
        assert [time for time, _ in entries] == sorted(time for time, _ in entries)
        later = {"deploy_id": id_, "from": entries[2][0], "limit": 1}
        assert desk.ok("GET", "/v1/logs/query", params=later)["entries"] == [entries[2]]
        until = {"deploy_id": id_, "to": entries[2][0]}
        assert desk.ok("GET", "/v1/logs/query", params=until)["entries"] == entries[:2]
        only = {"deploy_id": id_, "pod_name": f"{id_}-2"}
        assert list(desk.ok("GET", "/v1/deployment_logs/query", params=only)["entries"]) == [f"{id_}-2"]


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "1001"}, {"from": "yesterday"}, {"to": "1.x"}])
def test_a_window_of_logs_that_cannot_be_is_refused(desk: Plane, query: dict[str, str]) -> None:
    id_ = desk.create()

    asked = httpx.get(
        f"{desk.emulator.url}/v1/logs/query",
        params={"deploy_id": id_, **query},
        headers={"xi-api-key": desk.emulator.key},
        trust_env=False,
    )
    assert asked.status_code == 400


def test_a_model_is_called_by_its_id_its_name_or_its_version(desk: Plane) -> None:
    id_ = desk.create_running()
    name, version = (desk.details(id_)[key] for key in ("model_name", "version"))

    for model in (f"deploy_id:{id_}", name, f"{name}:{version}"):
        found = desk.complete(model)
        assert (found["model"], found["choices"][0]["text"]) == (model, " ok")


def test_a_model_that_does_not_run_does_not_exist() -> None:
    with plane(timing=Timing(tick=0.01, deploying=After(seconds=600))) as desk:
        id_ = desk.create()
        asked = {"model": f"deploy_id:{id_}", "prompt": "Hi"}
        status, says = desk.refused("POST", "/v1/openai/completions", json=asked)
        assert status == 404 and "not running" in says
        desk.wait(id_, "deploying")
        desk.emulator.advance(601)
        desk.wait(id_, "running")
        desk.complete(f"deploy_id:{id_}")
        desk.ok("POST", f"/deploy/{id_}/stop")
        assert desk.refused("POST", "/v1/openai/completions", json=asked)[0] == 404


@pytest.mark.parametrize(
    "fields",
    [{"prompt": ["a", "b"]}, {"prompt": [[1], [2]]}, {"max_tokens": 0}, {"n": 5}, {"temperature": 3}, {"prompt": None}],
)
def test_a_completion_that_the_service_does_not_take_is_refused(desk: Plane, fields: dict[str, Any]) -> None:
    asked = {"model": f"deploy_id:{desk.create_running()}", "prompt": "Hi", **fields}

    status, says = desk.refused("POST", "/v1/openai/completions", json=asked)
    assert status == 422 and f"body.{next(iter(fields))}" in says


def test_a_deployment_without_instances_gets_one_at_the_first_request(desk: Plane) -> None:
    id_ = desk.create_running(settings={"min_instances": 0, "max_instances": 1})
    asked = {"model": f"deploy_id:{id_}", "prompt": "Hi"}
    assert (desk.running(id_), desk.emulator.meter().of(id_).usd) == (0, 0)

    assert desk.refused("POST", "/v1/openai/completions", json=asked)[0] == 429

    wait_for(lambda: desk.running(id_) == 1)
    desk.complete(f"deploy_id:{id_}")


holding, released = threading.Event(), threading.Event()


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answers when the test lets it."""
    holding.set()
    await asyncio.to_thread(released.wait)
    await model_without_weights.model(scope, receive, send)


def test_more_requests_in_flight_than_allowed_are_refused() -> None:
    holding.clear(), released.clear()
    with plane(simulations={"*": lambda _: Script(application=slow)}, rate_limit=1) as desk:
        asked = {"model": f"deploy_id:{desk.create_running()}", "prompt": "Hi", "max_tokens": 1}
        first = threading.Thread(target=desk.ok, args=("POST", "/v1/openai/completions"), kwargs={"json": asked})
        first.start()
        assert holding.wait(10)
        assert desk.refused("POST", "/v1/openai/completions", json=asked) == (429, "Rate limited")
        released.set()
        first.join()
        desk.ok("POST", "/v1/openai/completions", json=asked)


async def tells(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was asked."""
    body = b""
    while (part := await receive())["type"] == "http.request":
        body += part["body"]
        if not part.get("more_body"):
            break
    heard = json.dumps({"model": "inner", "heard": json.loads(body)}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": heard})


def test_the_server_hears_its_own_name_and_no_field_that_the_service_lacks() -> None:
    with plane(simulations={"*": lambda _: Script(application=tells)}) as desk:
        model = f"deploy_id:{desk.create_running()}"
        found = desk.complete(model, top_k=5, best_of=3, guided_regex="x")

    assert found["model"] == model
    assert found["heard"] == {"model": "nv-eval-tester/tiny", "prompt": "Hello there", "max_tokens": 1, "top_k": 5}
