"""What makes two runs measure the same: a versioned digest by which scores that are there already are recognised."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from typing import Any

import msgspec

from launcher.plan.changes import measured
from launcher.plan.model import EndpointPlan, Plan

VERSION = 1
"""Grows whenever the same run would get another digest than before."""


def identity(plan: Plan) -> str:
    """Digest of everything a plan's scores depend on, as far as the config says it, and of the harnesses' versions.

    Model and revision, how it is served, the tasks and each setting that is not operational (launcher.plan.changes).
    """
    return f"{VERSION}:{_digest([measured(plan.config), versions(plan)])}"


def versions(plan: Plan) -> dict[str, str]:
    """Installed versions of the harnesses of a plan, as far as they are installed here; of images their names tell."""
    return {name: _version(name) for name in sorted({task.harness for task in plan.tasks})}


@cache
def _version(harness: str) -> str:
    try:
        return metadata.version(harness.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return ""


def serving(plan: Plan, endpoint: EndpointPlan) -> str:
    """Digest of what is served where: two endpoints of the same can stand for each other."""
    parts = [
        measured({section: plan.config[section] for section in ("execution", "deployment")}),
        endpoint.server.served_name,
        endpoint.shape,
        endpoint.node_group,
        endpoint.mounts,
        endpoint.replicas,
    ]
    return _digest(parts)


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32]
