"""A schedule as a CronJob of Kubernetes (batch/v1, time zones since 1.27), to be given to `kubectl apply -f -`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from launcher.schedule import times
from launcher.schedule.model import Definition
from launcher.schedule.places import mark

_STATE, _FOLDER = "/state", "/etc/nv-eval"
_OLDEST_START = 3600
"""Seconds after its time at which a job is still begun: `schedule fire` decides itself about late ones."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where it is to run. `claim`: of the volume for state and results; `secrets`: their keys become variables."""

    image: str
    claim: str
    namespace: str = "default"
    secrets: tuple[str, ...] = ()


def manifest(definition: Definition, cluster: Cluster) -> str:
    """YAML of a ConfigMap that holds the schedule and of the CronJob that calls it."""
    return yaml.safe_dump_all(documents(definition, cluster), sort_keys=False, width=120)


def documents(definition: Definition, cluster: Cluster) -> list[dict[str, Any]]:
    """The two objects."""
    name = mark(definition.name)
    about = {"name": name, "namespace": cluster.namespace, "labels": {"app.kubernetes.io/name": "nv-eval"}}
    held = {"schedule.json": msgspec.json.encode(definition).decode()}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": held},
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": about, "spec": _spec(definition, cluster, name)},
    ]


def _spec(definition: Definition, cluster: Cluster, name: str) -> dict[str, Any]:
    return {
        "schedule": times.parse(definition.cron, definition.timezone).moments().cron,
        "timeZone": definition.timezone,
        "concurrencyPolicy": "Allow" if definition.allow_overlap else "Forbid",
        "startingDeadlineSeconds": _OLDEST_START,
        "jobTemplate": {"spec": {"backoffLimit": 0, "template": {"spec": _pod(definition, cluster, name)}}},
    }


def _pod(definition: Definition, cluster: Cluster, name: str) -> dict[str, Any]:
    container = {
        "name": "nv-eval",
        "image": cluster.image,
        "command": ["nv-eval", "schedule", "fire", definition.name, "--from", f"{_FOLDER}/schedule.json"],
        "env": [{"name": "NV_EVAL_HOME", "value": _STATE}],
        "envFrom": [{"secretRef": {"name": secret}} for secret in cluster.secrets],
        "workingDir": _STATE,
        "volumeMounts": [{"name": "state", "mountPath": _STATE}, {"name": "schedule", "mountPath": _FOLDER}],
    }
    return {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [
            {"name": "state", "persistentVolumeClaim": {"claimName": cluster.claim}},
            {"name": "schedule", "configMap": {"name": name}},
        ],
    }
