"""The two shapes in which workspaces speak of endpoints: legacy `/deployments` and new `/endpoints`.

The rest of the launcher knows one model of an endpoint (launcher/platforms/lepton/types.py); a family brings it to the
wire and back, and knows how a PATCH is merged there.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from msgspec import field

from launcher.decoding import decode
from launcher.platforms.http import Document
from launcher.platforms.lepton.types import (
    Address,
    Affinity,
    ApiToken,
    AutoScaler,
    Container,
    ContainerPort,
    Endpoint,
    EndpointSpec,
    EndpointStatus,
    EnvVar,
    Health,
    Logging,
    Metadata,
    Metrics,
    Mount,
    Queue,
    Resources,
    Routing,
    ScaleDown,
    Throughput,
    Wire,
)

REDACTED = "***"
"""What the service shows in place of a token. Sent back, it would become the token."""


class Family(Protocol):
    """One of the two shapes."""

    path: str
    """Route of the collection."""
    log_parameter: str
    """Parameter of GET /logs that names an endpoint."""
    tells_readiness: bool
    """Whether /readiness and /termination exist; else only /events say what is wrong."""

    def encode(self, endpoint: Endpoint) -> Any:
        """The document of an endpoint to create, ready for JSON."""
        ...

    def decode(self, document: Document) -> Endpoint:
        """An endpoint from its document. Raises msgspec.DecodeError."""
        ...

    def decode_list(self, document: Document) -> list[Endpoint]:
        """Endpoints from the document of their list. Raises msgspec.DecodeError."""
        ...

    def scaling(self, endpoint: Endpoint, replicas: int) -> Any:
        """The PATCH that gives an endpoint, as the service shows it, this many replicas."""
        ...


class Legacy:
    """`/deployments`: PATCH is a deep merge."""

    path = "/deployments"
    log_parameter = "deployment"
    tells_readiness = True

    def encode(self, endpoint: Endpoint) -> Any:
        """The document of an endpoint to create, ready for JSON."""
        return msgspec.to_builtins(endpoint)

    def decode(self, document: Document) -> Endpoint:
        """An endpoint from its document. Raises msgspec.DecodeError."""
        return decode(document, Endpoint, strict=False)

    def decode_list(self, document: Document) -> list[Endpoint]:
        """Endpoints from the document of their list. Raises msgspec.DecodeError."""
        return decode(document, list[Endpoint], strict=False)

    def scaling(self, endpoint: Endpoint, replicas: int) -> Any:  # noqa: ARG002  what is not named stays as it is
        """The PATCH that gives an endpoint this many replicas; with none, nothing may wake it up again."""
        bounds = {"min_replicas": replicas, "max_replicas": replicas}
        patch: dict[str, Any] = {"resource_requirement": bounds}
        if replicas == 0:
            patch["auto_scaler"] = msgspec.to_builtins(_ASLEEP)
        return {"spec": patch}


_ASLEEP = AutoScaler(
    scale_down=ScaleDown(no_traffic_timeout=0),
    target_gpu_utilization_percentage=0,
    target_throughput=Throughput(qpm=0.0),
)
"""The service refuses zero replicas while a target asks for some."""


class Component(Wire):
    """What runs in an endpoint; we make one, called `default`."""

    name: str = ""
    image: str | None = None
    command: list[str] | None = None
    ports: list[ContainerPort] | None = None
    envs: list[EnvVar] | None = None
    mounts: list[Mount] | None = None
    resource_shape: str | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    shared_memory_size: int | None = None
    autoscaling: AutoScaler | None = None
    affinity: Affinity | None = None
    queue_config: Queue | None = None
    health: Health | None = None


class LeptonMetadata(Wire):
    """What the new family keeps apart from the name."""

    owner: str | None = None
    created_by: str | None = None
    visibility: str | None = None


class NewMetadata(Wire):
    """Identity; there are no labels."""

    name: str | None = None
    id: str | None = None
    created_at: int | float | None = None
    semantic_version: str | None = None
    lepton_metadata: LeptonMetadata | None = None


class NewSpec(Wire):
    """What an endpoint shall be."""

    components: list[Component] = field(default_factory=list)
    api_tokens: list[ApiToken] | None = None
    allow_unauthenticated_access: bool | None = None
    routing_policy: Routing | None = None
    log: Logging | None = None
    metrics: Metrics | None = None
    image_pull_secrets: list[str] | None = None


class NewStatus(Wire):
    """What an endpoint is."""

    state: str | None = None
    external_url: str | None = None
    ready_replicas: int | None = None


class NewEndpoint(Wire):
    """One endpoint in the new shape."""

    metadata: NewMetadata = field(default_factory=NewMetadata)
    spec: NewSpec = field(default_factory=NewSpec)
    status: NewStatus | None = None


class New:
    """`/endpoints`: PATCH is a merge patch, in which the array of components is replaced whole."""

    path = "/endpoints"
    log_parameter = "endpoint"
    tells_readiness = False

    def encode(self, endpoint: Endpoint) -> Any:
        """The document of an endpoint to create, ready for JSON."""
        return msgspec.to_builtins(_to_new(endpoint))

    def decode(self, document: Document) -> Endpoint:
        """An endpoint from its document. Raises msgspec.DecodeError."""
        return _from_new(decode(document, NewEndpoint, strict=False))

    def decode_list(self, document: Document) -> list[Endpoint]:
        """Endpoints from the document of their list. Raises msgspec.DecodeError."""
        return [_from_new(found) for found in decode(document, list[NewEndpoint], strict=False)]

    def scaling(self, endpoint: Endpoint, replicas: int) -> Any:
        """The PATCH that gives an endpoint this many replicas. Tokens are left out: their values are not shown."""
        component = _component(endpoint.spec)
        component.min_replicas = component.max_replicas = replicas
        if replicas == 0:
            component.autoscaling = _ASLEEP
        return {"spec": {"components": [msgspec.to_builtins(component)]}}


def _to_new(endpoint: Endpoint) -> NewEndpoint:
    metadata, spec = endpoint.metadata, endpoint.spec
    return NewEndpoint(
        metadata=NewMetadata(name=endpoint.name, lepton_metadata=LeptonMetadata(visibility=metadata.visibility)),
        spec=NewSpec(
            components=[_component(spec)],
            api_tokens=_sendable(spec.api_tokens),
            allow_unauthenticated_access=spec.allow_unauthenticated_access,
            routing_policy=spec.routing_policy,
            log=spec.log,
            metrics=spec.metrics,
            image_pull_secrets=spec.image_pull_secrets,
        ),
    )


def _sendable(tokens: list[ApiToken] | None) -> list[ApiToken] | None:
    return None if tokens is None else [token for token in tokens if token.value != REDACTED]


def _component(spec: EndpointSpec) -> Component:
    container, resources = spec.container or Container(), spec.resource_requirement or Resources()
    return Component(
        name="default",
        image=container.image,
        command=container.command,
        ports=container.ports,
        envs=spec.envs,
        mounts=spec.mounts,
        resource_shape=resources.resource_shape,
        min_replicas=resources.min_replicas,
        max_replicas=resources.max_replicas,
        shared_memory_size=resources.shared_memory_size,
        autoscaling=spec.auto_scaler,
        affinity=resources.affinity,
        queue_config=spec.queue_config,
        health=spec.health,
    )


def _from_new(found: NewEndpoint) -> Endpoint:
    metadata, status = found.metadata, found.status or NewStatus()
    own = metadata.lepton_metadata or LeptonMetadata()
    return Endpoint(
        metadata=Metadata(
            id=metadata.id or metadata.name,
            name=metadata.name,
            created_at=metadata.created_at,
            semantic_version=metadata.semantic_version,
            created_by=own.created_by,
            owner=own.owner,
            visibility=own.visibility,
        ),
        spec=_spec(found.spec),
        status=EndpointStatus(
            state=status.state,
            endpoint=Address(external_endpoint=status.external_url),
            ready_replicas=status.ready_replicas,
        ),
    )


def _spec(spec: NewSpec) -> EndpointSpec:
    component = spec.components[0] if spec.components else Component()
    return EndpointSpec(
        container=Container(image=component.image, command=component.command, ports=component.ports),
        resource_requirement=Resources(
            resource_shape=component.resource_shape,
            shared_memory_size=component.shared_memory_size,
            affinity=component.affinity,
            min_replicas=component.min_replicas,
            max_replicas=component.max_replicas,
        ),
        auto_scaler=component.autoscaling,
        api_tokens=spec.api_tokens,
        envs=component.envs,
        mounts=component.mounts,
        image_pull_secrets=spec.image_pull_secrets,
        health=component.health,
        log=spec.log,
        metrics=spec.metrics,
        routing_policy=spec.routing_policy,
        queue_config=component.queue_config,
        allow_unauthenticated_access=spec.allow_unauthenticated_access,
    )


__all__ = ["Component", "Family", "Legacy", "New"]
