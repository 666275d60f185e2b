"""Everything in a workspace that carries our mark, of any invocation, and its removal.

Endpoints and jobs are told by a variable in their environment, folders by where they lie: directly below
`execution.storage.workspace`. A folder tells neither its age nor who made it.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
import time

from launcher.config.execution import Lepton
from launcher.config.pricing import Pricing
from launcher.errors import PlatformError
from launcher.plan.lepton import EXPIRES, on_volume
from launcher.platforms.base import Leftover, ResourceState
from launcher.platforms.lepton import states
from launcher.platforms.lepton.client import LeptonClient
from launcher.platforms.lepton.types import AutoScaler, Endpoint, EndpointState, Job, JobState, Resources, ScaleDown

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""Names that an invocation's folder can have."""
_NOT_OURS_ALONE = ("model-cache",)
"""Folders beside those of the invocations, which all of them share."""
_STANDS_STILL = (EndpointState.STOPPED, EndpointState.STOPPING)


async def sweep(client: LeptonClient, execution: Lepton, pricing: Pricing, invocation: str) -> list[Leftover]:
    """What invocations whose id begins with `invocation` have in the workspace. Raises RequestFailed."""
    endpoints, jobs, folders = await asyncio.gather(
        client.endpoints(), client.jobs(containing=invocation), _folders(client, execution)
    )
    found = [
        *(_endpoint(endpoint, pricing) for endpoint in endpoints if endpoint.invocation),
        *(_job(job, pricing) for job in jobs if job.invocation and job.state is not JobState.DELETED),
        *(_folder(name, execution) for name in folders),
    ]
    return [left for left in found if left.invocation.startswith(invocation)]


async def remove(client: LeptonClient, execution: Lepton, leftover: Leftover) -> None:
    """Ask for its removal; one that does not exist any more is no error. Raises PlatformError."""
    if leftover.kind == "endpoint":
        await client.delete_endpoint(leftover.name)
    elif leftover.kind == "job":
        await client.delete_job(leftover.id)
    elif leftover.kind == "storage":
        await client.remove_folder(_path_of(execution, leftover.invocation))


async def unseen(client: LeptonClient, execution: Lepton) -> list[str]:
    """The storage of a workspace that serves no routes to it. Raises RequestFailed."""
    config = execution.storage
    if config.volume is None or await client.stores():
        return []
    return [
        f"storage: the workspace serves no routes to it; what an invocation left is in {config.workspace}/ID on "
        f"{config.volume}, where a job or pod that mounts it can remove it"
    ]


# --- endpoints and jobs -----------------------------------------------------------------------------------------------


def _endpoint(endpoint: Endpoint, pricing: Pricing) -> Leftover:
    resources = endpoint.spec.resource_requirement or Resources()
    age = _age(endpoint.metadata.created_at)
    replicas = 0 if endpoint.state in _STANDS_STILL else resources.min_replicas or 0
    wanted_for = _wanted_for(endpoint)
    return Leftover(
        kind="endpoint",
        name=endpoint.name,
        invocation=endpoint.invocation or "",
        id=endpoint.metadata.id or endpoint.name,
        state=states.ENDPOINT_STATES[endpoint.state],
        said=endpoint.state.value.lower(),
        age=age,
        expires_in=_time_to_get_ready(endpoint, age) if wanted_for is None else wanted_for,
        expiry_is_ours=wanted_for is not None,
        usd_per_hour=_price(pricing, resources.resource_shape, replicas),
        owner=endpoint.metadata.owner or endpoint.metadata.created_by or "",
    )


def _wanted_for(endpoint: Endpoint) -> float | None:
    """Seconds until its time is over, of an endpoint that is kept for itself; it carries that time."""
    said = next((variable.value for variable in endpoint.spec.envs or () if variable.name == EXPIRES), None)
    return int(said) - time.time() if said is not None and said.isdecimal() else None


def _time_to_get_ready(endpoint: Endpoint, age: float | None) -> float | None:
    """Until the workspace stops an endpoint that never got ready; once it serves, it depends on its requests."""
    is_booting = states.ENDPOINT_STATES[endpoint.state] is ResourceState.PENDING
    limit = ((endpoint.spec.auto_scaler or AutoScaler()).scale_down or ScaleDown()).not_ready_timeout
    return limit - age if is_booting and limit and age is not None else None


def _job(job: Job, pricing: Pricing) -> Leftover:
    state = states.JOB_STATES[job.state]
    costs = state in (ResourceState.PENDING, ResourceState.RUNNING)
    return Leftover(
        kind="job",
        name=job.metadata.name or job.id,
        invocation=job.invocation or "",
        id=job.id,
        state=state,
        said=job.state.value.lower(),
        age=_age(job.metadata.created_at),
        usd_per_hour=_price(pricing, job.spec.resource_shape, 1 if costs else 0),
        owner=job.metadata.owner or job.metadata.created_by or "",
        is_record=job.state is JobState.ARCHIVED,
    )


def _price(pricing: Pricing, shape: str | None, replicas: int) -> float | None:
    price = pricing.of(shape)
    return price * replicas if price is not None else (None if replicas else 0.0)


def _age(created_at: float | None) -> float | None:
    return None if created_at is None else max(0.0, time.time() - created_at / 1000)


# --- storage ----------------------------------------------------------------------------------------------------------


async def _folders(client: LeptonClient, execution: Lepton) -> list[str]:
    config = execution.storage
    if config.volume is None or not await client.stores():
        return []
    entries = await client.list_folder(on_volume(config, config.workspace))
    names = [entry.name or posixpath.basename(entry.path or "") for entry in entries if entry.type != "file"]
    return [name for name in names if _may_be_ours(name)]


def _folder(name: str, execution: Lepton) -> Leftover:
    path = _path_of(execution, name)
    return Leftover(kind="storage", name=path, invocation=name, id=path, usd_per_hour=0.0)


def _path_of(execution: Lepton, invocation: str) -> str:
    """Where an invocation's folder lies on the volume. Raises PlatformError for a name that no folder of ours has."""
    if not _may_be_ours(invocation):
        raise PlatformError(f"Lepton: {invocation!r} is no folder of an invocation; nothing was removed")
    config = execution.storage
    return on_volume(config, f"{config.workspace.rstrip('/')}/{invocation}")


def _may_be_ours(name: str) -> bool:
    return _FOLDER.fullmatch(name) is not None and name not in _NOT_OURS_ALONE
