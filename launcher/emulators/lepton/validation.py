"""What the control plane checks before it accepts a spec. Every refusal is an ApiError 400."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from launcher.emulators.lepton.config import Config
from launcher.emulators.lepton.errors import ApiError, Code
from launcher.emulators.lepton.wire import EndpointSpec, EnvVar, JobSpec, Mount, TokenVar

NAME_LENGTH = 36
REDACTED = "***"
"""Stands for a token in answers; never a token in requests."""
RESERVED_ENVS = {
    "LEPTON_WORKSPACE_ID",
    "LEPTON_DEPLOYMENT_NAME",
    "LEPTON_JOB_NAME",
    "LEPTON_RESOURCE_ACCELERATOR_TYPE",
    "LEPTON_WORKSPACE_ORIGIN_URL",
}
SYSTEM_FOLDERS = {
    "/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/media", "/opt", "/proc", "/proc/bus", "/proc/sys", "/run",
    "/sbin", "/srv", "/sys", "/sys/fs/cgroup", "/sys/kernel/security", "/usr", "/usr/bin", "/usr/lib", "/usr/local",
    "/usr/sbin", "/var",
}  # fmt: skip


def invalid(message: str) -> ApiError:
    """400 for a spec that is not valid."""
    return ApiError(400, Code.VALIDATION, message)


def check_name(name: str) -> None:
    """Rules for names of endpoints and jobs."""
    if len(name) > NAME_LENGTH or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise invalid(f"invalid name {name!r}: at most {NAME_LENGTH} of a-z, 0-9 and -, beginning with a letter")


def check_labels(labels: Mapping[str, str] | None) -> None:
    """Rules for label keys."""
    for key in labels or {}:
        if len(key) > 63 or not re.fullmatch(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", key):
            raise invalid(f"invalid label key {key!r}")


def check_spec(
    spec: EndpointSpec | JobSpec, config: Config, secrets: AbstractSet[str], pull_secrets: AbstractSet[str]
) -> None:
    """Everything that endpoints and jobs have in common. `secrets` and `pull_secrets` are the names that exist."""
    _check_place(spec.shape, spec.node_groups, config)
    _check_envs(spec.envs or ())
    _check_mounts(spec.mounts or (), spec.node_groups, config)
    if config.refuse_unknown_secrets:
        for env in spec.envs or ():
            if env.secret is not None and env.secret not in secrets:
                raise invalid(f"secret {env.secret} not found")
        for name in spec.image_pull_secrets or ():
            if name not in pull_secrets:
                raise invalid(f"image pull secret {name} not found")


def check_endpoint(spec: EndpointSpec) -> None:
    """What only endpoints have."""
    resources = spec.resource_requirement
    if resources.max_replicas is not None and resources.max_replicas < spec.replicas:
        raise invalid("max_replicas must not be smaller than min_replicas")
    check_tokens(spec.api_tokens or ())
    if spec.allow_unauthenticated_access and spec.api_tokens:
        raise invalid("allow_unauthenticated_access cannot be combined with api_tokens")


def check_tokens(tokens: Sequence[TokenVar]) -> None:
    """Rules for api_tokens."""
    for token in tokens:
        if token.value == REDACTED:
            raise invalid(f"{REDACTED!r} is not a token")
        if token.value is None and token.value_from is None:
            raise invalid("an api token needs value or value_from")


def _check_place(shape: str, groups: Sequence[str], config: Config) -> None:
    if config.shape(shape) is None:
        raise invalid(f"resource shape {shape} not found")
    for id in groups:
        group = config.node_group(id)
        if group is None:
            raise invalid(f"dedicated node group {id} not found")
        if group.shapes and shape not in group.shapes:
            raise invalid(f"resource shape {shape} is not available in node group {id}")


def _check_envs(envs: Sequence[EnvVar]) -> None:
    for env in envs:
        if not re.fullmatch(r"[A-Za-z._-][\w.-]*", env.name):
            raise invalid(f"invalid environment variable name {env.name!r}")
        if env.name in RESERVED_ENVS:
            raise invalid(f"environment variable {env.name} is reserved")


def _check_mounts(mounts: Sequence[Mount], groups: Sequence[str], config: Config) -> None:
    chosen = [group for group in config.node_groups if not groups or group.id in groups]
    sources = {volume.source for group in chosen for volume in group.volumes} | {"node-local"}
    for mount in mounts:
        if not mount.mount_path.startswith("/"):
            raise invalid(f"mount path {mount.mount_path!r} is not absolute")
        if posixpath.normpath(mount.mount_path) in SYSTEM_FOLDERS:
            raise invalid(f"mount path {mount.mount_path} is a system folder")
        if ".." in (mount.path or "").split("/"):
            raise invalid(f"mount source {mount.path} must not contain '..'")
        if mount.source is not None and mount.source not in sources:
            raise invalid(f"volume {mount.source} not found in the node group")
