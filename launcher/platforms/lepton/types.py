"""What Lepton's API says and takes, in its legacy (`/deployments`) shape, which is the richer of its two.

Everything is optional, as the service leaves out what it does not know, and unknown fields are ignored. Fields that
are None are not sent. `launcher/platforms/lepton/families.py` translates to and from the newer `/endpoints` shape.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Any

from msgspec import Struct, field

MARK = "NV_EVAL_INVOCATION"
"""Environment variable of every endpoint and job of ours: the invocation it belongs to."""


class Wire(Struct, kw_only=True, omit_defaults=True):
    """A part of a document on the wire."""


class EndpointState(StrEnum):
    """State of an endpoint. `READY` says that its port is open, no more."""

    READY = "Ready"
    NOT_READY = "Not Ready"
    STARTING = "Starting"
    UPDATING = "Updating"
    SCALING = "Scaling"
    MIGRATING = "Migrating"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    DELETING = "Deleting"
    RESTARTING = "Restarting"
    ERROR = "Error"
    UNKNOWN = ""

    @classmethod
    def of(cls, text: str | None) -> EndpointState:
        """The state in either family's spelling; UNKNOWN for one that this version does not know."""
        return _endpoint_state(text or "")


class JobState(StrEnum):
    """State of a job."""

    AWAITING = "Awaiting"
    QUEUEING = "Queueing"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    PENDING_RETRY = "PendingRetry"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    TERMINATING = "Terminating"
    COMPLETED = "Completed"
    FAILED = "Failed"
    DELETING = "Deleting"
    DELETED = "Deleted"
    ARCHIVED = "Archived"
    UNKNOWN = ""

    @classmethod
    def of(cls, text: str | None) -> JobState:
        """The state; UNKNOWN for one that this version does not know."""
        return _job_state(text or "")


@cache
def _endpoint_state(text: str) -> EndpointState:
    wanted = text.replace(" ", "").lower()
    return next((s for s in EndpointState if s.value.replace(" ", "").lower() == wanted), EndpointState.UNKNOWN)


@cache
def _job_state(text: str) -> JobState:
    return next((state for state in JobState if state.value == text), JobState.UNKNOWN)


# --- shared parts -----------------------------------------------------------------------------------------------------


class Metadata(Wire):
    """Identity. `created_at` in milliseconds since 1970."""

    id: str | None = None
    name: str | None = None
    created_at: int | float | None = None
    version: int | None = None
    semantic_version: str | None = None
    created_by: str | None = None
    owner: str | None = None
    labels: dict[str, str] | None = None
    visibility: str | None = None


class ValueFrom(Wire):
    """Where a value comes from: a secret of the workspace, or a named token."""

    secret_name_ref: str | None = None
    token_name_ref: str | None = None


class EnvVar(Wire):
    """One environment variable: a value, or where it comes from."""

    name: str
    value: str | None = None
    value_from: ValueFrom | None = None


class ApiToken(Wire):
    """A token that an endpoint accepts."""

    value: str | None = None
    value_from: ValueFrom | None = None


class MountOptions(Wire):
    """How a volume is mounted."""

    local_cache_size_mib: int | None = None
    read_only: bool | None = None


class Mount(Wire):
    """A path of a volume inside a container. `source` names the volume, for example node-nfs:lepton-shared-fs."""

    path: str | None = None
    source: str | None = field(name="from", default=None)
    mount_path: str | None = None
    mount_options: MountOptions | None = None


class ContainerPort(Wire):
    """A port of a container."""

    container_port: int | None = None
    protocol: str | None = None
    name: str | None = None
    app_protocol: str | None = None


class Container(Wire):
    """What runs."""

    image: str | None = None
    command: list[str] | None = None
    ports: list[ContainerPort] | None = None


class Affinity(Wire):
    """Where it may run; node groups by id."""

    allowed_dedicated_node_groups: list[str] | None = None
    allowed_nodes_in_node_group: list[str] | None = None
    allowed_providers: list[str] | None = None


