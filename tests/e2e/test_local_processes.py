"""The process runtime as a whole: what servers see, what is prepared, and what a killed launcher leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from launcher.config.execution import Local
from launcher.config.fields import Reference
from launcher.errors import PlatformError
from launcher.plan.model import TaskPlan
from launcher.platforms.base import ResourceState
from launcher.platforms.local.platform import LocalPlatform
from launcher.platforms.local.supervised import owned_by, supervisors
from tests.contract.bench import make_plan
from tests.contract.conftest import process_bench

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
SHOW_ENV = ("{python}", "-c", "import os, json; print(json.dumps(dict(os.environ)))", "{port} {threads}")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def invocation() -> str:
    return uuid4().hex[:10]


def with_server(task: TaskPlan, **changes: Any) -> TaskPlan:
    assert task.endpoint is not None
    return replace(task, endpoint=replace(task.endpoint, server=replace(task.endpoint.server, **changes)))


@asynccontextmanager
async def opened(execution: Local, invocation: str, folder: Path, *tasks: TaskPlan) -> AsyncIterator[LocalPlatform]:
    platform = LocalPlatform(execution)
    try:
        await platform.open(make_plan(invocation, folder, *tasks), folder)
        yield platform
    finally:
        await platform.close()


async def ended(platform: LocalPlatform, name: str) -> None:
    async with asyncio.timeout(10):
        while (await platform.observe()).endpoints[name].state is ResourceState.RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def environment_of_server(execution: Local, invocation: str, folder: Path, task: TaskPlan) -> dict[str, str]:
    assert task.endpoint is not None
    async with opened(execution, invocation, folder, task) as platform:
        await platform.create_endpoint(task, task.endpoint)
        await ended(platform, task.endpoint.name)
        shown: dict[str, str] = json.loads("".join(await platform.tail(task.endpoint.name, 1)))
        return shown


async def test_a_server_sees_its_gpus_its_threads_and_no_secret(
    invocation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "SOME_CANARY"):
        monkeypatch.setenv(name, "canary-8f3a1b")
    execution = Local(gpus=[4, 5], cpus=6)
    task = with_server(process_bench().task(invocation, gpus=2), command=SHOW_ENV)
    seen = await environment_of_server(execution, invocation, tmp_path, task)
    assert seen["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert "canary-8f3a1b" not in seen.values()
    on_cpu = with_server(process_bench().task(invocation), command=SHOW_ENV)
    seen = await environment_of_server(execution, invocation, tmp_path, on_cpu)
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["OMP_NUM_THREADS"]) == ("", "6")


async def test_what_a_job_writes_that_fails_holds_no_secret_either(
    invocation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_CANARY", "canary-8f3a1b")
    task = process_bench().task(invocation)
    write = "import os; open('{output_dir}/config.txt', 'w').write('key: ' + os.environ['KEY']); raise SystemExit(3)"
    run = replace(task.job.run, argv=("{python}", "-c", write), env={"KEY": Reference(env="SOME_CANARY")})
    task = replace(task, job=replace(task.job, run=run))
    assert task.endpoint is not None
    async with opened(Local(gpus=[]), invocation, tmp_path, task) as platform:
        made = await platform.create_endpoint(task, task.endpoint)
        await platform.submit_job(task, task.job, made.url or "")
        async with asyncio.timeout(20):
            while (await platform.observe()).jobs[task.job.name].state is ResourceState.RUNNING:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    (path,) = tmp_path.rglob("config.txt")
    assert path.read_text() == "key: ***"


async def test_threads_are_divided_among_the_servers_that_run_at_once(invocation: str, tmp_path: Path) -> None:
    tasks = [
        with_server(
            process_bench().task(invocation, number), command=("sh", "-c", "echo {threads} {port} '{\"x\": 1}'")
        )
        for number in (1, 2, 3)
    ]
    async with opened(Local(cpus=7, gpus=[]), invocation, tmp_path, *tasks) as platform:
        for task in tasks:
            assert task.endpoint is not None
            made = await platform.create_endpoint(task, task.endpoint)
            await ended(platform, task.endpoint.name)
            port = (made.url or "").rpartition(":")[2]
            assert await platform.tail(task.endpoint.name, 1) == [f'2 {port} {{"x": 1}}']


async def test_what_servers_need_first_is_run_once_before_them(invocation: str, tmp_path: Path) -> None:
    fetch = ("sh", "-c", f"echo fetching; echo once >> '{tmp_path}/fetched'")
    tasks = [with_server(process_bench().task(invocation, number), prepare=(fetch,)) for number in (1, 2)]
    async with opened(Local(gpus=[]), invocation, tmp_path, *tasks):
        assert (tmp_path / "fetched").read_text() == "once\n"
    assert (tmp_path / "prepare.log").read_text() == "fetching\n"


async def test_a_failed_preparation_is_an_error_with_its_last_lines(invocation: str, tmp_path: Path) -> None:
    task = with_server(process_bench().task(invocation), prepare=(("sh", "-c", "echo no route to index; exit 4"),))
    with pytest.raises(PlatformError, match=r"exited with code 4; see .*prepare\.log\nno route to index"):
        async with opened(Local(gpus=[]), invocation, tmp_path, task):
            pass


async def test_close_ends_what_ignores_polite_requests(invocation: str, tmp_path: Path) -> None:
    stubborn = ("sh", "-c", "trap '' TERM; setsid sleep 300 & echo {port}; while :; do sleep 300; done")
    task = with_server(process_bench().task(invocation), command=stubborn)
    assert task.endpoint is not None
    async with opened(Local(gpus=[], stop_grace=0.3), invocation, tmp_path, task) as platform:
        await platform.create_endpoint(task, task.endpoint)
        wait_until(lambda: len(list(owned_by(f"{invocation}/{task.endpoint.name}"))) == 3, 5)  # type: ignore[union-attr]
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    assert list(owned_by(f"{invocation}/{task.endpoint.name}")) == []


LAUNCHER = """
import asyncio, sys
from pathlib import Path
from launcher.config.execution import Local
from launcher.config.fields import Reference
from launcher.platforms.local.platform import LocalPlatform
from tests.contract.bench import make_plan
from tests.contract.conftest import process_bench

async def main(invocation, folder):
    tasks = [process_bench().task(invocation, n, server=("--workers",), job_seconds=300) for n in (1, 2, 3)]
    platform = LocalPlatform(Local(gpus=[], stop_grace=60))
    await platform.open(make_plan(invocation, folder, *tasks), folder)
    for task in tasks:
        made = await platform.create_endpoint(task, task.endpoint)
        await platform.submit_job(task, task.job, made.url)
    while True:
        seen = await platform.observe()
        if all(job.progress and job.progress.phase == "evaluating" for job in seen.jobs.values()):
            print("evaluating", flush=True)
        await asyncio.sleep(0.05)

asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
"""


def test_kill_9_of_the_launcher_leaves_no_server_worker_daemon_or_job(invocation: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", LAUNCHER, invocation, str(tmp_path)]
    with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"evaluating\n"
        owners = [mark.owner for mark, _ in supervisors() if mark.invocation == invocation]
        assert len(owners) == 6
        assert sum(len(list(owned_by(owner))) for owner in owners) == 3 * 3 + 3 * 2
        os.kill(launcher.pid, signal.SIGKILL)
    wait_until(lambda: not any(mark.invocation == invocation for mark, _ in supervisors()), 2)
    assert [process for owner in owners for process in owned_by(owner)] == []


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
