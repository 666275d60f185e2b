"""The Plan: all that one invocation will create, frozen. The dry run prints it, the run sends it.

Secrets are references in a Plan, never values. Times are seconds, memory is GiB unless a name says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from launcher.config.deployment import DEPLOYMENTS, AnyDeployment
from launcher.config.evaluation import EndpointType, Settings
from launcher.config.execution import EXECUTIONS, AnyExecution
from launcher.config.export import Export
from launcher.config.fields import Reference
from launcher.config.pricing import Pricing
from launcher.config.schema import Notify
from launcher.decoding import convert
from launcher.deployments.spec import ServerSpec
from launcher.harnesses.spec import HarnessJob

SCHEMA = "nv-eval.plan/1"
_GPU_SHAPE = re.compile(r"gpu\.(\d+)x.+", re.IGNORECASE)


@cache
def shape_gpus(shape: str | None) -> int | None:
    """GPUs of a resource shape as its name tells them: gpu.8xh100 has 8, cpu.small 0; None where it does not."""
    named = _GPU_SHAPE.fullmatch(shape or "")
    if named is not None:
        return int(named[1])
    return 0 if (shape or "").lower().startswith("cpu.") else None


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the platform's storage inside a container."""

    source: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class EndpointPlan:
    """One dedicated endpoint. `shape` and `node_group` are the platform's own names, where it has them."""

    name: str
    server: ServerSpec
    start_timeout: float
    health_timeout: float
    shape: str | None = None
    node_group: str | None = None
    mounts: tuple[Mount, ...] = ()
    replicas: int = 1
    """The most it may have at once; costs are those of all of them."""
    usd_per_hour: float | None = None
    """Price of one replica, where the shape has one."""
    request: dict[str, Any] | None = None
    """The request that creates it, on platforms that have one; references stand where secrets go."""
    lifetime: float | None = None
    """Seconds after its creation from which nobody needs it whatever happens, where its name or mark carries that."""
    is_metered: bool = False
    """What it costs is told by the platform's own meter (`Resource.usd`) while it runs."""
    is_shared: bool = False
    """All tasks of the plan have this same endpoint: made for the first that needs it, gone with the last."""
    evaluates: bool = False
    """Its task's evaluation is a part of it, and begins as soon as it answers, whatever the launcher does."""

    @property
    def gpus(self) -> int:
        """GPUs of all its replicas."""
        return self.gpus_per_replica * self.replicas

    @property
    def gpus_per_replica(self) -> int:
        """GPUs that one replica occupies: all of its shape, even where the server uses fewer."""
        return max(self.server.gpus, shape_gpus(self.shape) or 0)

    @property
    def gpus_known(self) -> bool:
        """Whether `gpus` tells what is occupied: False where the platform's shape decides and does not say it."""
        by_shape = self.request is not None and not {"sbatch", "apiVersion"} & self.request.keys()
        return self.gpus > 0 or not by_shape or shape_gpus(self.shape) is not None

    def hourly(self, usd_per_gpu_hour: float | None) -> float | None:
        """Price of all its replicas in USD per hour: that of the shape, else of the GPUs; None where none is known."""
        if self.usd_per_hour is not None:
            return self.usd_per_hour * self.replicas
        return self.gpus * usd_per_gpu_hour if usd_per_gpu_hour is not None and self.gpus_known else None


