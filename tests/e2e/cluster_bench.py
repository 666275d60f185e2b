"""A cluster on loopback whose containers are simulated, and runs against it inside the test's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.config.validate import validate
from launcher.emulators.kubernetes import Config, KubernetesEmulator, Script, Timing
from launcher.emulators.lepton.container import Command
from launcher.orchestrator.journal import Journal
from launcher.orchestrator.run import Run
from launcher.orchestrator.state import RunOutcome, TaskOutcome
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.platforms.http import RetryPolicy
from launcher.platforms.kubernetes.client import access
from launcher.platforms.kubernetes.platform import KubernetesPlatform
from tests.e2e.lepton import job_output

QUICK = RetryPolicy(deadline=20.0, try_timeout=5.0, first_wait=0.05, longest_wait=0.2)
FAST = Timing(tick=0.02, restart_delay=0.1)


def number_of(pod: str) -> int:
    """The number of a task in a pod's name: `eval-t3-3-ID-x1y2z` and `container-t3-3-ID-HASH-x1y2z`."""
    return int(pod.split("-")[1].removeprefix("t"))


@dataclass
class Bench:
    """One emulated cluster. `boots` and `lasts` in seconds, by the number of the task."""

    emulator: Any
    folder: Path
    boots: Callable[[int], float] = lambda _: 0.1
    lasts: Callable[[int], float] = lambda _: 0.3
    output: Callable[[int], str] = lambda _: job_output()
    token: str = "loopback-admin"
    commands: list[Command] = field(default_factory=list)
    platform: KubernetesPlatform | None = None
    requests: set[str] = field(default_factory=set)
    """Verbs that a scenario has used."""

    def server(self, command: Command) -> Script:
        """A server."""
        self.commands.append(command)
        return Script(output="the server says hello\n", opens_after=self.boots(number_of(command.env["HOSTNAME"])))

    def job(self, command: Command) -> Script:
        """A job."""
        self.commands.append(command)
        number = number_of(command.env["HOSTNAME"])
        return Script(output=self.output(number), seconds=self.lasts(number))

    def plan(self, tasks: int = 1, *, deployment: dict[str, Any] | None = None, attempts: int = 1, **keys: Any) -> Plan:
        """A plan of some tasks."""
        served = {"type": "container", "model_id": "m", "image": "sim/server", "command": ["serve"]}
        times = {"start_timeout": 5, "health_timeout": 2}
        kubeconfig = str(self.emulator.kubeconfig_of(self.token))
        config = {
            "execution": {
                "type": "kubernetes",
                "kubeconfig": kubeconfig,
                "job_image": "sim/job",
                "output_dir": str(self.folder / "results"),
                **keys,
            },
            "deployment": {**served, **times, **(deployment or {})},
            "evaluation": {
                "harness": "command",
                "command": ["true"],
                "timeout": 30,
                "tasks": [{"name": f"t{number}"} for number in range(tasks)],
            },
            "limits": {"max_attempts": attempts},
        }
        return build(validate(config))

    def open(self, plan: Plan) -> KubernetesPlatform:
        """A platform for this cluster."""
        execution: Any = plan.execution_config()
        self.platform = KubernetesPlatform(execution, found=access(execution), policy=QUICK)
        return self.platform

    async def run(self, plan: Plan) -> RunOutcome:
        """A whole run."""
        return await Run(plan, self.open(plan), Journal(self.folder / "journal.db")).run()

    async def task(self, **keys: Any) -> TaskOutcome:
        """A run of one task."""
        return (await self.run(self.plan(**keys))).tasks[0]


@contextmanager
def bench(folder: Path, config: Config | None = None) -> Iterator[Bench]:
    """A running cluster."""
    made: list[Bench] = []

    def server(command: Command) -> Script:
        return made[0].server(command)

    def job(command: Command) -> Script:
        return made[0].job(command)

    simulations = {"sim/server": server, "sim/job": job}
    with KubernetesEmulator(config or Config(timing=FAST), simulations=simulations) as emulator:
        made.append(Bench(emulator, folder))
        yield made[0]
