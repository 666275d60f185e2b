"""What cannot run on DeepInfra ends with one clear line and leaves nothing; and no secret is ever written."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from launcher.config.fields import Reference
from launcher.emulators.deepinfra import (
    After,
    Config,
    Fails,
    Gpu,
    NoCapacity,
    Refuse,
    Repo,
    Shape,
    StuckDownload,
    Timing,
)
from launcher.errors import PlatformError
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import TaskOutcome
from launcher.plan.deepinfra import API_KEY
from launcher.plan.model import Plan
from launcher.platforms.base import Check, CheckState
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.deepinfra.platform import DeepInfraPlatform
from launcher.platforms.http import RetryPolicy
from tests.e2e.deepinfra_bench import HF_TOKEN, KEY, Bench, bench

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
WRONG_KEY = "di-wrong-key-00001"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are for real clouds, and an environment without keys."""
    monkeypatch.setattr("launcher.platforms.creation.GRACE", (0.1, 0.2, 0.4))
    monkeypatch.setattr("launcher.orchestrator.decide.SLACK", 0.5)
    monkeypatch.setattr(DeepInfraPlatform, "create_grace", 0.3)
    for name in (API_KEY, "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


# --- before anything is created ---------------------------------------------------------------------------------------


async def checks(made: Bench, plan: Plan, key: str = KEY) -> list[Check]:
    platform = made.platform(key)
    try:
        return await platform.preflight(plan)
    finally:
        await platform.close()


def messages(found: list[Check], state: CheckState) -> list[str]:
    return [check.message for check in found if check.state is state]


async def problem(made: Bench, plan: Plan, key: str = KEY) -> str:
    """The one problem of a plan, in one line; nothing was created for it."""
    (message,) = messages(await checks(made, plan, key), CheckState.PROBLEM)
    assert "\n" not in message
    assert key not in message
    assert made.emulator.state().deployments == ()
    assert {request.method for request in made.emulator.requests} == {"GET"}
    return message


@pytest.mark.parametrize("shape", ["error", "detail", "forbidden"])
async def test_a_bad_key_is_told_in_every_shape(tmp_path: Path, shape: str) -> None:
    with bench(tmp_path, Config(unauthorized=shape)) as made:  # type: ignore[arg-type]
        assert await problem(made, made.plan(), WRONG_KEY) == (
            "DeepInfra: the key is not valid (any more); make one at https://deepinfra.com/dash/api_keys; the one used "
            "is from the test"
        )


async def test_a_gpu_that_is_not_offered_is_told_with_those_that_are(tmp_path: Path) -> None:
    config = Config(gpus=(Gpu(type="L4-24GB", usd_per_hour=0.5),), gpu_counts=(1, 2))
    with bench(tmp_path, config) as made:
        assert await problem(made, made.plan()) == (
            "DeepInfra: 1xH100-80GB (deployment.num_gpus x deployment.gpu) is not offered; "
            "offered are: 1xL4-24GB, 2xL4-24GB"
        )


async def test_an_endpoint_that_needs_more_than_the_limit_is_told(tmp_path: Path) -> None:
    with bench(tmp_path, Config(gpu_limit=4)) as made:
        assert await problem(made, made.plan(num_gpus=8)) == (
            "DeepInfra: one endpoint needs 8 GPUs and the account may hold 4 of H100-80GB; set deployment.num_gpus or "
            "max_instances lower, or ask for more in the dashboard"
        )


async def test_a_token_that_is_not_set_is_told(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        found = await problem(made, made.plan(hf_token_name="HF_TOKEN"))

        assert found == "DeepInfra: variable HF_TOKEN is not set; export HF_TOKEN=... before the run"


async def test_a_service_that_is_not_there_is_told_with_its_address(tmp_path: Path) -> None:
    access = Credentials(key=KEY, source="the test", url="http://127.0.0.1:9")
    platform = DeepInfraPlatform(access, policy=RetryPolicy(deadline=0.1))

    with pytest.raises(PlatformError, match=r"DeepInfra: http://127\.0\.0\.1:9 cannot be asked: .*DEEPINFRA_BASE_URL"):
        await platform.preflight(Bench(None, tmp_path).plan())  # type: ignore[arg-type]
    await platform.close()


async def test_what_is_only_worth_knowing_keeps_nothing_from_running(tmp_path: Path) -> None:
    gpus = (Gpu(type="L4-24GB", usd_per_hour=0.5), Gpu(type="H100-80GB", usd_per_hour=2.0, available=False))
    with bench(tmp_path, Config(gpus=gpus, gpu_limit=2, gpu_counts=(1,))) as made:
        found = await checks(made, made.plan(3, limits={"max_cost_usd": 5.0}))

        assert messages(found, CheckState.PROBLEM) == []
        assert messages(found, CheckState.NOTE) == [
            "DeepInfra: account nv-eval-tester, by the key from the test",
            "DeepInfra: 1xH100-80GB is not available now: deployments wait for it, at most deployment.start_timeout; "
            "available are: 1xL4-24GB",
            "DeepInfra: 1xH100-80GB costs 2.00 USD per hour and instance; if every time-out runs to its end, 0.10 USD",
            "DeepInfra: 3 endpoints of 1 GPU, and the account may hold 2 of H100-80GB: tasks queue for them",
        ]
        (skipped,) = messages(found, CheckState.SKIPPED)
        assert "whether the account can pay" in skipped


async def test_a_worst_case_beyond_the_budget_is_told_with_its_price(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        found = await checks(made, made.plan(3, limits={"max_cost_usd": 0.02}))

        (problem,) = messages(found, CheckState.PROBLEM)
        assert problem.startswith("limits.max_cost_usd: the worst case is 0.088 USD, the limit 0.02;")


async def test_what_cannot_be_asked_is_skipped_with_the_reason(tmp_path: Path) -> None:
    fault = Refuse(route="GET /v1/me/gpu_limit", status=400, message="not today", shape=Shape.DETAIL)
    with bench(tmp_path, Config(faults=(fault,))) as made:
        found = await checks(made, made.plan())

        assert messages(found, CheckState.PROBLEM) == []
        assert any("not today" in message for message in messages(found, CheckState.SKIPPED))


# --- when it is created -----------------------------------------------------------------------------------------------


async def ended(made: Bench, plan: Plan) -> TaskOutcome:
    """How the one task of a run ended, of which nothing is left; its reason is one line without secrets."""
    outcome = await made.run(plan)
    (task,) = outcome.tasks
    assert made.emulator.state().alive == ()
    assert outcome.leftovers == []
    assert "\n" not in task.detail
    assert KEY not in task.detail
    return task


async def test_an_account_that_cannot_pay_is_told(tmp_path: Path) -> None:
    fault = Refuse(route="POST *", status=402, message="balance is 0")
    with bench(tmp_path, Config(faults=(fault,))) as made:
        task = await ended(made, made.plan())

        assert task.reason is Reason.ENDPOINT_NOT_CREATED
        assert task.detail == (
            "DeepInfra: no payment method or balance: balance is 0; add one at https://deepinfra.com/dash/billing"
        )
        assert made.emulator.state().deployments == ()


async def test_an_account_without_payment_method_is_asked_once(tmp_path: Path) -> None:
    with bench(tmp_path, Config(has_payment=False)) as made:
        assert "no payment method or balance" in (await ended(made, made.plan())).detail
        assert made.requests("POST") == ["/deploy/llm"]


async def test_a_limit_that_others_used_up_is_told(tmp_path: Path) -> None:
    with bench(tmp_path, Config(gpu_limit=1)) as made:
        platform = made.platform()
        body = {"model_name": "theirs", "gpu": "L4-24GB", "hf": {"repo": "acme/tiny"}}
        theirs = await platform._client.create(body)

        outcome = await made.run(made.plan())

        assert "GPU limit of 1 exceeded; give some back" in outcome.tasks[0].detail
        assert [item.id for item in made.emulator.state().alive] == [theirs.deploy_id]
        await platform.close()


async def test_a_name_that_somebody_else_took_is_told_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.platforms.deepinfra.names.expiring", lambda *_: "llama")
    with bench(tmp_path) as made:
        platform = made.platform()
        theirs = await platform._client.create({"model_name": "llama", "gpu": "L4-24GB", "hf": {"repo": "acme/tiny"}})

        outcome = await made.run(made.plan())

        assert outcome.tasks[0].detail.endswith("exists already and is not of this invocation")
        assert [item.id for item in made.emulator.state().alive] == [theirs.deploy_id]
        await platform.close()


@pytest.mark.parametrize("checked", ["late", "at_once"])
async def test_a_repository_that_does_not_exist_is_told(tmp_path: Path, checked: str) -> None:
    config = Config(repos=(Repo(pattern="other/*"),), checks_weights=checked)  # type: ignore[arg-type]
    with bench(tmp_path, config) as made:
        detail = (await ended(made, made.plan())).detail

        assert "Repository acme/tiny not found on Hugging Face" in detail
        assert "check deployment.model_id and deployment.revision" in detail


@pytest.mark.parametrize("checked", ["late", "at_once"])
async def test_a_gated_repository_without_a_token_is_told(tmp_path: Path, checked: str) -> None:
    config = Config(repos=(Repo(gated=True),), checks_weights=checked)  # type: ignore[arg-type]
    with bench(tmp_path, config) as made:
        detail = (await ended(made, made.plan())).detail

        assert "Access to acme/tiny is restricted" in detail
        assert "set deployment.hf_token_name to the variable that holds a Hugging Face token" in detail


async def test_a_field_that_the_service_does_not_take_is_named(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        (task,) = plan.tasks
        assert task.endpoint is not None
        assert task.endpoint.request is not None
        request = {**task.endpoint.request, "max_batch_size": 1000}
        bad = dataclasses.replace(task, endpoint=dataclasses.replace(task.endpoint, request=request))

        detail = (await ended(made, dataclasses.replace(plan, tasks=(bad,)))).detail

        assert "max_batch_size" in detail
        assert "(422)" in detail


async def test_one_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    with bench(tmp_path, Config(faults=(Fails(reason="Initialization failed: bad config"),))) as made:
        task = await ended(made, made.plan())

        assert task.reason is Reason.ENDPOINT_EXITED
        assert task.detail == "failed: Initialization failed: bad config"


PENDING = {
    "no GPU": (NoCapacity(), "initializing"),
    "no end of the download": (StuckDownload(), "downloading the weights"),
}


@pytest.mark.parametrize("name", PENDING)
async def test_one_that_is_pending_for_ever_is_told_with_what_it_waited_for(tmp_path: Path, name: str) -> None:
    fault, waited_for = PENDING[name]
    with bench(tmp_path, Config(faults=(fault,))) as made:
        task = await ended(made, made.plan(start_timeout=1, health_timeout=1))

        assert task.reason is Reason.ENDPOINT_START_TIMEOUT
        assert f"no answer within 2 s: {waited_for}" in task.detail


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True], ids=["goes well", "fails"])
async def test_neither_key_nor_token_is_written_whatever_is_printed(
    tmp_path: Path,
    fails: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", HF_TOKEN)
    said = f"loading with {HF_TOKEN} and {KEY}"
    faults = (Fails(reason=f"cannot load: {said}"),) if fails else ()
    config = Config(
        repos=(Repo(gated=True),),
        hf_tokens=(HF_TOKEN,),
        faults=faults,
        timing=Timing(deploying=After(seconds=0.2)),
        root=str(tmp_path.parent / f"{tmp_path.name}-emulator"),
    )
    with bench(tmp_path, config) as made:
        made.output = f"{said}\n"
        plan = made.plan(hf_token_name="HF_TOKEN")
        (task,) = plan.tasks
        assert task.endpoint is not None
        assert task.endpoint.request is not None
        assert task.endpoint.request["hf"]["token"] == str(Reference(env="HF_TOKEN"))

        outcome = await made.run(plan)

        assert outcome.tasks[0].reason is (Reason.ENDPOINT_EXITED if fails else Reason.COMPLETED), outcome
        assert made.emulator.state().alive == ()
        assert fails or {instance.token for instance in made.launched} == {HF_TOKEN}
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.name == "journal.db" for path in files)
    assert fails or any(b"loading with *** and ***" in content for content in files.values())
    out, err = capfd.readouterr()
    for secret in (KEY, HF_TOKEN):
        assert [path for path, content in files.items() if secret.encode() in content] == []
        assert secret not in str(outcome) + out + err + caplog.text
