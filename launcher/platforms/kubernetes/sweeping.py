"""Everything of ours in a namespace, of any invocation, and its removal."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from launcher.plan.groups import API
from launcher.plan.kubernetes import INVOCATION, KIND, MANAGED_BY, MARK, OWNER, SUPERVISOR, anchor_name, supervisor_name
from launcher.platforms.base import Leftover, ResourceState
from launcher.platforms.http import RequestFailed
from launcher.platforms.kubernetes import states
from launcher.platforms.kubernetes.anchor import expires
from launcher.platforms.kubernetes.client import KubeClient
from launcher.platforms.kubernetes.things import age

Json = dict[str, Any]
OURS = f"{MANAGED_BY}={MARK}"
FORBIDDEN = 403
_PLURALS = {"endpoint": "deployments", "job": "jobs"}


async def sweep(client: KubeClient, invocation: str) -> list[Leftover]:
    """What invocations whose id begins with `invocation` have in the namespace. Raises RequestFailed."""
    anchors, deployments, jobs, pods, sets = await asyncio.gather(
        client.every("configmaps", labels=f"{OURS},{KIND}=anchor"),
        client.every("deployments", labels=OURS),
        client.every("jobs", labels=OURS),
        client.every("pods", labels=OURS),
        _sets(client, OURS),
    )
    until = {_invocation(one): expires(one) for one in anchors}
    found = [_leftover("endpoint", one, pods, until) for one in (*deployments, *sets)]
    found += [_leftover("job", one, pods, until) for one in jobs]
    supervised = {_invocation(one) for one in jobs if _supervises(one, until)}
    found = [replace(left, launcher_alive=True) if left.invocation in supervised else left for left in found]
    busy = {left.invocation for left in found}
    found += [_anchor(one, until) for one in anchors if _invocation(one) not in busy]
    return [left for left in found if left.invocation and left.invocation.startswith(invocation)]


async def _sets(client: KubeClient, labels: str) -> list[Json]:
    """Endpoints over several nodes, where the cluster knows such.

    Who may not list them has made none, and those of others go with their anchor, which is listed in any case.
    """
    if not await client.has_group(API):
        return []
    try:
        return await client.every("leaderworkersets", labels=labels)
    except RequestFailed as error:
        if error.status == FORBIDDEN:
            return []
        raise


async def remove(client: KubeClient, leftover: Leftover) -> None:
    """Ask for its removal; with the last thing of an invocation its anchor goes, too. Raises RequestFailed.

    With a supervisor goes everything at once: it would make again what is taken from it.
    """
    if leftover.name == supervisor_name(leftover.invocation):
        await client.delete("configmaps", anchor_name(leftover.invocation), foreground=False)
    if leftover.kind in _PLURALS:
        was_there = await client.delete(_PLURALS[leftover.kind], leftover.name, uid=leftover.id)
        if not was_there and leftover.kind == "endpoint" and await client.has_group(API):
            await client.delete("leaderworkersets", leftover.name, uid=leftover.id)
    await remove_anchor(client, leftover.invocation)


async def remove_anchor(client: KubeClient, invocation: str) -> bool:
    """Delete the anchor of an invocation that has nothing else, or only what is on its way out; whether it goes."""
    labels = f"{OURS},{INVOCATION}={invocation}"
    kinds = [client.every(plural, labels=labels) for plural in ("deployments", "jobs")]
    rest = await asyncio.gather(*kinds, _sets(client, labels))
    if any(not states.is_leaving(one) and not _has_supervised(one) for found in rest for one in found):
        return False
    return await client.delete("configmaps", anchor_name(invocation), foreground=False)


def _supervises(job: Json, until: dict[str, float | None]) -> bool:
    """Whether it is the Job of a supervisor that may run, of an invocation that has not expired."""
    is_one = (job["metadata"].get("labels") or {}).get(KIND) == SUPERVISOR
    when, now = until.get(_invocation(job)), time.time()
    return is_one and not states.is_leaving(job) and not _has_supervised(job) and when is not None and when > now


def _has_supervised(thing: Json) -> bool:
    """Whether it is the Job of a supervisor that has ended."""
    is_one = (thing["metadata"].get("labels") or {}).get(KIND) == SUPERVISOR
    return is_one and any(states.condition(thing, how) is not None for how in ("Complete", "Failed"))


def _leftover(kind: Any, thing: Json, pods: list[Json], until: dict[str, float | None]) -> Leftover:
    metadata, invocation = thing["metadata"], _invocation(thing)
    own = [p for p in pods if (p["metadata"].get("labels") or {}).get("nv-eval/name") == metadata["name"]]
    when = until.get(invocation)
    ended = kind == "job" and not own
    return Leftover(
        kind=kind,
        name=metadata["name"],
        invocation=invocation,
        id=metadata["uid"],
        state=_state(thing, own),
        said="deleting" if states.is_leaving(thing) else _word(thing, own),
        age=age(thing),
        expires_in=None if when is None else when - time.time(),
        expiry_is_ours=when is not None,
        usd_per_hour=0.0 if ended else None,
        owner=(metadata.get("labels") or {}).get(OWNER, ""),
    )


def _anchor(thing: Json, until: dict[str, float | None]) -> Leftover:
    when = until.get(_invocation(thing))
    return Leftover(
        kind="network",
        name=thing["metadata"]["name"],
        invocation=_invocation(thing),
        id=thing["metadata"]["uid"],
        said="anchor of an invocation",
        age=age(thing),
        expires_in=None if when is None else when - time.time(),
        expiry_is_ours=when is not None,
        usd_per_hour=0.0,
        owner=(thing["metadata"].get("labels") or {}).get(OWNER, ""),
    )


def _invocation(thing: Json) -> str:
    return str((thing["metadata"].get("labels") or {}).get(INVOCATION, ""))


def _state(thing: Json, pods: list[Json]) -> ResourceState:
    if states.condition(thing, "Complete") is not None:
        return ResourceState.SUCCEEDED
    if states.condition(thing, "Failed") is not None:
        return ResourceState.FAILED
    runs = any((pod.get("status") or {}).get("phase") == "Running" for pod in pods)
    return ResourceState.RUNNING if runs else ResourceState.PENDING


def _word(thing: Json, pods: list[Json]) -> str:
    return {ResourceState.SUCCEEDED: "complete"}.get(state := _state(thing, pods), state.value)
