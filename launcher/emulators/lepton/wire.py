"""What the emulator reads of the documents that clients send. Keys it does not use are kept, not checked."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from launcher.decoding import convert
from launcher.emulators.lepton.errors import ApiError, Code

Json = dict[str, Any]
PHOTON_PORT = 8080
"""Where the container of a photon listens."""
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]


class ValueFrom(Struct):
    """Where the value of an env comes from."""

    secret_name_ref: str | None = None


class EnvVar(Struct):
    """A variable of the container."""

    name: str
    value: str | None = None
    value_from: ValueFrom | None = None

    @property
    def secret(self) -> str | None:
        """The secret it refers to."""
        return self.value_from.secret_name_ref if self.value_from else None


class TokenFrom(Struct):
    """Where the value of a token comes from."""

    token_name_ref: str


class TokenVar(Struct):
    """A token that opens an endpoint."""

    value: str | None = None
    value_from: TokenFrom | None = None


class Mount(Struct):
    """A folder of a volume inside the container."""

    mount_path: str
    source: str | None = field(default=None, name="from")
    path: str | None = None


class Port(Struct):
    """A port of the container."""

    container_port: Annotated[int, Meta(ge=1, le=65535)]


class Container(Struct):
    """What runs."""

    image: str | None = None
    command: list[str] | None = None
    ports: list[Port] | None = None


class Affinity(Struct):
    """Where it may run."""

    allowed_dedicated_node_groups: list[str] | None = None


class Resources(Struct):
    """What an endpoint's replica needs, and how many there are."""

    resource_shape: str | None = None
    min_replicas: Count | None = None
    max_replicas: Count | None = None
    affinity: Affinity | None = None
    cpu: float | None = None
    memory: float | None = None


class ScaleDown(Struct):
    """Time-outs in seconds; 0 is none."""

    no_traffic_timeout: Seconds | None = None
    not_ready_timeout: Seconds | None = None


class Throughput(Struct):
    """Queries per minute to aim at."""

    qpm: Annotated[float, Meta(ge=0)] | None = None


class AutoScaler(Struct):
    """When the number of replicas changes."""

    scale_down: ScaleDown | None = None
    target_gpu_utilization_percentage: Annotated[int, Meta(ge=0, le=100)] | None = None
    target_throughput: Throughput | None = None


class Readiness(Struct):
    """What readiness needs besides an open port."""

    require_approval: bool | None = None


class Liveness(Struct):
    """When a closed port means that the container hangs."""

    initial_delay_seconds: Seconds | None = None


class Health(Struct):
    """Probes."""

    readiness: Readiness | None = None
    liveness: Liveness | None = None


class Log(Struct):
    """What happens to output."""

    enable_collection: bool | None = None


class WorkspaceTokenAuth(Struct):
    """What happens to the workspace token at the gateway."""

    remove_authorization_header: bool | None = None


class AuthConfig(Struct):
    """Who may call an endpoint, and from where."""

    lepton_workspace_token_auth: WorkspaceTokenAuth | None = None
    ip_allowlist: list[str] | None = None


class RoutingPolicy(Struct):
    """How requests find a replica."""

    enable_header_based_replica_routing: bool | None = None


class EndpointSpec(Struct):
    """The spec of an endpoint in its legacy form, which is the emulator's own."""

    container: Container = field(default_factory=Container)
    resource_requirement: Resources = field(default_factory=Resources)
    auto_scaler: AutoScaler | None = None
    api_tokens: list[TokenVar] | None = None
    envs: list[EnvVar] | None = None
    mounts: list[Mount] | None = None
    image_pull_secrets: list[str] | None = None
    health: Health | None = None
    log: Log | None = None
    auth_config: AuthConfig | None = None
    routing_policy: RoutingPolicy | None = None
    allow_unauthenticated_access: bool | None = None
    ingress_timeout_seconds: Annotated[int, Meta(ge=300, le=6000)] | None = None
    photon_id: str | None = None
    photon_namespace: str | None = None

    @property
    def runs(self) -> Container:
        """What runs: a photon is an image `photon:{id}` that listens where photons do."""
        if self.photon_id is None:
            return self.container
        return Container(image=f"photon:{self.photon_id}", ports=[Port(PHOTON_PORT)])

    @property
    def replicas(self) -> int:
        """Replicas wanted."""
        wanted = self.resource_requirement.min_replicas
        return 1 if wanted is None else wanted

    @property
    def shape(self) -> str:
        """Id of the resource shape."""
        return (self.resource_requirement.resource_shape or "cpu.small").lower()

    @property
    def node_groups(self) -> list[str]:
        """Ids of the node groups it may run in."""
        return _groups(self.resource_requirement.affinity)

    @property
    def scale_down(self) -> ScaleDown:
        """Its time-outs."""
        return (self.auto_scaler and self.auto_scaler.scale_down) or ScaleDown()

    @property
    def liveness_delay(self) -> float | None:
        """Seconds before a closed port counts, where the spec says."""
        return self.health.liveness.initial_delay_seconds if self.health and self.health.liveness else None

    @property
    def needs_approval(self) -> bool:
        """Whether somebody must approve before it is ready."""
        return bool(self.health and self.health.readiness and self.health.readiness.require_approval)


class Schedule(Struct):
    """When a job begins, in seconds since 1970."""

    start_at: float | None = None


class JobSpec(Struct):
    """The spec of a job."""

    container: Container = field(default_factory=Container)
    resource_shape: str | None = None
    affinity: Affinity | None = None
    completions: Count | None = None
    parallelism: Count | None = None
    max_failure_retry: Count | None = None
    max_job_failure_retry: Count | None = None
    envs: list[EnvVar] | None = None
    mounts: list[Mount] | None = None
    image_pull_secrets: list[str] | None = None
    ttl_seconds_after_finished: Seconds | None = None
    log: Log | None = None
    stopped: bool | None = None
    time_schedule: Schedule | None = None

    @property
    def replicas(self) -> int:
        """Workers that have to succeed."""
        return max(1, self.completions or 1)

    @property
    def at_once(self) -> int:
        """Workers that run at the same time."""
        return max(1, self.parallelism or 1)

    @property
    def shape(self) -> str:
        """Id of the resource shape."""
        return (self.resource_shape or "cpu.small").lower()

    @property
    def node_groups(self) -> list[str]:
        """Ids of the node groups it may run in."""
        return _groups(self.affinity)


class Metadata(Struct):
    """What a client says of a resource besides its spec."""

    id: str | None = None
    name: str | None = None
    labels: dict[str, str] | None = None
    visibility: str | None = None


class SecretItem(Struct):
    """A secret as it is created."""

    name: str
    value: str = ""
    tags: list[str] | None = None
    visibility: str | None = None


class PullSecretSpec(Struct):
    """A registry and who logs in to it."""

    registry_server: str
    username: str = ""
    password: str = ""
    email: str = ""


class PullSecret(Struct):
    """An image pull secret as it is created."""

    metadata: Metadata
    spec: PullSecretSpec


T = TypeVar("T")


def read(document: object, kind: type[T]) -> T:
    """A document as this type. Raises ApiError 400 that names the field."""
    try:
        return convert(document, kind)
    except msgspec.ValidationError as error:
        raise ApiError(400, Code.VALIDATION, str(error)) from None


def merge(base: object, patch: object) -> object:
    """RFC 7386: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _groups(affinity: Affinity | None) -> list[str]:
    return (affinity.allowed_dedicated_node_groups if affinity else None) or []