class Logging(Wire):
    """Whether output is collected."""

    enable_collection: bool | None = None
    save_termination_logs: bool | None = None


class Metrics(Wire):
    """Whether the replicas' metrics are pulled."""

    disable_pulling_from_replica: bool | None = None


class Queue(Wire):
    """Priority in the queue of the node group."""

    priority_class: str | None = None
    can_be_preempted: bool | None = None
    can_preempt: bool | None = None


# --- endpoints --------------------------------------------------------------------------------------------------------


class ScaleDown(Wire):
    """Seconds after which an endpoint is scaled to zero: without traffic, or without getting ready."""

    no_traffic_timeout: int | None = None
    not_ready_timeout: int | None = None


class Throughput(Wire):
    """Scaling by requests per minute."""

    qpm: float | None = None
    paths: list[str] | None = None
    methods: list[str] | None = None


class AutoScaler(Wire):
    """The three forms of scaling."""

    scale_down: ScaleDown | None = None
    target_gpu_utilization_percentage: int | None = None
    target_throughput: Throughput | None = None


class Resources(Wire):
    """What an endpoint's replicas get. `shared_memory_size` in MiB."""

    resource_shape: str | None = None
    shared_memory_size: int | None = None
    affinity: Affinity | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None


class Liveness(Wire):
    """When the port is looked at for the first time."""

    initial_delay_seconds: int | None = None


class Readiness(Wire):
    """Whether a person must approve before traffic comes."""

    require_approval: bool | None = None


class Health(Wire):
    """Health checks."""

    readiness: Readiness | None = None
    liveness: Liveness | None = None


class Routing(Wire):
    """Whether a request header may choose the replica."""

    enable_header_based_replica_routing: bool | None = None


class EndpointSpec(Wire):
    """What an endpoint shall be."""

    container: Container | None = None
    resource_requirement: Resources | None = None
    auto_scaler: AutoScaler | None = None
    api_tokens: list[ApiToken] | None = None
    envs: list[EnvVar] | None = None
    mounts: list[Mount] | None = None
    image_pull_secrets: list[str] | None = None
    health: Health | None = None
    log: Logging | None = None
    metrics: Metrics | None = None
    routing_policy: Routing | None = None
    queue_config: Queue | None = None
    allow_unauthenticated_access: bool | None = None
    photon_id: str | None = None
    photon_namespace: str | None = None


class Address(Wire):
    """Where an endpoint answers; empty strings while it does not."""

    internal_endpoint: str | None = None
    external_endpoint: str | None = None


class EndpointStatus(Wire):
    """What an endpoint is. The legacy backend tells stopping and stopped only in `phase`."""

    state: str | None = None
    phase: str | None = None
    endpoint: Address | None = None
    ready_replicas: int | None = None


class Endpoint(Wire):
    """One endpoint."""

    metadata: Metadata = field(default_factory=Metadata)
    spec: EndpointSpec = field(default_factory=EndpointSpec)
    status: EndpointStatus | None = None

    @property
    def name(self) -> str:
        """Its name, which is also its id in the routes."""
        return self.metadata.name or self.metadata.id or ""

    @property
    def state(self) -> EndpointState:
        """Its state, from both fields that tell it."""
        status = self.status or EndpointStatus()
        phase = EndpointState.of(status.phase)
        if phase in (EndpointState.STOPPING, EndpointState.STOPPED):
            return phase
        return EndpointState.of(status.state)

    @property
    def url(self) -> str | None:
        """Base URL, once it has one."""
        address = self.status.endpoint if self.status else None
        return (address.external_endpoint or None) if address else None

    @property
    def invocation(self) -> str | None:
        """The invocation of ours that made it; None for anybody else's."""
        return marked(self.spec.envs)


class ReadinessIssue(Wire):
    """Why a replica is not ready."""

    reason: str = ""
    message: str = ""


class Termination(Wire):
    """How a replica's container ended. Times are seconds since 1970."""

    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    started_at: int | float | None = None
    finished_at: int | float | None = None


