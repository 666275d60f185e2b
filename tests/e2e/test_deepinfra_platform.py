"""Endpoints rented on an emulated DeepInfra account: their life, what they cost, and what is found of them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from pathlib import Path

import pytest

from launcher.emulators.deepinfra import (
    After,
    Config,
    Fails,
    Fault,
    LateListing,
    LoseAnswer,
    NoCapacity,
    Refuse,
    SlowDelete,
    Timing,
)
from launcher.errors import NotFound, PlatformError
from launcher.orchestrator.reasons import Reason
from launcher.plan.deepinfra import API_KEY, model_name
from launcher.platforms.base import Capacity, ResourceState
from launcher.platforms.deepinfra.logs import LogWindow
from launcher.platforms.deepinfra.names import expiring
from launcher.platforms.deepinfra.platform import DeepInfraPlatform
from tests.e2e.deepinfra_bench import HF_TOKEN, KEY, Bench, bench, create, until, until_gone, until_state, until_swept

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are for real clouds."""
    monkeypatch.setattr("launcher.platforms.creation.GRACE", (0.1, 0.2, 0.4))
    monkeypatch.setattr("launcher.platforms.tracking.LIST_LAG", 0.5)
    monkeypatch.setattr("launcher.platforms.deepinfra.endpoints.METER_PATIENCE", 1.0)
    monkeypatch.delenv(API_KEY, raising=False)


def nothing_left(made: Bench, deployments: int) -> None:
    state = made.emulator.state()
    assert state.alive == ()
    assert len(state.deployments) == deployments


# --- whole runs -------------------------------------------------------------------------------------------------------


async def test_each_task_gets_its_deployment_its_score_and_its_cost(tmp_path: Path) -> None:
    with bench(tmp_path, Config(gpu_limit=2)) as made:
        plan = made.plan(3, gpu="L4-24GB")

        outcome = await made.run(plan)

        assert [task.reason for task in outcome.tasks] == [Reason.COMPLETED] * 3, outcome
        assert [task.scores[0].value for task in outcome.tasks] == [0.5] * 3
        nothing_left(made, 3)
        billed = sum(round(line.seconds) for line in made.emulator.meter().lines) / 3600 * 0.5
        assert sum(task.usd or 0.0 for task in outcome.tasks) == pytest.approx(billed)
        assert made.requests("POST") == ["/deploy/llm"] * 3
        logs = list((tmp_path / "results" / plan.invocation).rglob("endpoint.log"))
        assert [log.read_text() for log in logs] == ["the server says hello\n"] * 3


FATES: list[Fault] = [
    LoseAnswer(route="POST *", times=1),
    LoseAnswer(route="DELETE *", times=2),
    LoseAnswer(route="GET *", probability=0.2),
    Refuse(route="POST *", status=503, times=2),
    Refuse(route="POST *", status=429, retry_after=1, times=1),
    Refuse(route="*", status=502, probability=0.2),
    Refuse(route="DELETE *", status=409, message="it is deploying", times=3),
    Refuse(route="GET /payment/*", status=500),
    LateListing(seconds=1.0),
    SlowDelete(after=After(reads=3, seconds=0.5)),
]


@pytest.mark.parametrize("fault", FATES, ids=repr)
async def test_a_fault_that_passes_makes_no_second_deployment_and_leaves_none(tmp_path: Path, fault: Fault) -> None:
    with bench(tmp_path, Config(faults=(fault,), seed=7)) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            made_ = await create(platform, plan)
            await until(platform, made_.name, lambda found: found.url is not None)
            await until_gone(platform, made_.name)

        nothing_left(made, 1)


async def test_a_deletion_that_is_answered_by_one_404_leaves_nothing_running(tmp_path: Path) -> None:
    with bench(tmp_path, Config(faults=(Refuse(route="DELETE *", status=404, times=1),))) as made:
        outcome = await made.run(made.plan())

        assert (outcome.exit_code, list(outcome.leftovers)) == (0, [])
        nothing_left(made, 1)


# --- one endpoint -----------------------------------------------------------------------------------------------------


