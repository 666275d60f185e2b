"""The kinds that the emulated cluster serves."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind. `columns`: what a table of it shows beside its name and age, as (title, path below the object)."""

    group: str
    version: str
    kind: str
    plural: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """As manifests have it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As messages have it: `deployments.apps`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def path(self) -> str:
        """Base path of its group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def _core(kind: str, plural: str, *short: str, namespaced: bool = True, sub: tuple[str, ...] = ()) -> Kind:
    everywhere = ("all",) if kind in ("Pod", "Service") else ()
    return Kind(
        group="",
        version="v1",
        kind=kind,
        plural=plural,
        short=short,
        namespaced=namespaced,
        subresources=sub,
        categories=everywhere,
    )


def _of(group: str, kind: str, plural: str, *short: str, sub: tuple[str, ...] = (), namespaced: bool = True) -> Kind:
    everywhere = ("all",) if group in ("apps", "batch") else ()
    return Kind(
        group=group,
        version="v1",
        kind=kind,
        plural=plural,
        short=short,
        namespaced=namespaced,
        subresources=sub,
        categories=everywhere,
    )


def _review(kind: str, plural: str) -> Kind:
    return Kind(
        group="authorization.k8s.io", version="v1", kind=kind, plural=plural, namespaced=False, verbs=("create",)
    )


PODS = _core("Pod", "pods", "po", sub=("status", "log", "portforward"))
NODES = _core("Node", "nodes", "no", namespaced=False, sub=("status",))
SERVICES = _core("Service", "services", "svc", sub=("status",))
EVENTS = _core("Event", "events", "ev")
CONFIG_MAPS = _core("ConfigMap", "configmaps", "cm")
SECRETS = _core("Secret", "secrets")
NAMESPACES = _core("Namespace", "namespaces", "ns", namespaced=False, sub=("status",))
CLAIMS = _core("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", sub=("status",))
QUOTAS = _core("ResourceQuota", "resourcequotas", "quota", sub=("status",))
ACCOUNTS = _core("ServiceAccount", "serviceaccounts", "sa")
DEPLOYMENTS = _of("apps", "Deployment", "deployments", "deploy", sub=("status", "scale"))
REPLICA_SETS = _of("apps", "ReplicaSet", "replicasets", "rs", sub=("status", "scale"))
JOBS = _of("batch", "Job", "jobs", sub=("status",))
CRON_JOBS = _of("batch", "CronJob", "cronjobs", "cj", sub=("status",))
ROLES = _of("rbac.authorization.k8s.io", "Role", "roles")
BINDINGS = _of("rbac.authorization.k8s.io", "RoleBinding", "rolebindings")
GATEWAYS = _of("gateway.networking.k8s.io", "Gateway", "gateways", "gtw", sub=("status",))
HTTP_ROUTES = _of("gateway.networking.k8s.io", "HTTPRoute", "httproutes", sub=("status",))
LEADER_WORKER_SETS = _of("leaderworkerset.x-k8s.io", "LeaderWorkerSet", "leaderworkersets", "lws", sub=("status",))
SELF_REVIEWS = _review("SelfSubjectAccessReview", "selfsubjectaccessreviews")

ALL = (
    PODS,
    NODES,
    SERVICES,
    EVENTS,
    CONFIG_MAPS,
    SECRETS,
    NAMESPACES,
    CLAIMS,
    QUOTAS,
    ACCOUNTS,
    DEPLOYMENTS,
    REPLICA_SETS,
    JOBS,
    CRON_JOBS,
    ROLES,
    BINDINGS,
    GATEWAYS,
    HTTP_ROUTES,
    LEADER_WORKER_SETS,
    SELF_REVIEWS,
)
EXTENSIONS = (GATEWAYS.group, LEADER_WORKER_SETS.group)
"""Groups that a cluster may lack."""
BY_KIND = {(kind.api_version, kind.kind): kind for kind in ALL}


def served(extensions: Collection[str]) -> tuple[Kind, ...]:
    """The kinds of a cluster that has these extensions."""
    return tuple(kind for kind in ALL if kind.group not in EXTENSIONS or kind.group in extensions)


def find(kinds: Iterable[Kind], group: str, version: str, plural: str) -> Kind | None:
    """The kind of a path."""
    return next((k for k in kinds if (k.group, k.version, k.plural) == (group, version, plural)), None)
