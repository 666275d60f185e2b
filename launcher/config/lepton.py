"""Typed keys of `execution: lepton` below its own level: storage, mounts and the options of a dedicated endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from launcher.config.fields import Count, Name, Seconds, key

Percent = Annotated[int, Meta(ge=1, le=100, extra={"unit": "%"})]
PerMinute = Annotated[float, Meta(gt=0, extra={"unit": "requests per minute"})]
SecondsToIdle = Annotated[int, Meta(ge=60, extra={"unit": "s"})]
"""The service takes no shorter time; 0 would switch the guard off."""
SecondsKept = Annotated[int, Meta(ge=60, extra={"unit": "s"})]

Priority = Literal[
    "low-1000",
    "low-2000",
    "low-3000",
    "mid-4000",
    "mid-5000",
    "mid-6000",
    "high-7000",
    "high-8000",
    "high-9000",
]


@dataclass(frozen=True, kw_only=True)
class LeptonStorage:
    """Storage mounted in jobs and endpoints."""

    volume: str | None = key(
        "node-nfs:lepton-shared-fs", "volume, as the workspace names it; null: results come home by the jobs' logs only"
    )
    path: str = key("/", "path on the volume that is mounted")
    mount_path: str = key("/shared", "where it is mounted")
    workspace: str = key(
        "/shared/nemo-evaluator-launcher-workspace",
        "folder, below mount_path, that gets one sub-folder per invocation",
    )
    model_cache: bool = key(True, "mount a folder of the workspace in the endpoints as cache of downloaded models")


@dataclass(frozen=True, kw_only=True)
class LeptonMount:
    """mount of a file system"""

    path: str = key(doc="path on the volume")
    mount_path: str = key(doc="where it is mounted")
    volume: str | None = key(None, "volume, as the workspace names it; default: execution.storage.volume")
    read_only: bool = key(False, "mount it for reading only")


@dataclass(frozen=True, kw_only=True)
class LeptonAccess:
    """Who may call an endpoint."""

    mode: Literal["token", "workspace", "public"] = key(
        "token",
        "token: a token made for this invocation; workspace: the workspace's token; public: anybody, no token",
    )
    token_names: list[Name] = key(
        factory=list, doc="environment variables whose values are accepted as tokens too; names, not values"
    )


@dataclass(frozen=True, kw_only=True)
class LeptonAutoscale:
    """When replicas are added and removed. The two time-outs are the guard of the costs should the launcher die."""

    no_traffic_timeout: SecondsToIdle | None = key(
        None, "time without a request after which an endpoint is scaled to zero; default: from the plan's time-outs"
    )
    not_ready_timeout: SecondsToIdle | None = key(
        None, "time without being ready after which an endpoint is scaled to zero; default: from the plan's time-outs"
    )
    gpu_utilization: Percent | None = key(None, "GPU utilisation that replicas are added and removed for")
    qpm: PerMinute | None = key(None, "requests per minute and replica that replicas are added and removed for")
    qpm_methods: list[str] = key(factory=list, doc="HTTP methods that count for qpm; default: all")
    qpm_paths: list[str] = key(factory=list, doc="paths that count for qpm; default: all")


@dataclass(frozen=True, kw_only=True)
class LeptonEndpoint:
    """Options of the dedicated endpoints."""

    min_replicas: Count = key(1, "replicas of an endpoint")
    max_replicas: Count | None = key(None, "most replicas that autoscaling makes; default: min_replicas")
    mounts: list[LeptonMount] = key(factory=list, doc="file systems mounted beside the model cache")
    visibility: Literal["private", "public"] = key("private", "who of the workspace sees endpoints and jobs")
    initial_delay: Seconds | None = key(
        None, "time before the port is looked at; a server that opens it later is restarted; default: start_timeout"
    )
    require_approval: bool = key(False, "a person must approve each replica before it gets requests")
    pull_metrics: bool = key(True, "the platform pulls the server's metrics")
    header_routing: bool = key(False, "the header X-Lepton-Replica-Target chooses a replica")
    collect_logs: bool = key(True, "keep the server's output; without, a failure cannot be explained")
    queue_priority: Priority | None = key(None, "priority in the node group's queue; the group must have quotas")
