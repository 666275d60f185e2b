"""What the contract suite needs of a platform: how to make it, and a server and a job that it can run."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import httpx
import msgspec
import pytest

from launcher.config.evaluation import Settings
from launcher.config.execution import AnyExecution, Local
from launcher.config.fields import Env
from launcher.deployments.spec import Health, ServerSpec
from launcher.harnesses.spec import HarnessJob
from launcher.plan.model import EndpointPlan, JobPlan, Mount, Plan, TargetPlan, TaskPlan
from launcher.platforms.base import Platform, Resource

JOB = """
import json, pathlib, sys, time
output, work, seconds = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3])
for done in range(1, 5):
    print(f"@progress {done}/4", flush=True)
    time.sleep(seconds / 4)
(output / "results.json").write_text(json.dumps({"score": 0.5}))
print("the job is done")
"""


class Ability(StrEnum):
    """What a platform can only have where it owns the machines that it runs things on."""

    EXIT_CODES = "exit_codes"
    """It tells the code that a server ended with."""
    LAUNCHERS = "launchers"
    """It tells whether the launcher of a leftover is alive."""
    GPUS = "gpus"
    """It hands out GPUs one by one."""
    VARIABLES = "variables"
    """A server gets variables."""
    NEW_IDS = "new_ids"
    """What is created again under a name has another id."""
    ENDS = "ends"
    """A server that died has ended."""


async def is_healthy(resource: Resource) -> bool:
    """Whether the health path of an endpoint says 200."""
    with contextlib.suppress(httpx.TransportError):
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{resource.url}/health")).status_code == 200
    return False


def unchanged(task: TaskPlan) -> TaskPlan:
    """Tasks as the bench makes them."""
    return task


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One platform under test. `server` is the argument list of the test server, as this platform runs it."""

    make: Callable[[], Platform]
    server: tuple[str, ...]
    image: str | None = None
    job_image: str | None = None
    mounts: tuple[Mount, ...] = ()
    job_pace: float = 1.0
    """How much longer jobs take, where the platform looks at them rarely."""
    execution: AnyExecution = field(default_factory=Local)
    """Where jobs run, as a config says it."""
    limit: float = 10.0
    """Seconds within which any single thing happens."""
    service: str = ""
    """How its messages begin."""
    adapt: Callable[[TaskPlan], TaskPlan] = unchanged
    """Makes of a task what this platform is asked for."""
    answers: Callable[[Resource], Awaitable[bool]] = is_healthy
    """Whether an endpoint answers now."""
    lacks: Mapping[Ability, str] = field(default_factory=dict)
    """What it cannot have by its nature, and why."""

    def has(self, ability: Ability) -> bool:
        """Whether it can be asked for something."""
        return ability not in self.lacks

    def need(self, ability: Ability) -> None:
        """Skip a test that is about nothing else."""
        if ability in self.lacks:
            pytest.skip(self.lacks[ability])

    def task(
        self,
        invocation: str,
        number: int = 1,
        *,
        server: tuple[str, ...] = (),
        env: Env | None = None,
        job_seconds: float = 0.2,
        gpus: int = 0,
    ) -> TaskPlan:
        """One task: the test server with further arguments, and a job that writes its results after a while."""
        run = HarnessJob(
            harness="command",
            argv=("{python}", "{work_dir}/job.py", "{output_dir}", "{work_dir}", str(job_seconds * self.job_pace)),
            files={"job.py": JOB},
            results=("results.json",),
            progress="lines",
        )
        spec = ServerSpec(
            type="container",
            model_id="fake",
            served_name="fake",
            command=(*self.server, *server),
            image=self.image,
            env=env or {},
            port=8000,
            gpus=gpus,
            health=Health(path="/health"),
        )
        task = TaskPlan(
            index=number,
            key=f"task-{number}",
            name="fake_task",
            harness="command",
            settings=Settings(),
            target=TargetPlan(model="fake", endpoint_type="completions", health_path="/health"),
            job=JobPlan(name=f"job-fake-{number}-{invocation}", run=run, timeout=60.0, image=self.job_image),
            endpoint=EndpointPlan(
                name=f"container-fake-{number}-{invocation}",
                server=spec,
                start_timeout=60.0,
                health_timeout=60.0,
                mounts=self.mounts,
            ),
        )
        return self.adapt(task)


def make_plan(invocation: str, folder: Path, *tasks: TaskPlan, execution: AnyExecution | None = None) -> Plan:
    """A plan of these tasks."""
    return Plan(
        invocation=invocation,
        execution=execution.type if execution is not None else "local",
        config={"execution": msgspec.to_builtins(execution)} if execution is not None else {},
        deployment="container",
        output_dir=str(folder),
        storage=str(folder / invocation),
        tasks=tasks,
    )


@dataclass
class Scene:
    """A bench with an invocation and a folder of its own."""

    bench: Bench
    invocation: str
    folder: Path
    platforms: list[Platform] = field(default_factory=list)

    def plan(self, folder: Path, *tasks: TaskPlan) -> Plan:
        """A plan of these tasks, whose results go to a folder."""
        return make_plan(self.invocation, folder, *tasks, execution=self.bench.execution)

    async def open(self, *tasks: TaskPlan) -> Platform:
        """An opened platform for a plan of these tasks."""
        platform = self.bench.make()
        self.platforms.append(platform)
        await platform.open(self.plan(self.folder, *tasks), self.folder / self.invocation)
        return platform
