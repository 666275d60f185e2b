"""The whole typed config: what a YAML file and the command line become before anything is planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.config.deployment import DEPLOYMENTS, AnyDeployment, NoDeployment, Smollm
from launcher.config.evaluation import EndpointType, Evaluation, Settings, Task
from launcher.config.execution import EXECUTIONS, AnyExecution, Local
from launcher.config.export import Export
from launcher.config.fields import Count, GpuHours, Name, Seconds, Usd, key
from launcher.config.pricing import Pricing
from launcher.config.sweep import Sweep

__all__ = [
    "DEPLOYMENTS",
    "EXECUTIONS",
    "ApiEndpoint",
    "Auxiliary",
    "Config",
    "EndpointType",
    "Evaluation",
    "Export",
    "Limits",
    "NoDeployment",
    "Notify",
    "Pricing",
    "Settings",
    "Sweep",
    "Target",
    "Task",
]


@dataclass(frozen=True, kw_only=True)
class ApiEndpoint:
    """How the evaluated endpoint is addressed."""

    url: str | None = key(
        None, "base URL of an existing endpoint (deployment none), with or without /v1/completions and the like"
    )
    model_id: Name | None = key(
        None, "model name in requests; where it differs from deployment.model_id it is served under it"
    )
    api_key_name: str | None = key(None, "environment variable that holds the endpoint's key; its name, not its value")
    type: EndpointType | None = key(None, "route that is evaluated, for all tasks that do not say")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is evaluated."""

    api_endpoint: ApiEndpoint = key(factory=ApiEndpoint, doc="how the evaluated endpoint is addressed")


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """A further endpoint that tasks use beside the evaluated one: a judge, a user simulator, a reward model."""

    deployment: AnyDeployment = key(factory=Smollm, doc="how its model is served, with all keys of a deployment")
    target: Target = key(factory=Target, doc="how it is addressed")
    resource_shape: str | None = key(None, "Lepton: its resource shape; default: execution.resource_shape")
    node_group: str | None = key(None, "Lepton: its node group; default: execution.node_group")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one invocation."""

    max_parallel_endpoints: Count | None = key(None, "most endpoints alive at once; further tasks wait, longest first")
    max_gpus: Count | None = key(None, "most GPUs in use at once; further tasks wait, longest first")
    max_duration: Seconds | None = key(None, "time after which the run is ended and torn down; scores so far are kept")
    max_cost_usd: Usd | None = key(
        None, "cost of all endpoints at which the run is ended and torn down; scores so far are kept"
    )
    max_gpu_hours: GpuHours | None = key(
        None, "GPU time of all endpoints at which the run is ended and torn down; scores so far are kept"
    )
    max_attempts: Count = key(
        2, "attempts of one task, the first included, where its end is one that trying again can mend"
    )


@dataclass(frozen=True, kw_only=True)
class Notify:
    """Who is told how a run goes."""

    url_names: list[Name] = key(
        factory=list, doc="environment variables that hold Apprise addresses (mail, chat, web hooks); names, not values"
    )
    events: list[Literal["finished", "failed", "budget", "leftover"]] = key(
        factory=lambda: ["finished", "failed", "budget", "leftover"],
        doc="finished: all tasks scored; failed: not all; budget: near or at a limit; leftover: something would not go",
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """One validated config.

    `execution` and `deployment` have the dataclass that their `type` names (see EXECUTIONS and DEPLOYMENTS).
    """

    execution: AnyExecution = key(factory=Local, doc="where things run")
    deployment: AnyDeployment = key(factory=Smollm, doc="how the model is served")
    target: Target = key(factory=Target, doc="what is evaluated")
    auxiliary: dict[str, Auxiliary] = key(factory=dict, doc="further endpoints that tasks use, by name: a judge, say")
    evaluation: Evaluation = key(factory=Evaluation, doc="which benchmarks run")
    export: Export = key(factory=Export, doc="forms of the results, and places they are sent to")
    limits: Limits = key(factory=Limits, doc="bounds of one invocation")
    notify: Notify = key(factory=Notify, doc="who is told how a run goes")
    pricing: Pricing = key(factory=Pricing, doc="what the platform's resource shapes cost")
    sweep: Sweep = key(factory=Sweep, doc="which points a sweep has, and what bounds them together")
