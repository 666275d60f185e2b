"""DeepInfra in the contract suite: endpoints rented in an emulated account, whose servers are real; jobs here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from launcher.config.deployment import DeepInfra
from launcher.config.execution import Local
from launcher.config.fields import Reference
from launcher.deployments.deepinfra import server
from launcher.emulators.deepinfra import Config, DeepInfraEmulator, Server, Timing
from launcher.plan import deepinfra
from launcher.plan.addressing import addressed
from launcher.plan.model import EndpointPlan, JobPlan, TaskPlan
from launcher.plan.names import endpoint_name
from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.deepinfra.platform import DeepInfraPlatform
from launcher.platforms.local.platform import LocalPlatform
from launcher.platforms.pair import Pair
from tests.contract.bench import Ability, Bench

LACKS = {
    Ability.EXIT_CODES: "DeepInfra gives a reason in words",
    Ability.LAUNCHERS: "a deployment's name says nothing of the machine that asked for it",
    Ability.GPUS: "DeepInfra chooses the GPUs",
    Ability.VARIABLES: "a server gets none on DeepInfra; of the token: tests/e2e/test_deepinfra_refusals.py",
}


class Driven(Pair):
    """A pair as the orchestrator drives it: a job begins when its endpoint has an address, and asks for its model."""

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        """The deployment, once it serves or has failed."""
        found = made = await super().create_endpoint(task, spec)
        while found.state is ResourceState.PENDING:
            await asyncio.sleep(0.05)
            found = (await self.observe()).endpoints.get(made.name, found)
        return found

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """The job, told what its model is called."""
        assert task.endpoint is not None
        found = (await self.observe()).endpoints[task.endpoint.name]
        return await super().submit_job(addressed(task, found.model), spec, url)


@contextmanager
def rented_bench(script: Path) -> Iterator[Bench]:
    """A bench on an account of its own. `script` is the test server."""
    argv = (sys.executable, str(script), "--port", "{port}", "--model", "{model}", "{args}")
    timing = Timing(tick=0.02, restart_delay=0.05)
    with DeepInfraEmulator(Config(servers=(Server(argv=argv),), timing=timing)) as emulator:
        access = Credentials(key=emulator.key, source="the test", url=emulator.url)

        async def answers(resource: Resource) -> bool:
            body = {"model": resource.model, "prompt": "a", "max_tokens": 1}
            async with httpx.AsyncClient(headers=access.headers()) as client:
                return (await client.post(f"{emulator.openai_url}/completions", json=body)).status_code == 200

        yield Bench(
            make=lambda: Driven(DeepInfraPlatform(access), LocalPlatform(Local(stop_grace=2.0, gpus=[]))),
            server=(),
            adapt=_rented,
            answers=answers,
            lacks=LACKS,
            service="DeepInfra",
            limit=20.0,
        )


def _rented(task: TaskPlan) -> TaskPlan:
    """The same with a request: the server's arguments are the deployment's, a variable that it wants is its token."""
    assert task.endpoint is not None
    invocation = task.job.name.rpartition("-")[2]
    wanted = task.endpoint.server
    tokens = [value.env for value in wanted.env.values() if isinstance(value, Reference)]
    config = DeepInfra(
        model_id="acme/fake", gpu="L4-24GB", hf_token_name=next(iter(tokens), None), extra_args=list(wanted.command)
    )
    endpoint = deepinfra.endpoint(
        config,
        server(config, "acme/fake"),
        name=endpoint_name("deepinfra", "fake", task.index, invocation),
        start_timeout=60.0,
        health_timeout=60.0,
        job_timeout=60.0,
    )
    target = replace(
        task.target,
        model=deepinfra.MODEL,
        lists_model=False,
        health_path=None,
        api_key=deepinfra.endpoint_key(None),
    )
    return replace(task, target=target, endpoint=endpoint)
