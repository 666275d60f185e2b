"""What a sweep of a Lepton workspace shows, without an opened invocation, and what can be removed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from launcher.emulators.lepton import Config
from launcher.errors import PlatformError
from launcher.platforms.base import Leftover, ResourceState
from launcher.platforms.lepton.platform import LeptonPlatform
from tests.e2e.lepton import Bench, bench

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
FAMILIES = pytest.mark.parametrize("new", [False, True], ids=["legacy", "new"])
PRICES = {"gpu.1xh100": 3.0, "cpu.small": 0.1}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def started(made: Bench, tmp_path: Path) -> tuple[str, LeptonPlatform]:
    """An invocation whose launcher forgot about it, and the platform of somebody else who looks."""
    plan = made.plan(prices=PRICES)
    first = made.open(plan)
    await first.open(plan, tmp_path)
    (task,) = plan.tasks
    assert task.endpoint is not None
    await first.create_endpoint(task, task.endpoint)
    await first.submit_job(task, task.job, "http://127.0.0.1:9")
    await first.close(at_once=True)
    (made.emulator.volume() / "nemo-evaluator-launcher-workspace" / plan.invocation).mkdir(parents=True)
    (made.emulator.volume() / "nemo-evaluator-launcher-workspace" / "model-cache").mkdir(exist_ok=True)
    return plan.invocation, made.open(plan)


def by_kind(found: list[Leftover]) -> dict[str, Leftover]:
    assert len({left.kind for left in found}) == len(found)
    return {left.kind: left for left in found}


async def until_job_is(platform: LeptonPlatform, said: str) -> Leftover:
    """The job, once the workspace says this of it."""
    for _ in range(200):
        found = by_kind(await platform.sweep())["job"]
        if found.said == said:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job is {found.said}, not {said}")


@FAMILIES
async def test_everything_shows_with_state_age_price_and_owner(tmp_path: Path, new: bool) -> None:
    with bench(tmp_path, Config(new_deployment_api=new)) as made:
        made.boots, made.lasts = lambda _: 3600.0, lambda _: 3600.0
        invocation, platform = await started(made, tmp_path)

        found = by_kind(await platform.sweep(invocation[:5]))
        none = await platform.sweep("zzzz")
        await platform.close()

        assert set(found) == {"endpoint", "job", "storage"}
        assert none == []
        assert {left.invocation for left in found.values()} == {invocation}
        endpoint, job, storage = found["endpoint"], found["job"], found["storage"]
        assert (endpoint.state, endpoint.usd_per_hour) == (ResourceState.PENDING, 3.0)
        assert (job.state, job.usd_per_hour, job.said) == (ResourceState.RUNNING, 0.1, "running")
        assert {endpoint.owner, job.owner} == {"me@example.com"}
        assert endpoint.age is not None and 0 <= endpoint.age < 60
        assert endpoint.expires_in is not None and 200 < endpoint.expires_in < 400, "its time to get ready"
        assert (storage.age, storage.usd_per_hour, storage.state) == (None, 0.0, ResourceState.UNKNOWN)


async def test_an_ended_job_costs_nothing_and_an_archived_one_is_a_record(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        _, platform = await started(made, tmp_path)
        made.emulator.advance(60)
        ended = await until_job_is(platform, "completed")
        made.emulator.advance(300_000)
        archived = await until_job_is(platform, "archived")
        await platform.remove(archived)
        rest = await platform.sweep()
        await platform.close()

        assert (ended.said, ended.usd_per_hour, ended.is_record) == ("completed", 0.0, False)
        assert (archived.said, archived.is_record) == ("archived", True)
        assert "archived" not in {left.said for left in rest}


async def test_an_endpoint_that_the_dead_mans_switch_stopped_costs_nothing(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.boots = lambda _: 1e9
        _, platform = await started(made, tmp_path)
        made.emulator.advance(1000)
        made.emulator.advance(1)

        endpoint = by_kind(await platform.sweep())["endpoint"]
        await platform.close()

        assert (endpoint.said, endpoint.usd_per_hour) == ("stopped", 0.0)


@FAMILIES
async def test_all_of_it_can_be_removed_and_a_second_time_is_no_error(tmp_path: Path, new: bool) -> None:
    with bench(tmp_path, Config(new_deployment_api=new)) as made:
        invocation, platform = await started(made, tmp_path)
        found = await platform.sweep(invocation)

        for left in (*found, *found):
            await platform.remove(left)
        for left in found:
            await platform.remove(left)
        await platform.close()

        for _ in range(200):  # a removal is accepted at once, and takes a while
            if not made.emulator.state().alive:
                break
            await asyncio.sleep(0.05)
        assert made.emulator.state().alive == ()
        assert [p.name for p in (made.emulator.volume() / "nemo-evaluator-launcher-workspace").iterdir()] == [
            "model-cache"
        ]


@pytest.mark.parametrize("name", ["", "..", "a/b", "model-cache", "."])
async def test_nothing_but_an_invocations_folder_is_ever_removed(tmp_path: Path, name: str) -> None:
    with bench(tmp_path) as made:
        _, platform = await started(made, tmp_path)

        with pytest.raises(PlatformError, match="is no folder of an invocation; nothing was removed"):
            await platform.remove(Leftover(kind="storage", name="x", invocation=name, id="x"))
        await platform.close()

        assert made.requests("DELETE") == []


async def test_storage_without_routes_is_said_to_be_unseen(tmp_path: Path) -> None:
    with bench(tmp_path, Config(storage_routes=False)) as made:
        _, platform = await started(made, tmp_path)

        found, unseen = await platform.sweep(), await platform.unseen()
        await platform.close()

        assert {left.kind for left in found} == {"endpoint", "job"}
        (line,) = unseen
        assert line.startswith("storage: the workspace serves no routes to it; what an invocation left is in /shared/")
