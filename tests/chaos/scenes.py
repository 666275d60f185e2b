"""What is run before it is killed: a kind of plan in a kind of cloud, or in two."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher.config.fields import Reference
from launcher.emulators import deepinfra, kubernetes
from launcher.emulators.lepton import (
    After,
    Config,
    DelayLogs,
    HoldName,
    LateEffect,
    LateListing,
    LoseAnswer,
    Refuse,
    Script,
    SlowDelete,
)
from launcher.emulators.lepton.container import Command
from launcher.platforms.pace import Rate
from launcher.runner.client import Ending
from tests.e2e.lepton import job_output
from tests.fakes.slurm import FakeConfig, FakeFaults

BOOTS, LASTS = 0.1, 0.3
"""Seconds that a server takes to start and a job to end."""


def hurried(rate: Rate, elapsed: float) -> float:
    """A third of the usual time between two questions."""
    return min(rate.shortest + elapsed * rate.share, rate.longest) / 3


KNOBS: dict[str, Any] = {
    "launcher.platforms.lepton.platform:LeptonPlatform.create_grace": 0.8,
    "launcher.platforms.deepinfra.platform:DeepInfraPlatform.create_grace": 0.8,
    "launcher.platforms.creation:GRACE": (0.1, 0.2, 0.4),
    "launcher.platforms.pace:Rate.interval": hurried,
    "launcher.orchestrator.removal:FIRST_PAUSE": 0.05,
    "launcher.orchestrator.retry:FIRST_DELAY": 0.1,
}
"""The launcher's patience, for a cloud as quick as the emulator, which makes things at once."""
LATE = 1.0
"""Seconds by which a slow cloud is late."""
LATE_KNOBS: dict[str, Any] = {
    **KNOBS,
    "launcher.platforms.lepton.platform:LeptonPlatform.create_grace": 3 * LATE,
    "launcher.platforms.deepinfra.platform:DeepInfraPlatform.create_grace": 3 * LATE,
}
CLUSTER_KNOBS: dict[str, Any] = {
    **{name: value for name, value in KNOBS.items() if "create_grace" not in name},
    "launcher.platforms.kubernetes.platform:KubernetesPlatform.create_grace": 0.8,
    "launcher.platforms.kubernetes.watching:FIRST_WAIT": 0.05,
    "launcher.platforms.kubernetes.watching:LONGEST_WAIT": 0.4,
}
LATE_CLUSTER_KNOBS: dict[str, Any] = {
    **CLUSTER_KNOBS,
    "launcher.platforms.kubernetes.platform:KubernetesPlatform.create_grace": 3 * LATE,
}
SLURM_KNOBS: dict[str, Any] = {
    **{name: value for name, value in KNOBS.items() if "create_grace" not in name},
    "launcher.platforms.slurm.platform:SlurmPlatform.create_grace": 4.0,
    "launcher.platforms.slurm.platform:SHORTEST_POLL": 0.1,
    "launcher.platforms.slurm.platform:LOOK_SHARE": 2.0,
}
CONTAINER: dict[str, Any] = {"type": "container", "model_id": "m", "image": "sim/server", "command": ["serve"]}
RENTAL: dict[str, Any] = {"type": "deepinfra", "model_id": "acme/tiny"}
CLUSTER = kubernetes.Config(timing=kubernetes.Timing(tick=0.02, restart_delay=0.1))
SECRET = "chaos-1b2e77"
"""A value that is written nowhere, of the variable CHAOS_TOKEN."""
ACCOUNT = deepinfra.Config(gpu_limit=8, timing=deepinfra.Timing(tick=0.02))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One kind of run. `deployment`, `execution`, `auxiliary`, `limits`: keys of the config.

    `knobs`: values inside the launcher.
    """

    name: str
    config: Config = field(default_factory=Config)
    """The Lepton workspace, which runs the jobs, and the endpoints too unless they are rented."""
    deepinfra: deepinfra.Config | None = None
    """The DeepInfra account that endpoints are rented in."""
    kubernetes: kubernetes.Config | None = None
    """The cluster that runs all, instead of the workspace."""
    slurm: FakeConfig | None = None
    """The Slurm cluster that runs all."""
    tasks: int = 2
    deployment: Mapping[str, Any] = field(default_factory=lambda: dict(CONTAINER))
    execution: Mapping[str, Any] = field(default_factory=dict)
    auxiliary: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    knobs: Mapping[str, Any] = field(default_factory=lambda: dict(KNOBS))
    is_late: bool = False
    """Things may appear when their launcher is long dead, and after whoever knows nothing of it has looked."""
    first_attempt: Ending = Ending.COMPLETED
    """How the first attempt of the first task ends."""

    @property
    def endpoints(self) -> int:
        """How many an undisturbed run makes."""
        return self.tasks + len(self.auxiliary)

    @property
    def cloud(self) -> str:
        """Where its endpoints are."""
        return self.places[-1]

    @property
    def places(self) -> tuple[str, ...]:
        """Everywhere that it can leave something."""
        if self.slurm is not None:
            return ("slurm",)
        if self.kubernetes is not None:
            return ("kubernetes",)
        return ("lepton",) if self.deepinfra is None else ("lepton", "deepinfra")

    @property
    def place(self) -> Mapping[str, Any]:
        """Where its jobs run, as the config says it."""
        if self.slurm is not None:
            return {"type": "slurm", "python": sys.executable, **self.execution}
        if self.kubernetes is not None:
            return {"type": "kubernetes", "job_image": "sim/job", **self.execution}
        return {"type": "lepton", "node_group": "h100-pool", "resource_shape": "gpu.1xh100", **self.execution}

    def instance(self, _: deepinfra.Launch) -> Script:
        """What an instance of a deployment does."""
        return Script(output="the model says hello\n", opens_after=BOOTS)

    def server(self, _: Command) -> Script:
        """What an endpoint does."""
        return Script(output="the server says hello\n", opens_after=BOOTS, application=_answer)

    def job(self, command: Command) -> Script:
        """What a job does."""
        name = command.env.get("LEPTON_JOB_NAME") or command.env["HOSTNAME"]
        _, task, number, *_ = name.removeprefix("fetch-").split("-")
        ending = self.first_attempt if number == "0" else Ending.COMPLETED
        results = written(task)
        if name.startswith("fetch-"):
            return Script(output=_archive(json.dumps(results)), seconds=BOOTS)
        output = job_output(ending, json.dumps(results), not_printed="storage" in self.execution)
        return Script(output=output, seconds=LASTS, exit_code=ending.exit_code)

    @property
    def scores(self) -> dict[str, float]:
        """What comes home from an undisturbed run."""
        return {f"t{number}": score(f"t{number}") for number in range(self.tasks)}


def written(task: str) -> dict[str, Any]:
    """What the benchmark of a task writes to results.json."""
    return {"schema": "nv-eval.scores/1", "scores": [{"metric": "acc", "value": score(task), "n": 4}]}


def score(task: str) -> float:
    """What a task scores: each another value, so that no score can pass for another's."""
    return 0.1 + int(task.removeprefix("t")) / 10


