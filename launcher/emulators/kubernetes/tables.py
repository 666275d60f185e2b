"""Objects as the rows that kubectl prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from launcher.emulators.kubernetes.kinds import DEPLOYMENTS, EVENTS, JOBS, PODS, SERVICES, Kind

Json = dict[str, Any]
Row = Callable[[Json], list[Any]]


def table(kind: Kind, things: Sequence[Json], age: Callable[[Json], float], version: str) -> Json:
    """A Table."""
    titles, row = _ROWS.get(kind, ((), lambda _: []))
    columns = [("Name", "string"), *((title, "string") for title in titles), ("Age", "string")]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {"name": name, "type": type_, "format": "name" if name == "Name" else "", "description": "", "priority": 0}
            for name, type_ in columns
        ],
        "rows": [
            {
                "cells": [thing["metadata"]["name"], *row(thing), _duration(age(thing))],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": thing["metadata"],
                },
            }
            for thing in things
        ],
    }


def _pod(pod: Json) -> list[Any]:
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    word = status.get("reason") or status.get("phase", "Pending")
    for container in containers:
        state = container["state"]
        word = next(
            (s["reason"] for s in (state.get("waiting"), state.get("terminated")) if s and s.get("reason")), word
        )
    if pod["metadata"].get("deletionTimestamp"):
        word = "Terminating"
    ready = sum(container["ready"] for container in containers)
    return [f"{ready}/{len(pod['spec']['containers'])}", word, str(sum(c["restartCount"] for c in containers))]


def _deployment(thing: Json) -> list[Any]:
    status, wanted = thing.get("status") or {}, thing["spec"].get("replicas", 1)
    ready = f"{status.get('readyReplicas', 0)}/{wanted}"
    return [ready, str(status.get("updatedReplicas", 0)), str(status.get("availableReplicas", 0))]


def _job(thing: Json) -> list[Any]:
    status = thing.get("status") or {}
    ended = [c["type"] for c in status.get("conditions", ())]
    return [ended[-1] if ended else "Running", f"{status.get('succeeded', 0)}/{thing['spec'].get('completions', 1)}"]


def _service(thing: Json) -> list[Any]:
    spec = thing["spec"]
    ports = ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in spec.get("ports", ()))
    return [spec.get("type", "ClusterIP"), spec.get("clusterIP", "None"), ports]


def _event(thing: Json) -> list[Any]:
    about = thing["involvedObject"]
    return [thing["type"], thing["reason"], f"{about['kind'].lower()}/{about['name']}", thing["message"]]


_ROWS: dict[Kind, tuple[tuple[str, ...], Row]] = {
    PODS: (("Ready", "Status", "Restarts"), _pod),
    DEPLOYMENTS: (("Ready", "Up-to-date", "Available"), _deployment),
    JOBS: (("Status", "Completions"), _job),
    SERVICES: (("Type", "Cluster-IP", "Port(s)"), _service),
    EVENTS: (("Type", "Reason", "Object", "Message"), _event),
}


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.0f}h"
