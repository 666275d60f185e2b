"""A Lepton workspace on loopback whose containers are simulated, and runs against it inside the test's process."""

from __future__ import annotations

import contextlib
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from launcher.config.validate import validate
from launcher.emulators.lepton import Config, LeptonEmulator, Script
from launcher.emulators.lepton.container import Command
from launcher.emulators.lepton.simulated import answering
from launcher.orchestrator.journal import Journal
from launcher.orchestrator.run import Run
from launcher.orchestrator.state import RunOutcome, TaskOutcome
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.platforms.http import RetryPolicy
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.platform import LeptonPlatform
from launcher.platforms.sharing import Shared
from launcher.runner.client import Ended, Ending
from launcher.runner.output import Report

TOKEN = "nvapi-loopbacktoken0001"
SCORES = json.dumps({"schema": "nv-eval.scores/1", "scores": [{"metric": "acc", "value": 0.5, "n": 4}]})
QUICK = RetryPolicy(deadline=20.0, try_timeout=5.0, first_wait=0.05, longest_wait=0.2)


def job_output(ending: Ending = Ending.COMPLETED, results: str = SCORES, *, not_printed: bool = False) -> str:
    """What a runner prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        report = Report([])
        report.phase("evaluating", "a task")
        printed = {"results.json": results.encode()} if ending is Ending.COMPLETED and not not_printed else {}
        left = ["results.json"] if not_printed else []
        report.end(Ended(ending, ""), {"results": sorted(printed), "not_printed": left})
        report.results(printed)
    return out.getvalue()


def number_of(name: str, place: int) -> int:
    """The number of a task in a name; further attempts have `r2` and so on behind it."""
    return int(name.split("-")[place].partition("r")[0])


@dataclass
class Bench:
    """One emulated workspace. `boots` and `lasts` in seconds, by the number of the task."""

    emulator: Any
    folder: Path
    boots: Callable[[int], float] = lambda _: 0.1
    lasts: Callable[[int], float] = lambda _: 0.3
    output: Callable[[int], str] = lambda _: job_output()
    policy: RetryPolicy = QUICK
    transport: httpx.AsyncBaseTransport | None = None
    platform: LeptonPlatform | None = None
    chance: random.Random | None = None
    """Makes the platform's jitter repeatable."""
    commands: list[Command] = field(default_factory=list)

    def endpoint(self, command: Command) -> Script:
        """A server."""
        self.commands.append(command)
        name = command.env["LEPTON_DEPLOYMENT_NAME"]
        opens = self.boots(number_of(name, -2))
        return Script(output="the server says hello\n", opens_after=opens, application=answering("m"))

    def job(self, command: Command) -> Script:
        """A job."""
        self.commands.append(command)
        number = number_of(command.env["LEPTON_JOB_NAME"], -3)
        return Script(output=self.output(number), seconds=self.lasts(number))

    def plan(
        self,
        tasks: int = 1,
        *,
        deployment: dict[str, Any] | None = None,
        prices: dict[str, float] | None = None,
        attempts: int = 1,
        limits: dict[str, Any] | None = None,
        **execution: Any,
    ) -> Plan:
        """A plan of some tasks."""
        served = {
            "type": "container",
            "model_id": "m",
            "image": "sim/server",
            "command": ["serve"],
            "start_timeout": 30,
            "health_timeout": 9,
        }
        keys = {"type": "lepton", "node_group": "h100-pool", "resource_shape": "gpu.1xh100", **execution}
        names = [{"name": f"t{number}"} for number in range(tasks)]
        config = {
            "execution": {"output_dir": str(self.folder / "results"), **keys},
            "deployment": {**served, **(deployment or {})},
            "evaluation": {"harness": "command", "command": ["true"], "timeout": 30, "tasks": names},
            "pricing": {"usd_per_hour": prices or {}},
            "limits": {"max_attempts": attempts, **(limits or {})},
        }
        return build(validate(config))

    def open(self, plan: Plan, token: str = TOKEN, shared: Shared | None = None) -> LeptonPlatform:
        """A platform for this workspace; `shared`: with what it has in common with others."""
        config = self.emulator.config
        access = Credentials(workspace=config.workspace, token=token, url=self.emulator.url)
        execution = plan.execution_config()
        self.platform = LeptonPlatform(
            execution,  # type: ignore[arg-type]
            pricing=plan.pricing(),
            credentials=access,
            policy=self.policy,
            transport=self.transport,
            shared=shared,
        )
        if self.chance is not None:
            self.platform._client.api.chance = self.chance
        return self.platform

    def store(self, folder: Path, files: dict[str, str]) -> None:
        """Put results where a job puts them on its storage."""
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / "results.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    async def run(self, plan: Plan) -> RunOutcome:
        """A whole run."""
        journal = Journal(self.folder / "journal.db")
        return await Run(plan, self.open(plan), journal).run()

    async def task(self, **keys: Any) -> TaskOutcome:
        """A run of one task."""
        return (await self.run(self.plan(**keys))).tasks[0]

    def requests(self, method: str, path: str = "") -> list[str]:
        """Paths of the requests of one method, below the workspace."""
        found = [
            r.path.split(self.emulator.config.workspace, 1)[1] for r in self.emulator.requests if r.method == method
        ]
        return [route for route in found if route.startswith(path)]


@contextmanager
def bench(folder: Path, config: Config | None = None) -> Iterator[Bench]:
    """A running workspace."""
    made: list[Bench] = []

    def endpoint(command: Command) -> Script:
        return made[0].endpoint(command)

    def job(command: Command) -> Script:
        return made[0].job(command)

    with LeptonEmulator(config, simulations={"sim/*": endpoint, "python*": job}) as emulator:
        made.append(Bench(emulator, folder))
        yield made[0]
