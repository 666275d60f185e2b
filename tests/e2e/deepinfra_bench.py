"""A DeepInfra account on loopback whose models are simulated, and platforms that use it inside the test's process."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from launcher.config.validate import validate
from launcher.emulators.deepinfra import Config, DeepInfraEmulator, Launch, Script
from launcher.orchestrator.journal import Journal
from launcher.orchestrator.run import Run
from launcher.orchestrator.state import RunOutcome
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.platforms.base import Leftover, Resource, ResourceState
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.deepinfra.platform import DeepInfraPlatform
from launcher.platforms.http import RetryPolicy
from launcher.platforms.local.platform import LocalPlatform
from launcher.platforms.pair import Pair
from tests.contract.deepinfra.validation import Contract, Validated
from tests.e2e.scenario import BENCHMARK

KEY = "di-loopbackkey0001"
HF_TOKEN = "hf_canary0value0of0mine"
QUICK = RetryPolicy(deadline=5.0, try_timeout=5.0, first_wait=0.05, longest_wait=0.2)
PATIENCE = 15.0
"""Seconds within which any single thing happens."""


@dataclass
class Bench:
    """One emulated account. `boots`: seconds until an instance answers."""

    emulator: DeepInfraEmulator
    folder: Path
    boots: float = 0.1
    output: str = "the server says hello\n"
    launched: list[Launch] = field(default_factory=list)
    contract: Contract = field(default_factory=Contract)

    def launch(self, instance: Launch) -> Script:
        """An instance."""
        self.launched.append(instance)
        return Script(output=self.output, opens_after=self.boots)

    def plan(self, tasks: int = 1, *, seconds: float = 0.1, limits: dict[str, Any] | None = None, **keys: Any) -> Plan:
        """A plan of some tasks with jobs on this machine that take so long; `keys` of `deployment`."""
        script = self.folder / "bench.py"
        script.write_text(BENCHMARK)
        command = [sys.executable, str(script), "works", str(seconds)]
        deployment = {"type": "deepinfra", "model_id": "acme/tiny", "start_timeout": 20, "health_timeout": 9, **keys}
        config = {
            "execution": {"type": "local", "output_dir": str(self.folder / "results")},
            "deployment": deployment,
            "evaluation": {
                "harness": "command",
                "command": command,
                "timeout": 30,
                "tasks": [{"name": f"t{number}"} for number in range(tasks)],
            },
            "limits": {"max_attempts": 1, **(limits or {})},
        }
        return build(validate(config))

    def platform(self, key: str = KEY) -> DeepInfraPlatform:
        """A platform for this account; all that it says and hears is checked against the service's own document."""
        access = Credentials(key=key, source="the test", url=self.emulator.url)
        transport = Validated(self.contract, httpx.AsyncHTTPTransport())
        return DeepInfraPlatform(access, policy=QUICK, transport=transport)

    @asynccontextmanager
    async def opened(self, plan: Plan) -> AsyncIterator[DeepInfraPlatform]:
        """A platform, opened for a plan."""
        platform = self.platform()
        try:
            await platform.open(plan, self.folder / "results" / plan.invocation)
            yield platform
        finally:
            await platform.close()

    async def run(self, plan: Plan) -> RunOutcome:
        """A whole run with jobs on this machine."""
        jobs = plan.execution_config()
        pair = Pair(self.platform(), LocalPlatform(jobs))  # type: ignore[arg-type]
        return await Run(plan, pair, Journal(self.folder / "journal.db")).run()

    def requests(self, method: str, path: str = "") -> list[str]:
        """Paths of the requests of one method."""
        return [r.path for r in self.emulator.requests if r.method == method and r.path.startswith(path)]


@contextmanager
def bench(folder: Path, config: Config | None = None) -> Iterator[Bench]:
    """A running account."""
    made: list[Bench] = []

    def launch(instance: Launch) -> Script:
        return made[0].launch(instance)

    with DeepInfraEmulator(config, simulations={"*": launch}) as emulator:
        made.append(Bench(emulator, folder))
        yield made[0]
    assert made[0].contract.violations == []


async def create(platform: DeepInfraPlatform, plan: Plan, number: int = 0) -> Resource:
    """The endpoint of a task."""
    task = plan.tasks[number]
    assert task.endpoint is not None
    return await platform.create_endpoint(task, task.endpoint)


async def until(platform: DeepInfraPlatform, name: str, holds: Callable[[Resource], bool]) -> Resource:
    """An endpoint, once something holds of it."""
    deadline = time.monotonic() + PATIENCE
    found = None
    while time.monotonic() < deadline:
        found = (await platform.observe()).endpoints.get(name)
        if found is not None and holds(found):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"never came true of {found}")


async def until_state(platform: DeepInfraPlatform, name: str, state: ResourceState) -> Resource:
    """An endpoint, once it is in a state."""
    return await until(platform, name, lambda found: found.state is state)


async def until_gone(platform: DeepInfraPlatform, name: str) -> Resource:
    """An endpoint that is asked to go as an orchestrator asks, once it is gone."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        await platform.delete_endpoint(name)
        found = (await platform.observe()).endpoints.get(name)
        if found is not None and found.state is ResourceState.GONE:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} did not go")


async def until_swept(platform: DeepInfraPlatform, holds: Callable[[list[Leftover]], bool]) -> list[Leftover]:
    """What a sweep shows, once something holds of it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = await platform.sweep()
        if holds(found):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"never came true of {found}")
