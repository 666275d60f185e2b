"""Lepton in the contract suite: endpoints and jobs in an emulated workspace, which runs them as processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from launcher.config.execution import Lepton
from launcher.config.lepton import LeptonAccess
from launcher.config.pricing import Pricing
from launcher.emulators.lepton import Config, LeptonEmulator
from launcher.emulators.lepton.config import Timing
from launcher.plan import lepton
from launcher.plan.model import EndpointPlan, TaskPlan
from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.platform import LeptonPlatform
from tests.contract.bench import Ability, Bench
from tests.e2e.lepton import TOKEN

EXECUTION = Lepton(node_group="h100-pool", resource_shape="gpu.1xh100", access=LeptonAccess(mode="public"))
LACKS = {
    Ability.LAUNCHERS: "nothing in a workspace says which machine asked for it",
    Ability.GPUS: "Lepton chooses the GPUs",
    Ability.NEW_IDS: "an endpoint's id is its name on Lepton",
    Ability.ENDS: "Lepton starts a server that died again, for ever",
}


class Driven(LeptonPlatform):
    """Lepton as the orchestrator drives it: a job begins when its endpoint runs."""

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        """The endpoint, once it runs or has failed."""
        found = made = await super().create_endpoint(task, spec)
        while found.state is ResourceState.PENDING and not found.fatal:
            await asyncio.sleep(0.05)
            found = (await self.observe()).endpoints.get(made.name, found)
        return found


@contextmanager
def hosted_bench(script: Path) -> Iterator[Bench]:
    """A bench in a workspace of its own. `script` is the test server."""
    with LeptonEmulator(Config(timing=Timing(tick=0.02))) as emulator:
        access = Credentials(workspace=emulator.config.workspace, token=TOKEN, url=emulator.url)
        yield Bench(
            make=lambda: Driven(EXECUTION, credentials=access),
            server=(sys.executable, str(script), "--port", "{port}"),
            image="test/server:1",
            adapt=_hosted,
            lacks=LACKS,
            service="Lepton",
            execution=EXECUTION,
            job_pace=4.0,
            limit=20.0,
        )


def _hosted(task: TaskPlan) -> TaskPlan:
    """The same with the requests of endpoint and job."""
    assert task.endpoint is not None
    name, invocation = task.endpoint.name, task.job.name.rpartition("-")[2]
    command = tuple(word.replace("{port}", "8000") for word in task.endpoint.server.command)
    endpoint = lepton.endpoint(
        EXECUTION,
        Pricing(),
        replace(task.endpoint.server, command=command),
        name=name,
        invocation=invocation,
        start_timeout=60.0,
        health_timeout=60.0,
        key=None,
    )
    job = lepton.job(
        EXECUTION,
        Pricing(),
        task.job.run,
        name=task.job.name,
        invocation=invocation,
        timeout=60.0,
        image=None,
        key=None,
    )
    return replace(task, endpoint=endpoint, job=job)
