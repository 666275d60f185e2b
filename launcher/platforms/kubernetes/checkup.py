"""Whether the kubeconfig of this machine opens a cluster, and what we may do there. Reads only."""

from __future__ import annotations

import asyncio
from typing import Any

from launcher.config.execution import Kubernetes
from launcher.errors import PreflightError
from launcher.platforms.base import Check, CheckState
from launcher.platforms.http import RequestFailed, RetryPolicy
from launcher.platforms.kubernetes.client import KubeClient, access, host_of
from launcher.platforms.kubernetes.preflight import allowed
from launcher.platforms.kubernetes.rbac import NEEDED


async def check(limit: float) -> Check:
    """The one check, with `limit` seconds for each request."""
    try:
        found = access(Kubernetes())
    except PreflightError as error:
        return Check("kubernetes", CheckState.PROBLEM, str(error).removeprefix("Kubernetes: "))
    client = KubeClient(found, RetryPolicy(deadline=limit, try_timeout=limit))
    where = f"context {found.context}, namespace {found.namespace} at {host_of(found.host)}"
    try:
        version = await client.api.get("/version", dict[str, Any])
        rights = await asyncio.gather(*(allowed(client, right) for right in NEEDED))
    except RequestFailed as error:
        return Check("kubernetes", CheckState.PROBLEM, f"{where}: {error.message or error.status}")
    finally:
        await client.close()
    missing = [str(right) for right, is_allowed in zip(NEEDED, rights, strict=True) if not is_allowed]
    if missing:
        return Check("kubernetes", CheckState.PROBLEM, f"{where}: not allowed: {', '.join(missing)}")
    return Check("kubernetes", CheckState.OK, f"{where}, {version.get('gitVersion', '')}: all rights that a run needs")
