"""Typed keys of `execution: kubernetes` below its own level: what pods ask for, and storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from launcher.config.fields import EnvValue, Gibibytes, Name, NonNegative, Port, Positive, key


@dataclass(frozen=True, kw_only=True)
class KubernetesPod:
    """What a pod asks of the cluster, in the words of a pod's spec."""

    node_selector: dict[str, str] = key(factory=dict, doc="labels that a node must have")
    tolerations: list[dict[str, Any]] = key(factory=list, doc="taints of nodes that are tolerated")
    affinity: dict[str, Any] = key(factory=dict, doc="rules of affinity, as in a pod's spec")
    priority_class: str | None = key(None, "priority class")
    runtime_class: str | None = key(None, "runtime class")
    service_account: str | None = key(None, "service account; its token is not mounted")
    security_context: dict[str, Any] = key(factory=dict, doc="security context of the pod")
    container_security_context: dict[str, Any] = key(factory=dict, doc="security context of the container")
    annotations: dict[str, str] = key(factory=dict, doc="annotations of the pod")
    cpus: Positive | None = key(None, "CPU cores requested; default: what the deployment says, if it does")
    memory_gib: Gibibytes | None = key(None, "memory requested; default: what the deployment says, if it does")


@dataclass(frozen=True, kw_only=True)
class KubernetesSupervisor(KubernetesPod):
    """The pod that runs an invocation of `run --detach=cluster`."""

    service_account: str | None = key("nv-eval", "service account; `nv-eval gc --manifest` prints one that suffices")
    image: Name = key("python:3.11-slim", "image, with Python 3.10 or later")
    packages: list[str] | None = key(
        None, "packages that pip installs unless the image has nv-eval; default: nv-eval of this version"
    )
    envs: dict[str, EnvValue] = key(factory=dict, doc="variables, for example the keys of exporters")
    restarts: NonNegative = key(10, "how often the cluster starts it again when it dies")
    memory_gib: Gibibytes | None = key(1.0, "memory requested")


@dataclass(frozen=True, kw_only=True)
class KubernetesAccess:
    """How `nv-eval endpoints up` makes an endpoint reachable."""

    by: Literal["auto", "service", "port_forward", "gateway"] = key(
        "auto",
        "service: by its address in the cluster; port_forward: by a port of this machine; gateway: by an HTTPRoute; "
        "auto: service inside the cluster, else port_forward",
    )
    port: Port | None = key(
        None, "port of this machine, default any that is free; with gateway: the Gateway's, if not that of the scheme"
    )
    gateway: Name | None = key(None, "the Gateway, by name, or as namespace/name")
    hostname: Name | None = key(None, "name in the DNS that the Gateway answers for; {name} is that of the endpoint")
    scheme: Literal["http", "https"] = key("https", "how the Gateway is spoken with")


@dataclass(frozen=True, kw_only=True)
class KubernetesStorage:
    """Volumes that exist already, by their claims."""

    claim: Name | None = key(None, "claim of the volume for results; null: they come home by the jobs' logs only")
    folder: str = key("nv-eval", "folder on that volume; each invocation and task gets one below it")
    model_cache: Name | None = key(None, "claim of the volume where servers keep downloaded models")
