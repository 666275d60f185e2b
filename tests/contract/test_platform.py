"""What every platform promises (launcher/platforms/base.py), asked of each one that can run here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from launcher.config.fields import Reference
from launcher.errors import NotFound, PlatformError
from launcher.plan.model import TaskPlan
from launcher.platforms.base import CheckState, Leftover, Observation, Platform, Resource, ResourceState
from tests.contract.bench import Ability, Scene

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
GONE = ResourceState.GONE


@contextlib.asynccontextmanager
async def unopened(scene: Scene) -> AsyncIterator[Platform]:
    platform = scene.bench.make()
    try:
        yield platform
    finally:
        await platform.close()


@contextlib.asynccontextmanager
async def opened(scene: Scene, *tasks: TaskPlan) -> AsyncIterator[Platform]:
    platform = await scene.open(*tasks)
    try:
        yield platform
    finally:
        await platform.close()


async def until(scene: Scene, platform: Platform, condition: Callable[[Observation], bool]) -> Observation:
    deadline = time.monotonic() + scene.bench.limit
    while not condition(seen := await platform.observe()):
        assert time.monotonic() < deadline, f"it did not happen in time: {seen}"
        await asyncio.sleep(0.02)
    return seen


async def answers(scene: Scene, resource: Resource) -> None:
    """Wait until the endpoint answers."""
    deadline = time.monotonic() + scene.bench.limit
    while not await scene.bench.answers(resource):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_an_endpoint_runs_answers_and_goes(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation)
    assert task.endpoint is not None
    async with opened(scene, task) as platform:
        made = await platform.create_endpoint(task, task.endpoint)
        assert made.name == task.endpoint.name
        assert made.id
        await answers(scene, made)
        seen = (await platform.observe()).endpoints[made.name]
        assert (seen.state, seen.url) == (ResourceState.RUNNING, made.url)
        await platform.delete_endpoint(made.name)
        await until(scene, platform, lambda seen: is_gone(seen.endpoints, made.name))
        assert not await scene.bench.answers(made)


def is_gone(found: dict[str, Resource], name: str) -> bool:
    return name not in found or found[name].state is GONE


async def test_creating_twice_makes_one(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation)
    assert task.endpoint is not None
    async with opened(scene, task) as platform:
        first, second = await asyncio.gather(*(platform.create_endpoint(task, task.endpoint) for _ in range(2)))
        third = await platform.create_endpoint(task, task.endpoint)
        assert first.id == second.id == third.id
        assert [left.kind for left in await platform.sweep(scene.invocation) if left.kind != "network"] == ["endpoint"]


async def test_deleting_twice_or_something_unknown_is_no_error(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation)
    assert task.endpoint is not None
    async with opened(scene, task) as platform:
        await platform.delete_endpoint("never-created")
        await platform.cancel_job("never-submitted")
        await platform.create_endpoint(task, task.endpoint)
        name = task.endpoint.name
        await platform.delete_endpoint(name)
        await platform.delete_endpoint(name)
        await until(scene, platform, lambda seen: is_gone(seen.endpoints, name))
        await platform.delete_endpoint(name)
        assert is_gone((await platform.observe()).endpoints, name)


async def test_an_endpoint_can_be_created_again_after_it_is_gone(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation)
    assert task.endpoint is not None
    name = task.endpoint.name
    async with opened(scene, task) as platform:
        first = await platform.create_endpoint(task, task.endpoint)
        await platform.delete_endpoint(name)
        await until(scene, platform, lambda seen: is_gone(seen.endpoints, name))
        second = await platform.create_endpoint(task, task.endpoint)
        assert second.id != first.id or not scene.bench.has(Ability.NEW_IDS)
        await answers(scene, second)


async def test_a_server_that_dies_is_failed_with_its_code_and_last_words(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation, server=("--fault", "die_loading"))
    assert task.endpoint is not None
    name = task.endpoint.name
    async with opened(scene, task) as platform:
        await platform.create_endpoint(task, task.endpoint)
        seen = await until(scene, platform, lambda seen: has_failed(seen.endpoints[name]))
        assert "exited with code 3" in seen.endpoints[name].detail
        assert seen.endpoints[name].exit_code == (3 if scene.bench.has(Ability.EXIT_CODES) else None)
        assert "CUDA out of memory" in (await platform.tail(name, 1))[0]
        await platform.delete_endpoint(name)
        await until(scene, platform, lambda seen: is_gone(seen.endpoints, name))


def has_failed(resource: Resource) -> bool:
    return resource.state is ResourceState.FAILED or resource.fatal


async def test_a_job_tells_its_progress_and_brings_its_results(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation, job_seconds=1.0)
    assert task.endpoint is not None
    name, output = task.job.name, scene.folder / scene.invocation / task.key / "output"
    async with opened(scene, task) as platform:
        endpoint = await platform.create_endpoint(task, task.endpoint)
        await platform.submit_job(task, task.job, endpoint.url or "")
        phases: list[str] = []

        def ended(seen: Observation) -> bool:
            if (progress := seen.jobs[name].progress) is not None:
                phases.append(progress.phase)
            return seen.jobs[name].state not in (ResourceState.PENDING, ResourceState.RUNNING)

        seen = await until(scene, platform, ended)
        job = seen.jobs[name]
        assert job.end is not None, await platform.tail(name, 20)
        assert (job.state, job.end.reason, job.exit_code) == (ResourceState.SUCCEEDED, "completed", 0)
        assert job.progress is not None
        assert (job.progress.done, job.progress.total) == (4, 4)
        assert "evaluating" in phases
        await platform.fetch(task, output)
        assert json.loads((output / "results.json").read_text()) == {"score": 0.5}


async def test_submitting_twice_runs_one_job(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation, job_seconds=30)
    assert task.endpoint is not None
    async with opened(scene, task) as platform:
        url = (await platform.create_endpoint(task, task.endpoint)).url or ""
        first, second = await asyncio.gather(*(platform.submit_job(task, task.job, url) for _ in range(2)))
        assert first.id == second.id


async def test_a_cancelled_job_goes_and_its_endpoint_stays(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation, job_seconds=60)
    assert task.endpoint is not None
    name = task.job.name
    async with opened(scene, task) as platform:
        url = (await platform.create_endpoint(task, task.endpoint)).url or ""
        await platform.submit_job(task, task.job, url)
        await until(scene, platform, lambda seen: (seen.jobs[name].progress or none).phase == "evaluating")
        await platform.cancel_job(name)
        seen = await until(scene, platform, lambda seen: is_gone(seen.jobs, name))
        assert seen.endpoints[task.endpoint.name].state is ResourceState.RUNNING


class none:
    phase = ""


async def test_results_that_are_not_there_are_an_error(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation)
    async with opened(scene, task) as platform:
        with pytest.raises(PlatformError, match=r"no file matches results\.json"):
            await platform.fetch(task, scene.folder / scene.invocation / task.key / "output")


async def test_logs_have_every_line_in_order_and_end_with_the_server(scene: Scene) -> None:
    scene.bench.need(Ability.ENDS)
    task = scene.bench.task(scene.invocation, server=("--fault", "die_loading", "--delay", "0.5"))
    assert task.endpoint is not None
    name = task.endpoint.name
    async with opened(scene, task) as platform:
        await platform.create_endpoint(task, task.endpoint)
        async with asyncio.timeout(scene.bench.limit):
            followed = [line.text async for line in platform.logs(name, follow=True)]
        assert followed[0].startswith("Traceback")
        assert followed[-1].startswith("torch.OutOfMemoryError")
        assert [line.text async for line in platform.logs(name)] == followed
        assert await platform.tail(name, 2) == followed[-2:]


async def test_logs_of_something_unknown_are_not_found_and_have_no_tail(scene: Scene) -> None:
    async with opened(scene, scene.bench.task(scene.invocation)) as platform:
        with pytest.raises(NotFound, match="never-created"):
            platform.logs("never-created")
        assert await platform.tail("never-created", 5) == []


async def test_sweep_shows_what_runs_with_its_age(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation, job_seconds=30)
    assert task.endpoint is not None
    async with opened(scene, task) as platform:
        url = (await platform.create_endpoint(task, task.endpoint)).url or ""
        await platform.submit_job(task, task.job, url)
        found = {left.name: left for left in await platform.sweep(scene.invocation) if left.kind != "network"}
        assert {name: left.kind for name, left in found.items()} == {
            task.endpoint.name: "endpoint",
            task.job.name: "job",
        }
        assert all(left.age is not None and 0 <= left.age < 60 for left in found.values())


async def test_what_sweep_shows_can_be_removed_from_another_machine_and_twice(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation, server=("--workers",), job_seconds=60)
    assert task.endpoint is not None
    async with opened(scene, task) as platform:
        url = (await platform.create_endpoint(task, task.endpoint)).url or ""
        await platform.submit_job(task, task.job, url)
        async with unopened(scene) as stranger:
            found = await stranger.sweep(scene.invocation[:6])
            assert {left.invocation for left in found} == {scene.invocation}
            known = {True} if scene.bench.has(Ability.LAUNCHERS) else {True, None}
            assert {left.launcher_alive for left in found} <= known
            assert {left.state for left in found if left.kind in ("endpoint", "job")} == {ResourceState.RUNNING}
            first = [left for left in found if left.kind in ("endpoint", "job")]
            for wave in (first, [left for left in found if left not in first]):
                for left in (*wave, *wave):
                    await stranger.remove(left)
                await vanished(scene, stranger, wave)
            for left in found:
                await stranger.remove(left)


async def vanished(scene: Scene, platform: Platform, wave: list[Leftover]) -> None:
    """Wait until a sweep shows nothing of these."""
    deadline = time.monotonic() + scene.bench.limit
    ids = {left.id for left in wave}
    while ids & {left.id for left in await platform.sweep(scene.invocation)}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_close_leaves_only_what_it_does_not_promise_to_end(scene: Scene) -> None:
    tasks = [scene.bench.task(scene.invocation, number, server=("--workers",), job_seconds=60) for number in (1, 2)]
    platform = await scene.open(*tasks)
    for task in tasks:
        assert task.endpoint is not None
        url = (await platform.create_endpoint(task, task.endpoint)).url or ""
        await platform.submit_job(task, task.job, url)
    await platform.close()
    async with unopened(scene) as stranger:
        left = [left.kind for left in await stranger.sweep(scene.invocation)]
    endpoints, jobs = 0 if platform.close_ends_all else 2, 0 if platform.close_ends_jobs else 2
    assert sorted(left) == ["endpoint"] * endpoints + ["job"] * jobs


async def test_each_endpoint_has_its_own_gpus_and_gives_them_back(scene: Scene) -> None:
    scene.bench.need(Ability.GPUS)
    tasks = [scene.bench.task(scene.invocation, number, gpus=1) for number in (1, 2, 3)]
    async with opened(scene, *tasks) as platform:
        first, second, third = tasks
        assert first.endpoint and second.endpoint and third.endpoint
        made = [await platform.create_endpoint(task, task.endpoint) for task in (first, second) if task.endpoint]
        assert [resource.accelerators for resource in made] == [(0,), (1,)]
        with pytest.raises(PlatformError, match="needs 1 GPUs and 0 of 2 are free"):
            await platform.create_endpoint(third, third.endpoint)
        await platform.delete_endpoint(first.endpoint.name)
        await until(scene, platform, lambda seen: is_gone(seen.endpoints, first.endpoint.name))  # type: ignore[union-attr]
        assert (await platform.create_endpoint(third, third.endpoint)).accelerators == (0,)


async def test_a_secret_is_in_the_server_and_in_no_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.bench.need(Ability.VARIABLES)
    monkeypatch.setenv("CANARY_SOURCE", "canary-8f3a1b")
    env = {"SERVER_KEY": Reference(env="CANARY_SOURCE")}
    task = scene.bench.task(scene.invocation, server=("--api-key-env", "SERVER_KEY"), env=env)
    assert task.endpoint is not None
    async with opened(scene, task) as platform:
        made = await platform.create_endpoint(task, task.endpoint)
        await answers(scene, made)
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{made.url}/v1/models")).status_code == 401
            key = {"Authorization": "Bearer canary-8f3a1b"}
            assert (await client.get(f"{made.url}/v1/models", headers=key)).status_code == 200
        assert await platform.tail(task.endpoint.name, 5)
    files = [path for path in scene.folder.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if b"canary" in path.read_bytes()] == []


async def test_a_missing_variable_is_told_before_anything_starts(scene: Scene) -> None:
    task = scene.bench.task(scene.invocation, env={"HF_TOKEN": Reference(env="NOT_SET_ANYWHERE")})
    plan = scene.plan(scene.folder, task)
    async with unopened(scene) as platform:
        problems = [check for check in await platform.preflight(plan) if check.state is CheckState.PROBLEM]
    assert [check.message.removeprefix(f"{scene.bench.service}: ") for check in problems] == [
        "variable NOT_SET_ANYWHERE is not set; export NOT_SET_ANYWHERE=... before the run"
    ]


async def test_preflight_of_a_good_plan_finds_no_problem_and_writes_nothing(scene: Scene) -> None:
    plan = scene.plan(scene.folder / "not yet", scene.bench.task(scene.invocation))
    async with unopened(scene) as platform:
        checks = await platform.preflight(plan)
    assert [check for check in checks if check.state is CheckState.PROBLEM] == []
    assert list(scene.folder.iterdir()) == []
