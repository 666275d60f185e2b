"""The rights that a run needs in its namespace, and manifests that give exactly them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launcher.plan.kubernetes import ACCOUNT, ACCOUNT_VARIABLE

Json = dict[str, Any]

RUNS_AS = "nv-eval"
"""Service account that the printed manifest makes for supervisors of runs."""


@dataclass(frozen=True)
class Right:
    """One verb on one kind."""

    verb: str
    group: str
    resource: str
    only_with_claim: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


def _rights(group: str, resource: str, *verbs: str, only_with_claim: bool = False) -> tuple[Right, ...]:
    return tuple(Right(verb, group, resource, only_with_claim) for verb in verbs)


NEEDED = (
    *_rights("", "configmaps", "create", "get", "list", "patch", "delete"),
    *_rights("", "secrets", "create", "get"),
    *_rights("", "services", "create", "get"),
    *_rights("", "pods", "list", "watch"),
    *_rights("", "pods", "create", "get", "delete", only_with_claim=True),
    *_rights("", "pods/log", "get"),
    *_rights("", "events", "list"),
    *_rights("apps", "deployments", "create", "get", "list", "watch", "delete"),
    *_rights("batch", "jobs", "create", "get", "list", "watch", "delete"),
)
"""What a run does. What preflight further looks at, as nodes and quotas, it goes without if it may not."""
SETS = _rights("leaderworkerset.x-k8s.io", "leaderworkersets", "create", "get", "list", "watch", "delete")
"""What a run does beside whose endpoints have several nodes."""
FORWARDING = _rights("", "pods/portforward", "get", "create")
"""What `nv-eval endpoints up` needs beside, outside the cluster."""
ROUTING = _rights("gateway.networking.k8s.io", "httproutes", "create", "get")
"""The same where a Gateway leads to endpoints."""
COLLECTING = (
    *_rights("", "configmaps", "list", "delete"),
    *_rights("", "pods", "list"),
    *_rights("apps", "deployments", "list", "delete"),
    *_rights("batch", "jobs", "list", "delete"),
    *_rights("leaderworkerset.x-k8s.io", "leaderworkersets", "list", "delete"),
)
"""What `nv-eval gc` does."""


def rules(rights: tuple[Right, ...]) -> list[Json]:
    """Rights as the rules of a role: one for each kind."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for right in rights:
        verbs.setdefault((right.group, right.resource), []).append(right.verb)
    return [{"apiGroups": [g], "resources": [r], "verbs": list(dict.fromkeys(v))} for (g, r), v in verbs.items()]


def role(name: str, namespace: str, rights: tuple[Right, ...]) -> list[Json]:
    """A service account with a role."""
    metadata = {"name": name, "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": rules(rights),
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": [subject],
        },
    ]


def manifests(namespace: str) -> list[Json]:
    """All that a namespace needs: the role of a run, and a collector that removes what has expired each quarter."""
    return [
        *role(RUNS_AS, namespace, (*NEEDED, *SETS)),
        *role("nv-eval-gc", namespace, COLLECTING),
        _collector(namespace),
    ]


def _collector(namespace: str) -> Json:
    install = "python3 -c 'import launcher' 2>/dev/null || pip install --quiet 'nv-eval-launcher[kubernetes]' || exit 1"
    command = f"{install}\nexec python3 -m launcher.cli.main gc --place kubernetes --yes --older-than never"
    container: Json = {"name": "gc", "image": "python:3.11-slim", "command": ["/bin/sh", "-c", command]}
    container["env"] = [{"name": ACCOUNT_VARIABLE, "value": ACCOUNT}]
    pod = {"serviceAccountName": "nv-eval-gc", "restartPolicy": "Never", "containers": [container]}
    job = {"backoffLimit": 0, "activeDeadlineSeconds": 600, "ttlSecondsAfterFinished": 3600, "template": {"spec": pod}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "nv-eval-gc", "namespace": namespace},
        "spec": {"schedule": "*/15 * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job}},
    }
