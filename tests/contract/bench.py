"""What the contract suite needs of a platform: how to make it, and a server and a job that it can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from launcher.config.evaluation import Settings
from launcher.config.fields import Env
from launcher.deployments.spec import Health, ServerSpec
from launcher.harnesses.spec import HarnessJob
from launcher.plan.model import EndpointPlan, JobPlan, Mount, Plan, TargetPlan, TaskPlan
from launcher.platforms.base import Platform

JOB = """
import json, pathlib, sys, time
output, work, seconds = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3])
for done in range(1, 5):
    print(f"@progress {done}/4", flush=True)
    time.sleep(seconds / 4)
(output / "results.json").write_text(json.dumps({"score": 0.5}))
print("the job is done")
"""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One platform under test. `server` is the argument list of the test server, as this platform runs it."""

    make: Callable[[], Platform]
    server: tuple[str, ...]
    image: str | None = None
    job_image: str | None = None
    mounts: tuple[Mount, ...] = ()
    limit: float = 10.0
    """Seconds within which any single thing happens."""

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
            argv=("{python}", "{work_dir}/job.py", "{output_dir}", "{work_dir}", str(job_seconds)),
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
        return TaskPlan(
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


def make_plan(invocation: str, folder: Path, *tasks: TaskPlan) -> Plan:
    """A plan of these tasks."""
    return Plan(
        invocation=invocation,
        execution="local",
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

    async def open(self, *tasks: TaskPlan) -> Platform:
        """An opened platform for a plan of these tasks."""
        platform = self.bench.make()
        self.platforms.append(platform)
        await platform.open(make_plan(self.invocation, self.folder, *tasks), self.folder / self.invocation)
        return platform
