"""Runs on an emulated Lepton workspace with simulated containers: faults, reasons, results, and what is left."""

from __future__ import annotations

import asyncio
import os
import time
import zipfile
from pathlib import Path

import pytest

from launcher.config.execution import Lepton
from launcher.emulators.common.clock import After
from launcher.emulators.lepton import (
    BadConfig,
    Config,
    Crash,
    DelayLogs,
    ErrorState,
    Fault,
    HoldName,
    LoseAnswer,
    NoCapacity,
    Refuse,
    SlowDelete,
    Token,
)
from launcher.emulators.lepton.config import Timing
from launcher.errors import NotFound, PlatformError
from launcher.orchestrator.reasons import Reason
from launcher.plan.attempts import attempt
from launcher.platforms.base import Check, CheckState, ResourceState
from launcher.platforms.http import RetryPolicy
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.endpoints import Endpoints
from launcher.platforms.lepton.platform import LeptonPlatform
from launcher.runner.client import Ending
from tests.e2e.lepton import SCORES, Bench, bench, job_output
from tests.e2e.lepton_virtual import virtual_bench
from tests.fakes.clock import run_virtual

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
FAMILIES = pytest.mark.parametrize("new", [False, True], ids=["legacy", "new"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are for real clouds."""
    monkeypatch.setattr("launcher.platforms.creation.GRACE", (0.1, 0.2, 0.4))
    monkeypatch.setattr("launcher.platforms.lepton.endpoints.QUIET", 1.0)


def nothing_left(made: Bench) -> None:
    state = made.emulator.state()
    assert state.alive == ()
    names = [item.name for item in state.endpoints]
    assert len(names) == len(set(names)), "created twice"


@FAMILIES
async def test_each_task_gets_its_endpoint_and_its_score(tmp_path: Path, new: bool) -> None:
    with bench(tmp_path, Config(new_deployment_api=new)) as made:
        outcome = await made.run(made.plan(3, prices={"gpu.1xh100": 3600.0}))

        assert [task.reason for task in outcome.tasks] == [Reason.COMPLETED] * 3
        assert [task.scores[0].value for task in outcome.tasks] == [0.5] * 3
        assert len(made.emulator.state().endpoints) == len(made.emulator.state().jobs) == 3
        assert all(task.usd is not None and 0.5 < task.usd < 30 for task in outcome.tasks), "a dollar per second"
        nothing_left(made)


async def test_with_a_barrier_no_job_is_submitted_before_the_last_endpoint_answers(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.boots = [0.1, 0.2, 1.0].__getitem__

        outcome = await made.run(made.plan(3, start_jobs="all_ready"))

        state = made.emulator.state()
        ready = [next(when for when, phase in item.states if phase == "Ready") for item in state.endpoints]
        assert [task.reason for task in outcome.tasks] == [Reason.COMPLETED] * 3
        assert min(job.states[0][0] for job in state.jobs) > max(ready)
        nothing_left(made)


@pytest.mark.parametrize(("takes", "most"), [(0.0, 1), (30.0, 4)])
def test_where_places_are_few_one_that_leaves_is_asked_for_soon_but_not_often(
    tmp_path: Path, takes: float, most: int
) -> None:
    config = Config(timing=Timing(endpoint_delete=After(seconds=takes)))

    async def life() -> None:
        times = {"boots": lambda _: 20.0, "lasts": lambda number: 400.0 if number == 0 else 15.0}
        async with virtual_bench(tmp_path, config, **times) as made:
            plan = made.plan(6, deployment={"start_timeout": 3600}, limits={"max_parallel_endpoints": 2})
            outcome = await made.run(plan)

            assert [task.reason for task in outcome.tasks] == [Reason.COMPLETED] * 6
            endpoints = made.emulator.state().endpoints
            deleted = sorted(next(when for when, phase in item.states if phase == "Deleting") for item in endpoints)
            created = [item.states[0][0] for item in endpoints]
            waits = [after - before for after, before in zip(created[2:], deleted, strict=False)]
            assert max(waits) < takes + (2.5 if takes == 0 else 15.0)
            for item in endpoints:
                own = [r for r in made.emulator.requests if r.path == f"/deployments/{item.name}" and r.method == "GET"]
                assert 1 <= len(own) <= most

    run_virtual(life())


LOSSES: list[Fault] = [
    LoseAnswer(route="POST /deployments", times=2),
    LoseAnswer(route="POST /jobs", times=2),
    LoseAnswer(route="DELETE *", times=3),
    LoseAnswer(route="GET *", probability=0.2),
    Refuse(route="POST *", status=503, times=3),
    Refuse(route="POST *", status=500, times=3),
    Refuse(route="POST *", status=429, retry_after=1, times=2),
    Refuse(route="*", status=429, probability=0.2),
    Refuse(route="*", status=502, probability=0.2),
    Refuse(route="DELETE *", status=409, times=3),
    SlowDelete(after=After(reads=3, seconds=1.0)),
    DelayLogs(seconds=1.5),
]


@pytest.mark.parametrize("fault", LOSSES, ids=repr)
async def test_a_fault_that_passes_costs_neither_score_nor_money(tmp_path: Path, fault: Fault) -> None:
    with bench(tmp_path, Config(faults=(fault,), seed=7)) as made:
        outcome = await made.run(made.plan(2))

        assert [task.reason for task in outcome.tasks] == [Reason.COMPLETED] * 2, outcome
        nothing_left(made)
        assert len(made.emulator.state().jobs) == 2


FATAL: list[tuple[bool, Fault, str]] = [
    (False, BadConfig(message="secret x not found"), "ConfigError: secret x not found"),
    (False, BadConfig(message="ErrImagePull: no such tag"), "the image cannot be pulled"),
    (False, BadConfig(reason="SystemError", message="node lost"), "SystemError: node lost"),
    (True, BadConfig(message="secret x not found"), "ConfigError: secret x not found"),
    (True, BadConfig(message="ErrImagePull: no such tag"), "the image cannot be pulled"),
    (True, BadConfig(reason="SystemError", message="node lost"), "SystemError: node lost"),
    (False, ErrorState(), "error"),
    (True, ErrorState(), "error"),
]


@pytest.mark.parametrize(("new", "fault", "detail"), FATAL)
async def test_what_can_never_start_ends_its_task_at_once_with_the_reason(
    tmp_path: Path, new: bool, fault: Fault, detail: str
) -> None:
    with bench(tmp_path, Config(new_deployment_api=new, faults=(fault,))) as made:
        task = await made.task()

        assert task.reason is Reason.ENDPOINT_EXITED
        assert detail in task.detail
        assert task.seconds < 12
        nothing_left(made)


@FAMILIES
async def test_repeated_crashes_are_fatal(tmp_path: Path, new: bool) -> None:
    config = Config(new_deployment_api=new, faults=(Crash(exit_code=137, message="out of memory"),))
    with bench(tmp_path, config) as made:
        task = await made.task()

        assert task.reason is Reason.ENDPOINT_OUT_OF_MEMORY
        assert "crashed 3 times" in task.detail
        assert new or "137" in task.detail
        nothing_left(made)


async def test_no_capacity_is_waited_for_until_the_tasks_own_deadline(tmp_path: Path) -> None:
    with bench(tmp_path, Config(faults=(NoCapacity(seconds=1.0),))) as made:
        assert (await made.task()).reason is Reason.COMPLETED


async def test_a_job_that_fails_tells_why_and_its_sibling_scores(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.output = lambda number: job_output(Ending.HARNESS_FAILED if number else Ending.COMPLETED)
        outcome = await made.run(made.plan(2))

        assert [task.reason for task in outcome.tasks] == [Reason.COMPLETED, Reason.HARNESS_FAILED]
        assert "the server says hello" in outcome.tasks[1].evidence.endpoint
        nothing_left(made)


async def test_logs_of_a_scored_task_come_home_without_its_packed_results(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.output = lambda _: "the job says hello\n" + job_output()
        plan = made.plan()
        assert (await made.run(plan)).exit_code == 0

        home = tmp_path / "results" / plan.invocation / "t0"
        job = (home / "job.log").read_text().splitlines()
        assert job[0] == "the job says hello"
        assert all(line.startswith("@nv-eval {") for line in job[1:]), "packed results are in the log"
        assert (home / "endpoint.log").read_text() == "the server says hello\n"


async def test_a_scored_task_does_not_wait_for_a_server_log_that_never_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def never(_: Endpoints, name: str, lines: int) -> list[str]:
        asked.append(f"{name}: {lines}")
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(Endpoints, "last_lines", never)
    monkeypatch.setattr("launcher.platforms.lepton.platform.SERVER_LOG_TIME", 0.2)
    with bench(tmp_path) as made:
        task = await made.task()

        assert (task.reason, len(asked)) == (Reason.COMPLETED, 1)
        assert task.seconds < 10


async def test_logs_of_a_further_attempt_are_kept_too(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.output = lambda _: "the job says hello\n" + job_output()
        plan = made.plan()
        again = attempt(plan.tasks[0], 2, plan.invocation)
        assert again.endpoint is not None
        first = made.open(plan)
        await first.open(plan, tmp_path)
        await first.create_endpoint(again, again.endpoint)
        await first.submit_job(again, again.job, "http://127.0.0.1:9/v1")
        await first.close(at_once=True)

        second = made.open(plan)
        await second.open(plan, tmp_path)
        async with asyncio.timeout(20):
            while (job := (await second.observe()).jobs.get(again.job.name)) is None or job.end is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await second.fetch(again, tmp_path / "output")
        await second.close(at_once=True)

        assert (tmp_path / "t0" / "job.log").read_text().startswith("the job says hello\n")
        assert (tmp_path / "t0" / "endpoint.log").read_text() == "the server says hello\n"


async def test_a_job_that_never_says_how_it_ended_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.platforms.lepton.jobs.LOG_PATIENCE", 1.0)
    with bench(tmp_path, Config(faults=(Crash(resource="eval-*", exit_code=137, message="Killed"),))) as made:
        task = await made.task()

        assert (task.reason, task.evidence.job) == (Reason.JOB_LOST, ("Killed",))
        assert task.detail == "failed: Failed: exit code 137"
        nothing_left(made)


async def test_a_job_that_ended_well_is_scored_though_its_log_never_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.platforms.lepton.jobs.LOG_PATIENCE", 1.0)
    with bench(tmp_path, Config(faults=(DelayLogs(resource="eval-*", seconds=10_000),))) as made:
        plan = made.plan()
        folder = made.emulator.volume() / "nemo-evaluator-launcher-workspace" / plan.invocation / "t0"
        made.store(folder, {"results.json": SCORES})
        (task,) = (await made.run(plan)).tasks

        assert (task.reason, [score.value for score in task.scores]) == (Reason.COMPLETED, [0.5])
        nothing_left(made)


async def test_results_too_large_for_the_log_come_from_the_storage(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        folder = made.emulator.volume() / "nemo-evaluator-launcher-workspace" / plan.invocation / "t0"

        def output(_: int) -> str:
            folder.mkdir(parents=True)
            with zipfile.ZipFile(folder / "results.zip", "w") as archive:
                archive.writestr("results.json", SCORES)
                archive.writestr("samples/all.jsonl", "{}")
            return job_output(not_printed=True)

        made.output = output
        (task,) = (await made.run(plan)).tasks

        assert (task.reason, task.scores[0].value) == (Reason.COMPLETED, 0.5)
        home = tmp_path / "results" / plan.invocation / "t0" / "output"
        assert (home / "samples" / "all.jsonl").read_text() == "{}"


async def test_results_that_cannot_be_had_are_an_error_that_says_where_they_are(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.output = lambda _: job_output(not_printed=True)
        task = await made.task()

        assert task.reason is Reason.RESULTS_NOT_FETCHED
        assert "/nemo-evaluator-launcher-workspace/" in task.detail
        assert task.detail.endswith("/t0 on node-nfs:lepton-shared-fs")


async def test_somebody_elses_endpoint_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        task = plan.tasks[0]
        assert task.endpoint is not None
        platform = made.open(plan)
        await platform.open(plan, tmp_path)
        theirs = platform._opened().filling.endpoint(task.endpoint)
        theirs.spec.envs = []
        await platform._client.create_endpoint(theirs)

        assert [c.message for c in await platform.preflight(plan) if c.state is CheckState.PROBLEM] == [
            f"Lepton: an endpoint {task.endpoint.name} exists and is not ours; remove it, or run again"
        ]
        with pytest.raises(PlatformError, match="exists already and is not of this invocation"):
            await platform.create_endpoint(task, task.endpoint)
        assert task.endpoint.name not in (await platform.observe()).endpoints
        await platform.delete_endpoint(task.endpoint.name)
        assert [item.name for item in made.emulator.state().alive] == [task.endpoint.name]
        await platform.close()


@FAMILIES
async def test_a_name_that_is_held_after_its_deletion_is_waited_for(tmp_path: Path, new: bool) -> None:
    config = Config(new_deployment_api=new, faults=(HoldName(seconds=3.0),))
    with bench(tmp_path, config) as made:
        plan = made.plan()
        task = plan.tasks[0]
        assert task.endpoint is not None
        platform = made.open(plan)
        await platform.open(plan, tmp_path)
        await platform.create_endpoint(task, task.endpoint)
        await platform.delete_endpoint(task.endpoint.name)
        await until_gone(platform, task.endpoint.name)

        again = await platform.create_endpoint(task, task.endpoint)
        assert again.state is not ResourceState.GONE
        refused = [r for r in made.emulator.requests if r.method == "POST" and r.status == 409]
        assert refused, "the name was free at once: the test shows nothing"

        await platform.delete_endpoint(task.endpoint.name)
        await until_gone(platform, task.endpoint.name)
        await platform.close()
        assert made.emulator.state().alive == ()


async def test_a_launcher_that_takes_over_finds_and_removes_what_is_there(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        task = plan.tasks[0]
        assert task.endpoint is not None
        first = made.open(plan)
        await first.open(plan, tmp_path)
        created = await first.create_endpoint(task, task.endpoint)
        await first.close()

        second = made.open(plan)
        await second.open(plan, tmp_path)
        assert (await second.observe()).endpoints[task.endpoint.name].id == created.id
        assert [left.name for left in await second.sweep()] == [task.endpoint.name]
        assert (await second.create_endpoint(task, task.endpoint)).id == created.id
        await second.delete_endpoint(task.endpoint.name)
        await until_gone(second, task.endpoint.name)
        nothing_left(made)
        await second.close()


async def until_gone(platform: LeptonPlatform, name: str) -> None:
    async with asyncio.timeout(10):
        while (await platform.observe()).endpoints[name].state is not ResourceState.GONE:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_logs_have_time_stamps_and_unknown_names_none(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
        task = plan.tasks[0]
        assert task.endpoint is not None
        platform = made.open(plan)
        await platform.open(plan, tmp_path)
        await platform.create_endpoint(task, task.endpoint)
        await platform.observe()
        lines = []
        while not lines:
            lines = [line async for line in platform.logs(task.endpoint.name)]
        assert [line.text for line in lines] == ["the server says hello"]
        assert lines[0].time is not None
        with pytest.raises(NotFound, match="never-created"):
            platform.logs("never-created")
        assert await platform.tail("never-created", 3) == []
        await platform.close()


async def test_secrets_reach_the_container_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "canary-90ab12")
    with bench(tmp_path) as made:
        made.output = lambda _: "my token is canary-90ab12\n" + job_output()
        deployment = {"envs": {"HF_TOKEN": {"env": "CANARY"}}}
        plan = made.plan(deployment=deployment)
        assert (await made.run(plan)).exit_code == 0

        server, job = made.commands
        assert server.env["HF_TOKEN"] == "canary-90ab12"
        assert len(job.env["NV_EVAL_API_KEY"]) > 20
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        for secret in (b"canary-90ab12", job.env["NV_EVAL_API_KEY"].encode()):
            assert [path for path in written if secret in path.read_bytes()] == []
        assert "canary-90ab12" not in " ".join(word for c in made.commands for word in c.argv)
        assert "NV_EVAL_ENDPOINT_TOKEN" not in os.environ


# --- preflight --------------------------------------------------------------------------------------------------------


async def problems(made: Bench, token: str | None = None, **keys: object) -> list[str]:
    plan = made.plan(**keys)  # type: ignore[arg-type]
    platform = made.open(plan, token) if token else made.open(plan)
    try:
        found = await platform.preflight(plan)
    finally:
        await platform.close()
    assert made.requests("POST") == made.requests("PUT") == made.requests("DELETE") == []
    return [check.message for check in found if check.state is CheckState.PROBLEM]


@FAMILIES
async def test_a_good_plan_has_no_problem(tmp_path: Path, new: bool) -> None:
    with bench(tmp_path, Config(new_deployment_api=new)) as made:
        plan = made.plan(2)
        platform = made.open(plan)
        found = await platform.preflight(plan)
        await platform.close()

        assert [check for check in found if check.state is not CheckState.OK] == []
        assert {check.name for check in found} >= {"workspace", "node group", "shape", "quota", "volumes", "names"}
        assert Check("token", CheckState.OK) not in found


async def test_all_problems_come_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    config = Config(quota_accelerators=1, secrets={"my-hf": "x"}, image_pull_secrets=("ngc",))
    with bench(tmp_path, config) as made:
        envs = {"HF_TOKEN": {"secret": "my-hg"}, "OTHER": {"env": "NOT_SET"}}
        found = await problems(
            made,
            tasks=3,
            deployment={"envs": envs, "gpus": 1},
            image_pull_secrets=["ngx"],
            storage={"volume": "node-nfs:other"},
        )

        assert found == [
            "Lepton: 3 x gpu.1xh100 need 3 GPUs and 1 are left; set limits.max_parallel_endpoints, or ask for more",
            "Lepton: variable NOT_SET is not set; export NOT_SET=... before the run",
            "Lepton: the workspace has no secret my-hg; did you mean my-hf?",
            "Lepton: the workspace has no image pull secret ngx; did you mean ngc?",
            "Lepton: node group h100-pool has no volume node-nfs:other; it has: node-local, "
            "node-nfs:lepton-shared-fs; set execution.storage.volume to one of them, or to null",
        ]


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        ({"node_group": "h100-pol"}, "execution.node_group: no node group h100-pol; did you mean h100-pool?"),
        ({"node_group": None}, "execution.node_group is not set; the workspace has: h100-pool"),
        (
            {"resource_shape": "gpu.9xh100"},
            "execution.resource_shape: the node group has no shape gpu.9xh100; it offers",
        ),
        ({"resource_shape": None}, "execution.resource_shape is not set; the node group offers: "),
        ({"job_resource_shape": "cpu.huge"}, "execution.job_resource_shape: the node group has no shape cpu.huge"),
    ],
)
async def test_a_wrong_place_is_one_line_that_names_the_choices(
    tmp_path: Path, execution: dict[str, str | None], message: str
) -> None:
    with bench(tmp_path) as made:
        found = await problems(made, **execution)

        assert len(found) == 1
        assert found[0].startswith(f"Lepton: {message}")


async def test_a_wrong_token_and_one_of_another_workspace_are_told_apart(tmp_path: Path) -> None:
    with bench(tmp_path, Config(foreign_tokens=("nvapi-foreign-0001",))) as made:
        (wrong,) = await problems(made, token="nvapi-wrong-00000001")
        (foreign,) = await problems(made, token="nvapi-foreign-0001")

        assert wrong.startswith("Lepton: the token is not valid (any more) for workspace ws1; make one")
        assert foreign.startswith("Lepton: the token may not use workspace ws1")
        assert "nvapi-" not in wrong + foreign


async def test_a_token_about_to_expire_is_a_problem(tmp_path: Path) -> None:
    soon = Token(value="nvapi-expiringsoon-0001", expires_at=time.time() + 300)
    with bench(tmp_path, Config(tokens=(soon,))) as made:
        (found,) = await problems(made, token=soon.value)

        assert found.startswith("Lepton: the token expires in 5 min; make one that lasts")


async def test_a_paused_workspace_is_a_problem(tmp_path: Path) -> None:
    with bench(tmp_path, Config(state="paused")) as made:
        assert await problems(made) == [
            "Lepton: the workspace is paused; see its billing and settings in the dashboard"
        ]


async def test_an_address_where_nothing_listens_is_one_line(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        plan = made.plan()
    nowhere = Credentials(workspace="ws1", token="nvapi-x", url="http://127.0.0.1:9/api/v2/workspaces/ws1")
    platform = LeptonPlatform(Lepton(), credentials=nowhere, policy=RetryPolicy(deadline=0.2))

    with pytest.raises(PlatformError) as caught:
        await platform.preflight(plan)
    await platform.close()

    said = str(caught.value)
    assert said.startswith("Lepton: http://127.0.0.1:9/api/v2/workspaces/ws1 cannot be asked: ")
    assert said.endswith("; check LEPTON_WORKSPACE_URL and the network")