def _archive(results: str) -> str:
    """What a job keeps on its volume, as the pod prints it that reads it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("results.json", results)
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


async def _answer(scope: Any, _receive: Any, send: Any) -> None:
    """As much of a model server as the launcher asks before it calls an endpoint ready."""
    said = {"object": "list", "data": [{"id": "m", "object": "model"}]}
    if scope["path"].endswith("completions"):
        choice = {"index": 0, "text": "x", "message": {"role": "assistant", "content": "x"}, "finish_reason": "length"}
        said = {"id": "1", "object": "text_completion", "model": "m", "choices": [choice]}
    head = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


LEGACY = Scene(name="legacy")
NEW = Scene(name="new", config=Config(new_deployment_api=True))
RETRIED = Scene(name="retried", first_attempt=Ending.ENDPOINT_DIED)
"""The first task needs a second attempt."""
QUEUED = Scene(name="queued", tasks=3, limits={"max_parallel_endpoints": 1})
ALL_READY = Scene(name="all_ready", execution={"start_jobs": "all_ready"})
JUDGED = Scene(name="judged", auxiliary={"judge": {"deployment": {**CONTAINER, "start_timeout": 30}}})
"""Tasks use an endpoint beside their own."""
SLOW = Scene(
    name="slow",
    config=Config(
        faults=(
            LateEffect(route="POST *", probability=0.5, seconds=LATE),
            LateListing(probability=0.5, seconds=LATE),
            DelayLogs(probability=0.5, seconds=LATE),
            SlowDelete(probability=0.5, after=After(seconds=LATE)),
        )
    ),
    knobs=LATE_KNOBS,
    is_late=True,
)
"""Everything comes late: effects when their launcher is dead, lists when nobody asks any more."""
UNLUCKY = Scene(
    name="unlucky",
    config=Config(
        new_deployment_api=True,
        faults=(
            LoseAnswer(route="POST *", probability=0.3),
            LoseAnswer(probability=0.05),
            Refuse(probability=0.1),
            Refuse(probability=0.05, status=429),
            HoldName(probability=0.3, seconds=0.5),
            SlowDelete(probability=0.3, after=After(reads=3)),
        ),
    ),
)
"""Answers get lost, requests are turned away."""

RENTED = Scene(name="rented", deepinfra=ACCOUNT, deployment=RENTAL)
RENTED_RETRIED = dataclasses.replace(RENTED, name="rented_retried", first_attempt=Ending.ENDPOINT_DIED)
RENTED_QUEUED = dataclasses.replace(
    RENTED, name="rented_queued", tasks=3, deepinfra=dataclasses.replace(ACCOUNT, gpu_limit=3)
)
"""Others have two of the three GPUs."""
RENTED_SHARED = dataclasses.replace(RENTED, name="rented_shared", deployment={**RENTAL, "sharing": "shared"})
RENTED_SLOW = dataclasses.replace(
    RENTED,
    name="rented_slow",
    config=SLOW.config,
    deepinfra=dataclasses.replace(
        ACCOUNT,
        faults=(
            LateEffect(route="POST *", probability=0.5, seconds=LATE),
            LateListing(probability=0.5, seconds=LATE),
            SlowDelete(probability=0.5, after=After(seconds=LATE)),
        ),
    ),
    knobs=LATE_KNOBS,
    is_late=True,
)
RENTED_UNLUCKY = dataclasses.replace(
    RENTED,
    name="rented_unlucky",
    config=UNLUCKY.config,
    deepinfra=dataclasses.replace(
        ACCOUNT,
        faults=(
            LoseAnswer(route="POST *", probability=0.3),
            LoseAnswer(probability=0.05),
            deepinfra.FalseRefusal(route="POST *", probability=0.2, seconds=0.3),
            deepinfra.Refuse(probability=0.1),
            deepinfra.Refuse(probability=0.05, status=429),
            deepinfra.Refuse(route="DELETE *", probability=0.3, status=409, message="it is deploying"),
            SlowDelete(probability=0.3, after=After(reads=3)),
        ),
    ),
    is_late=True,
)

CLUSTERED = Scene(
    name="clustered",
    kubernetes=CLUSTER,
    deployment={**CONTAINER, "envs": {"TOKEN": Reference(env="CHAOS_TOKEN")}},
    knobs=CLUSTER_KNOBS,
)
"""With a secret, which a Secret of the cluster holds."""
CLUSTERED_RETRIED = dataclasses.replace(CLUSTERED, name="clustered_retried", first_attempt=Ending.ENDPOINT_DIED)
CLUSTERED_QUEUED = dataclasses.replace(
    CLUSTERED,
    name="clustered_queued",
    tasks=3,
    kubernetes=dataclasses.replace(CLUSTER, nodes=(kubernetes.Node(name="only", gpus=1),)),
    deployment={**CONTAINER, "gpus": 1},
)
"""There are GPUs for one endpoint at a time: the cluster lets the others wait."""
CLUSTERED_ALL_READY = dataclasses.replace(CLUSTERED, name="clustered_all_ready", execution={"start_jobs": "all_ready"})
CLUSTERED_JUDGED = dataclasses.replace(CLUSTERED, name="clustered_judged", auxiliary=JUDGED.auxiliary)
CLUSTERED_STORED = dataclasses.replace(CLUSTERED, name="clustered_stored", execution={"storage": {"claim": "results"}})
"""Results are too large for a log: a pod reads them from the volume."""
CLUSTERED_SLOW = dataclasses.replace(
    CLUSTERED,
    name="clustered_slow",
    kubernetes=dataclasses.replace(
        CLUSTER,
        faults=(
            LateEffect(route="POST *", probability=0.5, seconds=LATE),
            SlowDelete(probability=0.5, after=After(seconds=LATE)),
        ),
        timing=dataclasses.replace(CLUSTER.timing, resync=LATE),
    ),
    knobs=LATE_CLUSTER_KNOBS,
    is_late=True,
)
"""Effects come when their launcher is dead, and what an owner leaves behind goes late."""
CLUSTERED_UNLUCKY = dataclasses.replace(
    CLUSTERED,
    name="clustered_unlucky",
    kubernetes=dataclasses.replace(
        CLUSTER,
        faults=(
            LoseAnswer(route="POST *", probability=0.3),
            LoseAnswer(probability=0.05),
            Refuse(probability=0.1),
            Refuse(probability=0.05, status=429),
            Refuse(route="DELETE *", probability=0.2, status=409, message="Operation cannot be fulfilled"),
            SlowDelete(probability=0.3, after=After(seconds=0.3)),
        ),
    ),
)

BATCHED = Scene(
    name="batched",
    slurm=FakeConfig(simulated=True),
    deployment=CLUSTERED.deployment,
    knobs=SLURM_KNOBS,
    is_late=True,
)
"""Endpoint and evaluation in one batch job. What asks for a job goes on when the launcher is dead."""
BATCHED_RETRIED = dataclasses.replace(
    BATCHED, name="batched_retried", slurm=FakeConfig(simulated=True, first_server_dies=True)
)
BATCHED_QUEUED = dataclasses.replace(
    BATCHED, name="batched_queued", tasks=3, slurm=FakeConfig(simulated=True, waits=0.5, version="24.05.1")
)
"""Jobs wait; squeue speaks JSON."""
BATCHED_FORGOTTEN = dataclasses.replace(
    BATCHED, name="batched_forgotten", slurm=FakeConfig(simulated=True, min_job_age=0.0)
)
"""squeue does not show what has ended."""
BATCHED_SLOW = dataclasses.replace(
    BATCHED, name="batched_slow", slurm=FakeConfig(simulated=True, late=LATE, faults=FakeFaults(late=0.5))
)
BATCHED_UNLUCKY = dataclasses.replace(
    BATCHED,
    name="batched_unlucky",
    slurm=FakeConfig(simulated=True, lasts=2.5, faults=FakeFaults(lose=0.3, refuse=0.1)),
)
"""The controller is away now and then, and its answers get lost."""

ALL = (
    LEGACY,
    NEW,
    RETRIED,
    QUEUED,
    ALL_READY,
    JUDGED,
    SLOW,
    UNLUCKY,
    RENTED,
    RENTED_RETRIED,
    RENTED_QUEUED,
    RENTED_SHARED,
    RENTED_SLOW,
    RENTED_UNLUCKY,
    CLUSTERED,
    CLUSTERED_RETRIED,
    CLUSTERED_QUEUED,
    CLUSTERED_ALL_READY,
    CLUSTERED_JUDGED,
    CLUSTERED_STORED,
    CLUSTERED_SLOW,
    CLUSTERED_UNLUCKY,
    BATCHED,
    BATCHED_RETRIED,
    BATCHED_QUEUED,
    BATCHED_FORGOTTEN,
    BATCHED_SLOW,
    BATCHED_UNLUCKY,
)
SCENES = {scene.name: scene for scene in ALL}


def with_seed(scene: Scene, seed: int) -> Scene:
    """The same scene, in which other requests meet the faults."""
    account = None if scene.deepinfra is None else dataclasses.replace(scene.deepinfra, seed=seed)
    cluster = None if scene.kubernetes is None else dataclasses.replace(scene.kubernetes, seed=seed)
    batch = None if scene.slurm is None else dataclasses.replace(scene.slurm, seed=seed)
    workspace = dataclasses.replace(scene.config, seed=seed)
    return dataclasses.replace(scene, config=workspace, deepinfra=account, kubernetes=cluster, slurm=batch)