class Event(Wire):
    """Something that happened to a replica."""

    type: str = ""
    reason: str = ""
    message: str = ""
    count: int | None = None


class Replica(Wire):
    """One replica."""

    id: str | None = None
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def key(self) -> str:
        """Its id in the routes."""
        return self.id or self.metadata.id or self.metadata.name or ""


# --- jobs -------------------------------------------------------------------------------------------------------------


class JobSpec(Wire):
    """What a job shall be. Times are seconds."""

    resource_shape: str | None = None
    affinity: Affinity | None = None
    container: Container | None = None
    shared_memory_size: int | None = None
    completions: int | None = None
    parallelism: int | None = None
    max_failure_retry: int | None = None
    max_job_failure_retry: int | None = None
    envs: list[EnvVar] | None = None
    mounts: list[Mount] | None = None
    image_pull_secrets: list[str] | None = None
    ttl_seconds_after_finished: int | None = None
    log: Logging | None = None
    queue_config: Queue | None = None
    stopped: bool | None = None


class JobStatus(Wire):
    """What a job is. Times are seconds since 1970."""

    job_name: str | None = None
    state: str | None = None
    creation_time: int | float | None = None
    completion_time: int | float | None = None


class Job(Wire):
    """One job. Several may share a name; the id is unique."""

    metadata: Metadata = field(default_factory=Metadata)
    spec: JobSpec = field(default_factory=JobSpec)
    status: JobStatus | None = None

    @property
    def id(self) -> str:
        """Its id in the routes."""
        return self.metadata.id or ""

    @property
    def state(self) -> JobState:
        """Its state."""
        return JobState.of(self.status.state if self.status else None)

    @property
    def invocation(self) -> str | None:
        """The invocation of ours that made it; None for anybody else's."""
        return marked(self.spec.envs)

    def is_named(self, name: str) -> bool:
        """Whether it was submitted under this name: the service makes the id from it."""
        return name in (self.metadata.name, self.id) or self.id.startswith(f"{name}-")


class SeenSpec(Wire):
    """What is read of a job's spec. Not what it runs: that has the runner's source in it, and a list of a thousand."""

    resource_shape: str | None = None
    envs: list[EnvVar] | None = None


class SeenJob(Wire):
    """One job in an answer."""

    metadata: Metadata = field(default_factory=Metadata)
    spec: SeenSpec = field(default_factory=SeenSpec)
    status: JobStatus | None = None

    def job(self) -> Job:
        """It as it is kept."""
        spec = JobSpec(resource_shape=self.spec.resource_shape, envs=self.spec.envs)
        return Job(metadata=self.metadata, spec=spec, status=self.status)


class JobPage(Wire):
    """One page of jobs."""

    jobs: list[SeenJob] = field(default_factory=list)
    total: int | None = None


# --- the workspace ----------------------------------------------------------------------------------------------------


class Amounts(Wire):
    """CPU cores, MB of memory, accelerators."""

    cpu: float | None = None
    memory: float | None = None
    accelerator_num: float | None = None


class Quota(Wire):
    """What a workspace may use, and what it uses."""

    limit: Amounts | None = None
    used: Amounts | None = None


class Features(Wire):
    """Which API a workspace speaks, and how it treats endpoints without tokens."""

    enable_new_deployment_api: bool = False
    enable_secure_endpoint_defaults: bool = False


class Workspace(Wire):
    """The answer of GET /workspace."""

    workspace_name: str | None = None
    workspace_state: str | None = None
    resource_quota: Quota | None = None
    features: Features | None = None


class Description(Wire):
    """The answer of GET on the base URL."""

    display_name: str | None = None


class Token(Wire):
    """A token of the workspace; `expires_at` in milliseconds since 1970."""

    masked_value: str | None = None
    expires_at: int | float | None = None

    def is_of(self, token: str) -> bool:
        """Whether this entry, whose value is `prefix...suffix`, is about this token."""
        head, dots, tail = (self.masked_value or "").partition("...")
        return bool(dots) and bool(head or tail) and token.startswith(head) and token.endswith(tail)