@dataclass(frozen=True, kw_only=True)
class TargetPlan:
    """How the job addresses its endpoint. `url` is None while the endpoint does not exist yet."""

    model: str
    endpoint_type: EndpointType
    lists_model: bool = True
    """Whether /v1/models has to show the model before it is asked."""
    url: str | None = None
    api_key: Reference | None = None
    health_path: str | None = None
    health_interval: float = 0.25
    needs_loglikelihood: bool = False
    start_timeout: float = 3600.0
    health_timeout: float = 300.0


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """One evaluation job: what the runner is told. `timeout` counts from the moment the endpoint answers."""

    name: str
    run: HarnessJob
    timeout: float
    shape: str | None = None
    image: str | None = None
    mounts: tuple[Mount, ...] = ()
    packages: tuple[str, ...] = ()
    """What pip installs first in an image that lacks what the harness needs."""
    queue_timeout: float = 0.0
    """Seconds that it or its endpoint may wait for its turn, or for a further one, beyond all other time-outs."""
    usd_per_hour: float | None = None
    request: dict[str, Any] | None = None
    """The request that submits it, on platforms that have one; references stand where secrets go."""


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One benchmark with its endpoint (None: an existing one) and its job.

    Of `Plan.auxiliary` it is an endpoint that serves benchmarks beside their own: nobody runs its job, whose timeout is
    the longest that it may be needed once it answers. Its key is its name.

    `key` is unique in the invocation and names the task's folder: the task's name, with -2, -3 where it repeats.
    """

    index: int
    key: str
    name: str
    harness: str
    settings: Settings
    target: TargetPlan
    job: JobPlan
    endpoint: EndpointPlan | None = None
    expected_duration: float | None = None
    auxiliary: dict[str, TargetPlan] = field(default_factory=dict)
    """How its job addresses the auxiliary endpoints that it uses, by name."""

    @property
    def boot(self) -> float:
        """Seconds that its job waits at most for its endpoint and the auxiliary ones."""
        helpers = (target.start_timeout + target.health_timeout for target in self.auxiliary.values())
        return self.target.start_timeout + self.target.health_timeout + max(helpers, default=0.0)

    @property
    def longest(self) -> float:
        """Seconds that an attempt of it takes if every time-out runs to its end."""
        return self.boot + self.job.timeout


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """The most the plan can use if every time-out runs to its end. `usd` is None without a price."""

    gpu_hours: float
    usd: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything one invocation will create and run."""

    invocation: str
    execution: str
    deployment: str
    output_dir: str
    storage: str
    """Folder, on the platform, that belongs to this invocation alone."""
    tasks: tuple[TaskPlan, ...]
    auxiliary: tuple[TaskPlan, ...] = ()
    """Endpoints that tasks use beside their own, those that exist already (`endpoint` None) too."""
    start_jobs: Literal["as_ready", "all_ready"] = "as_ready"
    max_parallel_endpoints: int | None = None
    max_gpus: int | None = None
    max_duration: float | None = None
    max_cost_usd: float | None = None
    max_gpu_hours: float | None = None
    expires: float | None = None
    """Seconds since 1970 when its one endpoint is taken down, which evaluates nothing; None: a plan of evaluations."""
    scope: str = ""
    """The sweep that it is a point of: what its endpoints ask of a caller is the same for all of the sweep."""
    max_attempts: int = 1
    """Attempts of one task, the first included, where its end is one that trying again can mend."""
    usd_per_gpu_hour: float | None = None
    worst_case: WorstCase = field(default_factory=lambda: WorstCase(gpu_hours=0.0))
    export_formats: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What the person should know of how defaults were resolved."""
    config: dict[str, Any] = field(default_factory=dict)
    """The resolved config the plan was built from, with references in place of secrets."""
    schema: str = SCHEMA

    @property
    def endpoints(self) -> list[EndpointPlan]:
        """Every endpoint once, in the order of the tasks, auxiliary ones last."""
        made = [task.endpoint for task in self.served if task.endpoint is not None]
        return list({endpoint.name: endpoint for endpoint in made}.values())

    @property
    def served(self) -> list[TaskPlan]:
        """Everything that an endpoint is made for: the tasks, and what is auxiliary to them."""
        return [*(task for task in self.tasks if task.endpoint), *self.helpers]

    @property
    def helpers(self) -> list[TaskPlan]:
        """Auxiliary endpoints that are made for this plan."""
        return [one for one in self.auxiliary if one.endpoint is not None]

    def together(self, task: TaskPlan) -> list[EndpointPlan]:
        """Endpoints that a task needs at the same time: its own and auxiliary ones."""
        helpers = [one.endpoint for one in self.helpers if one.key in task.auxiliary]
        return [endpoint for endpoint in (task.endpoint, *helpers) if endpoint is not None]

    def notify_config(self) -> Notify:
        """The typed keys of `notify`."""
        return convert(self.config.get("notify", {}), Notify)

    def export_config(self) -> Export:
        """The typed keys of `export`."""
        return convert(self.config.get("export", {}), Export)

    def execution_config(self) -> AnyExecution:
        """The typed keys of `execution`, for the platform."""
        return convert(self.config["execution"], EXECUTIONS[self.execution])

    def deployment_config(self) -> AnyDeployment:
        """The typed keys of `deployment`."""
        return convert(self.config["deployment"], DEPLOYMENTS[self.deployment])

    def pricing(self) -> Pricing:
        """What the platform's resource shapes cost, as far as the config says it."""
        return convert(self.config["pricing"], Pricing)
