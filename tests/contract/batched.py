"""Slurm in the contract suite: endpoints and evaluations as batch jobs of a real cluster, and of a fake one."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from launcher.config.execution import Slurm
from launcher.plan.model import EndpointPlan, JobPlan, TaskPlan
from launcher.plan.slurm import jobs
from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.slurm.platform import SlurmPlatform
from launcher.platforms.slurm.shell import Shell
from tests.contract.bench import Ability, Bench
from tests.engines.slurm.cluster import Cluster, cluster
from tests.fakes.slurm import FakeConfig, FakeSlurm

LACKS = {
    Ability.LAUNCHERS: "nothing in a batch job says which machine asked for it",
    Ability.GPUS: "Slurm chooses the GPUs",
}


class Driven(SlurmPlatform):
    """Slurm as the orchestrator drives it: a job begins when its endpoint has an address."""

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        """The endpoint, once it runs or has failed."""
        found = made = await super().create_endpoint(task, spec)
        while found.url is None and found.state in (ResourceState.PENDING, ResourceState.RUNNING):
            await asyncio.sleep(0.05)
            found = (await self.observe()).endpoints.get(made.name, found)
        return found

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """The evaluation, once it runs."""
        found = made = await super().submit_job(task, spec, url)
        while found.state is ResourceState.PENDING:
            await asyncio.sleep(0.05)
            found = (await self.observe()).jobs.get(made.name, found)
        return found


@contextmanager
def batched_bench(script: Path) -> Iterator[Bench]:
    """A bench on the cluster of the engine lane, with endpoint and evaluation in two batch jobs."""
    there: Cluster = cluster()
    with _folder() as folder:
        try:
            yield _bench(script, folder, os.environ, 60.0)
        finally:
            for number, _, name in there.queue():
                if name.startswith(("container-fake", "job-fake", "array-")):
                    there.run("scancel", number)


@contextmanager
def faked_bench(script: Path) -> Iterator[Bench]:
    """A bench on a cluster whose commands are ours; the batch scripts are run as they are."""
    with _folder() as folder, FakeSlurm(folder / "cluster", FakeConfig()) as slurm:
        yield _bench(script, folder / "work", {**os.environ, **slurm.environment}, 20.0, job_pace=4.0)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="nv-eval it's 100% "))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bench(script: Path, folder: Path, environment: Mapping[str, str], limit: float, *, job_pace: float = 1.0) -> Bench:
    execution = Slurm(work_dir=str(folder), topology="separate", python=sys.executable)
    return Bench(
        make=lambda: Driven(execution, Shell(None, environment)),
        server=(sys.executable, str(script), "--host", "{host}", "--port", "{port}"),
        adapt=lambda task: _batched(execution, task),
        lacks=LACKS,
        execution=execution,
        limit=limit,
        job_pace=job_pace,
    )


def _batched(execution: Slurm, task: TaskPlan) -> TaskPlan:
    """The same with the batch jobs of endpoint and evaluation."""
    assert task.endpoint is not None
    invocation = task.job.name.rpartition("-")[2]
    endpoint = jobs.endpoint(
        execution,
        task.endpoint.server,
        name=task.endpoint.name,
        invocation=invocation,
        start_timeout=60.0,
        health_timeout=60.0,
        job_timeout=60.0,
        job_image=None,
        key=None,
    )
    job = jobs.job(
        execution,
        task.job.run,
        name=task.job.name,
        invocation=invocation,
        start_timeout=60.0,
        health_timeout=60.0,
        timeout=60.0,
        image=None,
        has_endpoint=True,
    )
    return replace(task, endpoint=endpoint, job=job)