class Volume(Wire):
    """A volume of a node group."""

    kind: str | None = field(name="from", default=None)
    name: str | None = None

    @property
    def source(self) -> str:
        """How a mount names it."""
        return "node-local" if self.kind == "local" else f"node-{self.kind}:{self.name}"


class NodeGroupSpec(Wire):
    """What a node group has."""

    volumes: list[Volume] | None = None


class NodeGroup(Wire):
    """A dedicated node group: names are for people, requests want the id."""

    metadata: Metadata = field(default_factory=Metadata)
    spec: NodeGroupSpec = field(default_factory=NodeGroupSpec)

    @property
    def id(self) -> str:
        """Its id."""
        return self.metadata.id or ""

    @property
    def name(self) -> str:
        """Its name for people."""
        return self.metadata.name or self.id


class ShapeSpec(Wire):
    """What a shape offers."""

    name: str | None = None
    cpu: float | None = None
    memory_in_mb: float | None = None
    accelerator_type: str | None = None
    accelerator_num: float | None = None
    accelerator_fraction: float | None = None


class Shape(Wire):
    """A resource shape."""

    metadata: Metadata = field(default_factory=Metadata)
    spec: ShapeSpec = field(default_factory=ShapeSpec)

    @property
    def id(self) -> str:
        """Its name in requests."""
        return self.metadata.id or self.spec.name or ""


class Secret(Wire):
    """A secret of the workspace, without its value."""

    name: str | None = None


class PullSecret(Wire):
    """Credentials of an image registry, without their values."""

    metadata: Metadata = field(default_factory=Metadata)

    @property
    def name(self) -> str:
        """How an endpoint refers to it."""
        return self.metadata.name or self.metadata.id or ""


class TemplateEntry(Wire):
    """A template as the list of templates has it."""

    metadata: Metadata = field(default_factory=Metadata)

    @property
    def id(self) -> str:
        """Its name in the routes."""
        return self.metadata.id or self.metadata.name or ""


class RenderedSpec(Wire):
    """What of a rendered spec is read. A job has its shape on top, an endpoint below `resource_requirement`."""

    container: Container | None = None
    resource_shape: str | None = None
    shared_memory_size: int | None = None
    resource_requirement: Resources | None = None
    envs: list[EnvVar] | None = None
    mounts: list[Mount] | None = None
    image_pull_secrets: list[str] | None = None


class Rendered(Wire):
    """What a template became."""

    spec: RenderedSpec = field(default_factory=RenderedSpec)

    @property
    def container(self) -> Container:
        """What it runs."""
        return self.spec.container or Container()

    @property
    def shape(self) -> str | None:
        """Its resource shape."""
        return self.spec.resource_shape or (self.spec.resource_requirement or Resources()).resource_shape

    @property
    def shared_memory(self) -> int | None:
        """Size of its /dev/shm in MiB."""
        return self.spec.shared_memory_size or (self.spec.resource_requirement or Resources()).shared_memory_size


class StoredFile(Wire):
    """An entry of a folder in the file storage."""

    type: str | None = None
    name: str | None = None
    path: str | None = None


# --- logs -------------------------------------------------------------------------------------------------------------


class Stream(Wire):
    """Lines of one replica: pairs of nanoseconds since 1970 and text."""

    stream: dict[str, Any] = field(default_factory=dict)
    values: list[tuple[str, ...]] = field(default_factory=list)


class LogData(Wire):
    """The streams of an answer."""

    result: list[Stream] | None = None


class LogAnswer(Wire):
    """The answer of GET /logs, in Loki's shape."""

    data: LogData = field(default_factory=LogData)


def marked(envs: list[EnvVar] | None) -> str | None:
    """The invocation that a list of variables names; None if it has no mark of ours."""
    return next((variable.value for variable in envs or () if variable.name == MARK), None)
