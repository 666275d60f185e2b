"""What the API server says of itself: groups, resources, schemas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from launcher.emulators.kubernetes.kinds import Kind

Json = dict[str, Any]
_TYPES = {"FieldValidation": "fieldValidation", "DryRun": "dryRun"}


def versions() -> Json:
    """Versions of the core group."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups(kinds: Sequence[Kind]) -> Json:
    """The other groups."""
    names = dict.fromkeys(kind.group for kind in kinds if kind.group)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(name) for name in names]}


def group(name: str) -> Json:
    """One group."""
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def resources(kinds: Sequence[Kind], group: str, version: str) -> Json | None:
    """The resources of a group and version."""
    found = [kind for kind in kinds if (kind.group, kind.version) == (group, version)]
    if not found:
        return None
    listed = [entry for kind in found for entry in _entries(kind)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": found[0].api_version,
        "resources": listed,
    }


def _entries(kind: Kind) -> list[Json]:
    base = {"singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
    whole: Json = {**base, "name": kind.plural, "verbs": [*kind.verbs]}
    if kind.short:
        whole["shortNames"] = [*kind.short]
    if kind.categories:
        whole["categories"] = [*kind.categories]
    verbs = {
        "log": ["get"],
        "portforward": ["get", "create"],
        "scale": ["get", "patch", "update"],
        "status": ["get", "patch", "update"],
    }
    parts: list[Json] = [{**base, "name": f"{kind.plural}/{part}", "verbs": verbs[part]} for part in kind.subresources]
    for part in parts:
        if part["name"].endswith("/scale"):
            part |= {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    return [whole, *parts]


def version_info(version: str) -> Json:
    """What /version says."""
    major, minor, _ = version.removeprefix("v").split(".")
    return {"major": major, "minor": minor, "gitVersion": version, "platform": "linux/amd64"}


def openapi_index(kinds: Sequence[Kind]) -> Json:
    """Where the schemas of each group are."""
    paths = dict.fromkeys(kind.path.removeprefix("/") for kind in kinds)
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in paths}}


def openapi(kinds: Sequence[Kind], path: str) -> Json | None:
    """The schema of a group: the kinds with fields of any name, and that fields are validated when objects change."""
    found = [kind for kind in kinds if kind.path.removeprefix("/") == path]
    if not found:
        return None
    options = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _TYPES.values()]
    paths: Json = {}
    schemas: Json = {}
    for kind in found:
        inner = "/namespaces/{namespace}" if kind.namespaced else ""
        whole = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        change = {"x-kubernetes-group-version-kind": whole, "parameters": options, "responses": {}}
        paths[f"{kind.path}{inner}/{kind.plural}"] = {"post": {**change, "x-kubernetes-action": "post"}}
        paths[f"{kind.path}{inner}/{kind.plural}/{{name}}"] = {
            "patch": {**change, "x-kubernetes-action": "patch"},
            "put": {**change, "x-kubernetes-action": "put"},
        }
        schemas[f"io.k8s.{kind.kind}"] = {
            "type": "object",
            "x-kubernetes-group-version-kind": [whole],
            "x-kubernetes-preserve-unknown-fields": True,
        }
    info = {"title": "Kubernetes", "version": "emulated"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
