"""Typed keys of `execution`: one dataclass per place that runs things."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.config.fields import Count, Gibibytes, NonNegative, Seconds, UsdPerHour, key


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
class LeptonStorage:
    """Storage mounted in jobs and endpoints."""

    volume: str = key("node-nfs:lepton-shared-fs", "volume, as the workspace names it")
    path: str = key("/", "path on the volume that is mounted")
    mount_path: str = key("/shared", "where it is mounted")
    workspace: str = key("/shared/nemo-evaluator-launcher-workspace", "folder that gets one sub-folder per invocation")


@dataclass(frozen=True, kw_only=True)
class Lepton(Execution):
    """NVIDIA DGX Cloud Lepton."""

    type: Literal["lepton"] = key("lepton", "NVIDIA DGX Cloud Lepton")
    node_group: str | None = key(None, "node group of the endpoints, by name or id")
    resource_shape: str | None = key(None, "resource shape of an endpoint, for example gpu.1xh100")
    job_resource_shape: str = key("cpu.small", "resource shape of an evaluation job")
    job_image: str = key("python:3.11-slim", "image of evaluation jobs whose task names none")
    storage: LeptonStorage = key(factory=LeptonStorage, doc="storage of this invocation")


AnyExecution = Local | Lepton

EXECUTIONS: dict[str, type[AnyExecution]] = {"local": Local, "lepton": Lepton}
