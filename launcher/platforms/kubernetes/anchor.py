"""The anchor: a ConfigMap that owns everything of an invocation and carries the time when nobody needs it any more."""

from __future__ import annotations

import copy
import getpass
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from launcher.config.fields import Reference
from launcher.errors import PlatformError
from launcher.plan.kubernetes import EXPIRES, INVOCATION, KIND, MANAGED_BY, MARK, OWNER, SLACK, anchor_name, label_of
from launcher.plan.model import Plan
from launcher.platforms.creation import create_once
from launcher.platforms.kubernetes.client import KubeClient
from launcher.platforms.kubernetes.states import is_leaving
from launcher.platforms.secrets import Secrets, references

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The anchor of one invocation, as the cluster has it."""

    name: str
    uid: str
    owner: str
    """Label of who asked for it."""

    def owned(self, manifest: Json) -> Json:
        """A manifest as it is sent: owned by the anchor, with its owner's name."""
        made = copy.deepcopy(manifest)
        metadata = made["metadata"]
        metadata["labels"] = {**metadata["labels"], OWNER: self.owner}
        metadata["ownerReferences"] = [self.reference()]
        return made

    def reference(self) -> Json:
        """It as an owner."""
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": self.name, "uid": self.uid}


def expiry(plan: Plan, now: float) -> float:
    """Seconds since 1970 from when nobody needs anything of a plan whose launcher was last alive `now`."""
    if plan.expires is not None:
        return plan.expires
    longest = max(
        task.target.start_timeout + task.target.health_timeout + task.job.timeout + SLACK for task in plan.tasks
    )
    return now + 2 * longest


def manifest(plan: Plan, now: float) -> Json:
    """The anchor to send."""
    labels = {MANAGED_BY: MARK, INVOCATION: plan.invocation, KIND: "anchor", OWNER: who()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": anchor_name(plan.invocation),
            "labels": labels,
            "annotations": {EXPIRES: str(round(expiry(plan, now)))},
        },
        "data": {"about": "Everything of this evaluation is owned by this object: deleting it deletes all."},
    }


def who() -> str:
    """The person at this machine, as a label."""
    try:
        return label_of(getpass.getuser())
    except (OSError, KeyError):
        return "unknown"


async def make(
    client: KubeClient, plan: Plan, now: float, secrets: Secrets, *, also: Iterable[Reference] = ()
) -> Anchor:
    """The anchor, and a Secret with the values of the plan's references and of `also`; adopted where they exist.

    Raises PlatformError.
    """
    made = await _once(client, "configmaps", manifest(plan, now), plan.invocation)
    anchor = Anchor(name=made["metadata"]["name"], uid=made["metadata"]["uid"], owner=who())
    names = sorted({str(one.env) for one in (*references(plan), *also) if one.env is not None})
    if names and await client.get("secrets", anchor.name) is None:
        data = {name: b64encode(secrets.resolve(Reference(env=name)).encode()).decode() for name in names}
        labels = {MANAGED_BY: MARK, INVOCATION: plan.invocation, KIND: "secret"}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": anchor.name, "labels": labels},
            "data": data,
        }
        await _once(client, "secrets", anchor.owned(secret), plan.invocation)
    return anchor


async def _once(client: KubeClient, plural: str, wanted: Json, invocation: str) -> Json:
    name = wanted["metadata"]["name"]
    return await create_once(
        lambda: client.create(plural, wanted),
        lambda: client.get(plural, name),
        describe=f"Kubernetes: {plural.removesuffix('s')} {name}",
        is_ours=lambda found: (found["metadata"].get("labels") or {}).get(INVOCATION) == invocation,
        is_leaving=is_leaving,
    )


async def renew(client: KubeClient, plan: Plan, now: float) -> None:
    """Move the expiry ahead while the launcher lives. Raises PlatformError."""
    wanted = manifest(plan, now)
    found = await client.get("configmaps", wanted["metadata"]["name"])
    if found is None:
        raise PlatformError(f"Kubernetes: {wanted['metadata']['name']} was deleted: everything of the run goes with it")
    await client.apply("configmaps", wanted)


def expires(thing: Json) -> float | None:
    """The expiry that an anchor carries, in seconds since 1970."""
    said = (thing["metadata"].get("annotations") or {}).get(EXPIRES, "")
    return float(said) if said.isdecimal() else None
