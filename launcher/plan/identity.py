"""What makes two runs measure the same: a versioned digest by which scores that are there already are recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

import msgspec

from launcher.plan.changes import measured
from launcher.plan.model import EndpointPlan, Plan

VERSION = 2
"""Grows whenever the same run would get another digest than before."""


def identity(plan: Plan, files: Mapping[str, str]) -> str:
    """Digest of everything a plan's scores depend on: what the config says, the harnesses' versions, and files.

    Model and revision, how it is served, the tasks and each setting that is not operational (launcher.plan.changes).
    `files`: digests of what the files hold that the config names; the identity tells them apart.
    """
    marks = sorted(f"{_mark(name)}={digest[:16]}" for name, digest in files.items())
    return f"{VERSION}:{_digest([measured(plan.config), versions(plan)])}:{','.join(marks)}"


def is_of_this_version(identity: str) -> bool:
    """Whether an identity was made as they are made now."""
    return identity.partition(":")[0] == str(VERSION)


def differ_in_files(one: str, other: str) -> bool:
    """Whether two identities of this version differ in nothing but what files hold."""
    return one != other and one.rpartition(":")[0] == other.rpartition(":")[0]


def changed(before: str, files: Mapping[str, str]) -> list[str]:
    """Names of the files that hold something else than an identity says; not of those that are gone."""
    marks = before.rpartition(":")[2].split(",")
    return [name for name, digest in files.items() if f"{_mark(name)}={digest[:16]}" not in marks]


def _mark(name: str) -> str:
    return _digest([name])[:8]


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