async def test_it_is_told_how_to_be_called_only_when_an_instance_runs(tmp_path: Path) -> None:
    with bench(tmp_path, Config(timing=Timing(downloading=After(seconds=0.5)))) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            created = await create(platform, plan)
            waiting = await until(platform, created.name, lambda found: "downloading" in found.detail)
            running = await until_state(platform, created.name, ResourceState.RUNNING)
            await until_gone(platform, created.name)

        assert (created.name, created.model) == (plan.tasks[0].endpoint.name, f"deploy_id:{created.id}")  # type: ignore[union-attr]
        assert (waiting.state, waiting.url) == (ResourceState.PENDING, None)
        assert (running.url, running.detail) == (made.emulator.url, "")


async def test_the_name_that_is_made_carries_the_expiry_of_its_plan(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan(expires_after=7200)
        async with made.opened(plan) as platform:
            await create(platform, plan)
            (left,) = await platform.sweep(plan.invocation[:4])

        assert (left.name, left.invocation) == (plan.tasks[0].endpoint.name, plan.invocation)  # type: ignore[union-attr]
        assert left.expiry_is_ours
        assert left.expires_in is not None
        assert 7100 < left.expires_in <= 7260


async def test_asking_twice_makes_one(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            first, second = await asyncio.gather(create(platform, plan), create(platform, plan))

        assert first.id == second.id
        assert made.requests("POST") == ["/deploy/llm"]


async def test_one_whose_answer_was_lost_and_that_no_list_shows_yet_is_found(tmp_path: Path) -> None:
    faults = (LoseAnswer(route="POST *", times=1), LateListing(seconds=2.0))
    with bench(tmp_path, Config(faults=faults)) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            created = await create(platform, plan)

            assert [item.id for item in made.emulator.state().deployments] == [created.id]


async def test_what_an_earlier_launcher_made_is_adopted_though_its_expiry_is_another(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        (task,) = plan.tasks
        assert task.endpoint is not None
        later = dataclasses.replace(task.endpoint, lifetime=99_999.0)
        async with made.opened(plan) as first, made.opened(plan) as second:
            kept = await create(first, plan)
            found = await second.create_endpoint(task, later)

        assert found.id == kept.id
        assert made.requests("POST") == ["/deploy/llm"]


async def test_a_second_one_shows_under_a_name_of_its_own_by_which_it_can_be_deleted(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        async with made.opened(plan) as first:
            kept = await create(first, plan)
            body = {
                "model_name": expiring(model_name(kept.name), 9999.0, time.time()),
                "gpu": "L4-24GB",
                "hf": {"repo": "acme/tiny"},
            }
            await first._client.create(body)

            seen = await _until_two(first)
            stray = next(name for name in seen if name != kept.name)
            await until_gone(first, stray)
            left = await first.observe()

        assert seen[kept.name] == kept.id
        assert left.endpoints[kept.name].state is not ResourceState.GONE
        assert [item.id for item in made.emulator.state().alive] == [kept.id]


async def _until_two(platform: DeepInfraPlatform) -> dict[str, str]:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        seen = (await platform.observe()).endpoints
        if len(seen) == 2:
            return {name: found.id for name, found in seen.items()}
        await asyncio.sleep(0.05)
    raise AssertionError("the second one never showed")


async def test_one_that_fails_says_why_and_can_never_start(tmp_path: Path) -> None:
    with bench(tmp_path, Config(faults=(Fails(at="deploying", reason="CUDA out of memory"),))) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            name = (await create(platform, plan)).name
            failed = await until_state(platform, name, ResourceState.FAILED)
            gone = await until_gone(platform, name)

        assert "failed: CUDA out of memory; choose a larger deployment.gpu" in failed.detail
        assert failed.fatal
        assert gone.usd is None, "the meter does not know it"
        nothing_left(made, 1)


async def test_one_that_waits_for_ever_says_what_for(tmp_path: Path) -> None:
    with bench(tmp_path, Config(faults=(NoCapacity(),))) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            name = (await create(platform, plan)).name
            waiting = await until_state(platform, name, ResourceState.PENDING)
            await until_gone(platform, name)

        assert waiting.detail == "initializing: resources are being found"
        assert waiting.url is None
        nothing_left(made, 1)


@pytest.mark.parametrize("details", ["deleted", "404"])
async def test_what_somebody_else_deleted_is_gone_when_the_service_says_so(tmp_path: Path, details: str) -> None:
    with bench(tmp_path, Config(deleted_details=details)) as made:  # type: ignore[arg-type]
        plan = made.plan()
        async with made.opened(plan) as platform:
            created = await create(platform, plan)
            await until_state(platform, created.name, ResourceState.RUNNING)
            async with made.opened(made.plan()) as other:
                (left,) = await other.sweep(plan.invocation)
                await other.remove(left)
            gone = await until_state(platform, created.name, ResourceState.GONE)

        assert gone.detail == "somebody else removed it"


async def test_the_last_word_of_one_that_is_gone_is_its_whole_cost(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan(gpu="H100-80GB", num_gpus=2)
        async with made.opened(plan) as platform:
            name = (await create(platform, plan)).name
            await until_state(platform, name, ResourceState.RUNNING)
            made.emulator.advance(64 * 3600)
            gone = await until_gone(platform, name)

        (line,) = made.emulator.meter().lines
        assert gone.usd == pytest.approx(line.usd, abs=0.01)
        assert line.usd > 64 * 2 * 1.79


async def test_a_meter_that_fails_keeps_nothing_from_being_torn_down(tmp_path: Path) -> None:
    with bench(tmp_path, Config(faults=(Refuse(route="GET /payment/*", status=400),))) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            name = (await create(platform, plan)).name
            await until_state(platform, name, ResourceState.RUNNING)
            gone = await until_gone(platform, name)

            assert gone.usd is None
            assert (await platform.sweep()) == []
        nothing_left(made, 1)


async def test_all_of_them_are_watched_with_one_list(tmp_path: Path) -> None:
    with bench(tmp_path, Config(gpu_limit=8)) as made:
        plan = made.plan(4)
        async with made.opened(plan) as platform:
            names = [(await create(platform, plan, number)).name for number in range(4)]
            before = len(made.emulator.requests)
            for name in names:
                await until_state(platform, name, ResourceState.RUNNING)

            asked = [request.path for request in made.emulator.requests[before:]]
            assert set(asked) == {"/deploy/list"}


# --- what it prints and counts ----------------------------------------------------------------------------------------


async def test_its_log_comes_whole_in_order_stamped_and_without_secrets(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.output = "".join(f"line {number}\n" for number in range(2500)) + f"the key is {KEY}\n"
        plan = made.plan()
        async with made.opened(plan) as platform:
            name = (await create(platform, plan)).name
            await until_state(platform, name, ResourceState.RUNNING)
            lines = [line async for line in platform.logs(name)]
            last = await platform.tail(name, 2)
            with pytest.raises(NotFound):
                platform.logs("nothing")

        assert [line.text for line in lines] == [*(f"line {number}" for number in range(2500)), "the key is ***"]
        assert all(line.time is not None and abs(line.time - time.time()) < 60 for line in lines)
        assert last == ["line 2499", "the key is ***"]
        kept = (tmp_path / "results" / plan.invocation / "t0" / "endpoint.log").read_text()
        assert kept.splitlines()[-1] == "the key is ***"
        assert len(kept.splitlines()) == 1000


async def test_a_process_that_did_not_create_it_shows_no_secrets_of_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_TOKEN", HF_TOKEN)
    with bench(tmp_path) as made:
        made.output = f"loading with {HF_TOKEN}\n"
        plan = made.plan(hf_token_name="THE_TOKEN")
        async with made.opened(plan) as first, made.opened(plan) as second:
            name = (await create(first, plan)).name
            await until_state(second, name, ResourceState.RUNNING)

            assert await second.tail(name, 1) == ["loading with ***"]
            assert [line.text async for line in second.logs(name)] == ["loading with ***"]


async def test_a_log_is_followed_until_its_endpoint_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.platforms.deepinfra.platform.FOLLOW_INTERVAL", 0.05)
    with bench(tmp_path) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            name = (await create(platform, plan)).name

            async def follow() -> list[str]:
                return [line.text async for line in platform.logs(name, follow=True)]

            following = asyncio.create_task(follow())
            await until_state(platform, name, ResourceState.RUNNING)
            assert not following.done()
            await until_gone(platform, name)

            assert await asyncio.wait_for(following, 10) == ["the server says hello"]


async def test_it_can_be_scaled_and_counted(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            name = (await create(platform, plan)).name
            await until_state(platform, name, ResourceState.RUNNING)
            await platform.scale(name, least=2, most=2)
            counted = await platform.metrics(name, since=time.time() - 60)
            (left,) = await until_swept(platform, lambda found: found[0].usd_per_hour == 2 * 1.79)

            assert left.said == "running"
            assert (counted.requests, counted.errors, counted.usd is not None) == (0, 0, True)
            with pytest.raises(PlatformError, match="min_instances 3 does not fit max_instances 1"):
                await platform.scale(name, least=3, most=1)
            with pytest.raises(NotFound):
                await platform.scale("nothing", least=1, most=1)


async def test_one_that_was_stopped_says_so_and_can_be_started_again(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            created = await create(platform, plan)
            await until_state(platform, created.name, ResourceState.RUNNING)
            await platform._client.stop(created.id)
            stopped = await until_state(platform, created.name, ResourceState.FAILED)
            await platform._client.start(created.id)
            await until_state(platform, created.name, ResourceState.RUNNING)
            by_instance = await platform._client.pod_logs(created.id, LogWindow.since(0.0))

        assert "somebody stopped it" in stopped.detail
        assert {pod: [text for _, text in lines] for pod, lines in by_instance.items()} == {
            f"{created.id}-1": ["the server says hello"],
            f"{created.id}-2": ["the server says hello"],
        }


# --- the account ------------------------------------------------------------------------------------------------------


async def test_a_sweep_from_any_machine_shows_what_is_ours_and_costs_and_can_remove_it(tmp_path: Path) -> None:
    faults = (Fails(resource="nv-eval-t1-*", at="downloading", reason="no"),)
    with bench(tmp_path, Config(faults=faults)) as made:
        plan = made.plan(3, gpu="A100-80GB")
        async with made.opened(plan) as platform:
            for number in range(3):
                await create(platform, plan, number)
            await until_state(platform, plan.tasks[0].endpoint.name, ResourceState.RUNNING)  # type: ignore[union-attr]
            await until_state(platform, plan.tasks[1].endpoint.name, ResourceState.FAILED)  # type: ignore[union-attr]
            await until_state(platform, plan.tasks[2].endpoint.name, ResourceState.RUNNING)  # type: ignore[union-attr]
            stopped = next(left for left in await platform.sweep() if "-t2-" in left.name)
            await platform._client.stop(stopped.id)

        other = made.platform()
        found = {left.name.split("-")[2]: left for left in await other.sweep()}
        assert {name: left.said for name, left in found.items()} == {"t0": "running", "t1": "failed", "t2": "stopped"}
        assert {name: left.usd_per_hour for name, left in found.items()} == {"t0": 0.89, "t1": 0.0, "t2": 0.0}
        assert all(
            left.owner == "nv-eval-tester" and (left.usd is None) == (left.said == "failed") for left in found.values()
        )
        assert await other.sweep("ffff") == []
        assert await other.unseen() == []

        for left in found.values():
            await other.remove(left)
            await other.remove(left)
        assert await until_swept(other, lambda left: not left) == []
        nothing_left(made, 3)
        await other.close()


async def test_what_is_not_ours_is_neither_shown_nor_removed(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        platform = made.platform()
        body = {"model_name": "nv-eval-of-somebody", "gpu": "L4-24GB", "hf": {"repo": "acme/tiny"}}
        theirs = await platform._client.create(body)

        assert await platform.sweep() == []
        assert [item.id for item in made.emulator.state().alive] == [theirs.deploy_id]
        await platform.close()


async def test_endpoints_may_use_what_the_account_leaves_them_but_never_less_than_one_needs(tmp_path: Path) -> None:
    with bench(tmp_path, Config(gpu_limit=4)) as made:
        platform = made.platform()
        assert await platform.open(made.plan(2), tmp_path) == Capacity(gpus=4)

        body = {"model_name": "theirs", "gpu": "H100-80GB", "num_gpus": 3, "hf": {"repo": "acme/tiny"}}
        await platform._client.create(body)
        assert await platform.open(made.plan(2), tmp_path) == Capacity(gpus=1)
        assert await platform.open(made.plan(2, num_gpus=2), tmp_path) == Capacity(gpus=2)
        assert await platform.open(made.plan(2, gpu="L4-24GB"), tmp_path) == Capacity(gpus=4)
        await platform.close()


async def test_an_account_that_does_not_say_its_limit_has_the_usual_one(tmp_path: Path) -> None:
    with bench(tmp_path, Config(faults=(Refuse(route="GET /v1/me/gpu_limit", status=400),), gpu_limit=4)) as made:
        platform = made.platform()
        body = {"model_name": "theirs", "gpu": "H100-80GB", "hf": {"repo": "acme/tiny"}}
        await platform._client.create(body)

        assert await platform.open(made.plan(6), tmp_path) == Capacity(gpus=3)
        await platform.close()


async def test_what_deployments_have_cost_is_told_though_they_are_gone(tmp_path: Path) -> None:
    with bench(tmp_path, Config(deleted_details="404")) as made:
        plan = made.plan(2, gpu="H100-80GB", num_gpus=2)
        gone, alive = (task.endpoint.name for task in plan.tasks if task.endpoint is not None)
        async with made.opened(plan) as platform:
            ids = {(there := await create(platform, plan, number)).name: there.id for number in range(2)}
            for name in ids:
                await until_state(platform, name, ResourceState.RUNNING)
            made.emulator.advance(3600)
            await until_gone(platform, gone)
            billed = {line.deploy_id: line.usd for line in made.emulator.meter().lines}

            other = made.platform()
            shapes = {gone: "2xH100-80GB"}
            spent = await other.spent({**ids, "never": "nothing"}, shapes)
            assert spent == {name: pytest.approx(billed[ids[name]], abs=0.01) for name in (gone, alive)}
            assert await other.spent(ids, {}) == {alive: pytest.approx(spent[alive], abs=0.01)}
            await other.close()


async def test_a_meter_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with bench(tmp_path, Config(faults=(Refuse(route="GET /payment/*", status=400),))) as made:
        platform = made.platform()
        with pytest.raises(PlatformError, match="400"):
            await platform.spent({"e": "one"}, {"e": "1xL4-24GB"})
        await platform.close()


async def test_the_key_is_lent_to_those_who_call_endpoints_and_taken_back_by_the_last(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        first, second = made.platform(), made.platform()
        assert os.environ[API_KEY] == KEY
        await first.close()
        assert os.environ[API_KEY] == KEY
        await second.close()
        await second.close()
        assert API_KEY not in os.environ

        os.environ[API_KEY] = "my own"
        third = made.platform()
        await third.close()
        assert os.environ.pop(API_KEY) == "my own"


async def test_jobs_run_elsewhere(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        async with made.opened(plan) as platform:
            with pytest.raises(PlatformError, match="runs no jobs"):
                await platform.submit_job(plan.tasks[0], plan.tasks[0].job, "")
            await platform.cancel_job(plan.tasks[0].job.name)


async def test_a_place_is_told_by_its_account_without_showing_the_key(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        mine, again = made.platform(), made.platform()
        assert mine.place == ""
        for platform in (mine, again):
            await platform.identify()
            await platform.close()

        assert mine.place == again.place != ""
        assert made.emulator.url in mine.place
        assert KEY not in mine.place
