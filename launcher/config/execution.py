"""Typed keys of `execution`: one dataclass per place that runs things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.config.fields import Count, Gibibytes, Name, NonNegative, Seconds, UsdPerHour, key
from launcher.config.lepton import (
    LeptonAccess,
    LeptonAutoscale,
    LeptonEndpoint,
    LeptonStorage,
    SecondsKept,
)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Keys that every execution has."""

    type: str = key(doc="where things run; chosen by the config group `execution`")
    output_dir: str = key("./results", "folder for results; each invocation gets a sub-folder of its own")
    start_jobs: Literal["as_ready", "all_ready"] = key(
        "as_ready", "start each job with its own endpoint, or wait until all endpoints answer"
    )
    usd_per_gpu_hour: UsdPerHour | None = key(None, "price used for the cost shown; default: GPU-hours only")


@dataclass(frozen=True, kw_only=True)
class Docker:
    """Keys of the docker runtime."""

    host: str | None = key(None, "socket of Docker or podman; default: DOCKER_HOST, else the usual socket")
    pull: Literal["missing", "always", "never"] = key("missing", "when to pull images")
    model_cache: str | None = key(
        None, "folder or volume mounted as the servers' model cache; default: a volume shared by all invocations"
    )


@dataclass(frozen=True, kw_only=True)
class Local(Execution):
    """This machine."""

    type: Literal["local"] = key("local", "this machine")
    runtime: Literal["process", "docker"] = key("process", "run servers as processes or in containers")
    gpus: Literal["auto"] | list[NonNegative] = key("auto", "GPU numbers to hand out; auto: all that are found")
    cpus: Count | None = key(None, "CPU cores divided among the servers; default: those this process may use")
    memory_gib: Gibibytes | None = key(
        None, "memory divided among the servers; default: what is available at the start"
    )
    stop_grace: Seconds = key(10.0, "time a server has to end by itself before it is killed")
    docker: Docker = key(factory=Docker, doc="settings of the docker runtime")


@dataclass(frozen=True, kw_only=True)
class Lepton(Execution):
    """NVIDIA DGX Cloud Lepton."""

    type: Literal["lepton"] = key("lepton", "NVIDIA DGX Cloud Lepton")
    workspace_id: str | None = key(None, "id of the workspace; default: LEPTON_WORKSPACE_ID, else the one logged in to")
    node_group: str | None = key(None, "node group of the endpoints, by name or id")
    resource_shape: str | None = key(None, "resource shape of an endpoint, for example gpu.1xh100")
    endpoint: LeptonEndpoint = key(factory=LeptonEndpoint, doc="options of the dedicated endpoints")
    access: LeptonAccess = key(factory=LeptonAccess, doc="who may call an endpoint")
    autoscale: LeptonAutoscale = key(factory=LeptonAutoscale, doc="when replicas are added and removed")
    job_node_group: str | None = key(None, "node group of the jobs, by name or id; default: node_group")
    job_resource_shape: str = key("cpu.small", "resource shape of an evaluation job")
    job_image: str = key("python:3.11-slim", "image of evaluation jobs whose task names none")
    job_packages: list[str] | None = key(
        None, "packages that pip installs in a job whose image lacks the harness; default: those of the harness"
    )
    job_ttl: SecondsKept = key(259_200, "time a finished job is kept, should it not be removed")
    image_pull_secrets: list[Name] = key(
        factory=list, doc="the workspace's credentials of image registries, for endpoints and jobs"
    )
    storage: LeptonStorage = key(factory=LeptonStorage, doc="storage of this invocation")


AnyExecution = Local | Lepton

EXECUTIONS: dict[str, type[AnyExecution]] = {"local": Local, "lepton": Lepton}
