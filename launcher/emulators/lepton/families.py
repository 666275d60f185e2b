"""The two endpoint families: the legacy document, which the emulator keeps, and the new one with components."""

from __future__ import annotations

from launcher.emulators.lepton.errors import ApiError, Code
from launcher.emulators.lepton.validation import invalid
from launcher.emulators.lepton.wire import Json

_CONTAINER = ("image", "command", "ports")
_RESOURCES = (
    "resource_shape",
    "min_replicas",
    "max_replicas",
    "shared_memory_size",
    "affinity",
    "host_network",
)
_COMPONENT = {
    "envs": "envs",
    "mounts": "mounts",
    "storage_attachments": "storage_attachments",
    "autoscaling": "auto_scaler",
    "scheduling_policy": "scheduling_policy",
    "queue_config": "queue_config",
    "reservation_config": "reservation_config",
    "health": "health",
    "user_security_context": "user_security_context",
}
_SPEC = {
    "ingress_enabled": "ingress_enabled",
    "ingress_timeout_seconds": "ingress_timeout_seconds",
    "allow_unauthenticated_access": "allow_unauthenticated_access",
    "access_config": "auth_config",
    "api_tokens": "api_tokens",
    "routing_policy": "routing_policy",
    "load_balancing": "load_balance_config",
    "log": "log",
    "metrics": "metrics",
    "image_pull_secrets": "image_pull_secrets",
}
_STATES = {"Not Ready": "NotReady", "Restarting": "Updating"}


def to_new(legacy: Json) -> Json:
    """A legacy spec in the new family."""
    resources = legacy.get("resource_requirement", {})
    component = {"name": "default", **_present(legacy.get("container", {}), {key: key for key in _CONTAINER})}
    component |= _present(resources, {key: key for key in _RESOURCES})
    component |= _present(legacy, {old: new for new, old in _COMPONENT.items()})
    component.setdefault("min_replicas", 1)
    return {"components": [component], **_present(legacy, {old: new for new, old in _SPEC.items()})}


def to_legacy(new: Json) -> Json:
    """A spec of the new family in the legacy one. Raises ApiError 400 for what cannot be said there."""
    components = new.get("components")
    if not isinstance(components, list) or len(components) != 1 or not isinstance(components[0], dict):
        raise invalid("spec.components must be one component (the emulator serves no split front end)")
    component: Json = components[0]
    if not component.get("resource_shape"):
        raise invalid("spec.components[0].resource_shape is required")
    legacy = {**_present(component, _COMPONENT), **_present(new, _SPEC)}
    legacy["container"] = _present(component, {key: key for key in _CONTAINER})
    legacy["resource_requirement"] = _present(component, {key: key for key in _RESOURCES})
    return legacy


def new_metadata(legacy: Json) -> Json:
    """Metadata in the new family, which has no labels."""
    top = ("name", "id", "created_at", "version", "semantic_version")
    inner = ("owner", "visibility", "created_by", "last_modified_by", "last_modified_at")
    return {
        **_present(legacy, {key: key for key in top}),
        "resource_version": str(legacy["version"]),
        "lepton_metadata": _present(legacy, {key: key for key in inner}),
    }


def legacy_metadata(new: Json) -> Json:
    """Metadata of the new family in the legacy one."""
    inner = new.get("lepton_metadata") or {}
    return {**_present(new, {"name": "name", "id": "id"}), **_present(inner, {"visibility": "visibility"})}


def new_state(phase: str) -> str:
    """A phase as the new family's state."""
    return _STATES.get(phase, phase)


def check_scaling(new: Json) -> None:
    """No scaling to zero while a target needs replicas. Raises ApiError 400."""
    for component in new.get("components", ()):
        scaling = component.get("autoscaling") or {}
        qpm = (scaling.get("target_throughput") or {}).get("qpm")
        if component.get("min_replicas") == 0 and (qpm or scaling.get("target_gpu_utilization_percentage")):
            raise ApiError(400, Code.VALIDATION, "min_replicas must be at least 1 with a utilization or qpm target")


def _present(source: Json, names: dict[str, str]) -> Json:
    return {new: source[old] for old, new in names.items() if source.get(old) is not None}
