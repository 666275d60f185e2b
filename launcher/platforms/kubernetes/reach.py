"""Whether this machine knows a cluster, without paying for the client."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from launcher.errors import MissingExtra, PreflightError
from launcher.plan.kubernetes import ACCOUNT, ACCOUNT_VARIABLE


def has_kubeconfig() -> bool:
    """Whether this machine has a kubeconfig."""
    named = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    paths = [Path(part).expanduser() for part in named] or [_home()]
    return any(path.is_file() for path in paths)


def _home() -> Path:
    return Path(os.environ.get("HOME") or "/", ".kube", "config")


def default_file() -> str:
    """Where the kubeconfig is, now: the official client keeps the KUBECONFIG that it was imported with."""
    return os.environ.get("KUBECONFIG") or str(_home())


def account() -> Path:
    """The folder of this pod's service account."""
    return Path(os.environ.get(ACCOUNT_VARIABLE) or ACCOUNT)


def is_inside() -> bool:
    """Whether this process is in a pod that may speak with its cluster."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (account() / "token").is_file()


def find() -> None:
    """Raises PreflightError where there is no cluster, MissingExtra where there is no client for one."""
    if not has_kubeconfig() and not is_inside():
        raise PreflightError("Kubernetes: no cluster; set KUBECONFIG, or log in so that ~/.kube/config is written")
    if find_spec("kubernetes") is None:
        raise MissingExtra("the Kubernetes client", "kubernetes")
