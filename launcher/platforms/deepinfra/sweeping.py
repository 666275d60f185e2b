"""Every deployment of an account that carries our mark, of any invocation, and its removal."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from launcher.platforms.base import Leftover
from launcher.platforms.deepinfra import states
from launcher.platforms.deepinfra.client import STANDING_STILL, DeepInfraClient
from launcher.platforms.deepinfra.meter import Meter
from launcher.platforms.deepinfra.types import Deployment, Status
from launcher.platforms.http import RequestFailed, patience

METER_PATIENCE = 10.0
"""Seconds that prices and the meter, which are only shown, may take."""


async def sweep(client: DeepInfraClient, meter: Meter, invocation: str) -> list[Leftover]:
    """What invocations whose id begins with `invocation` have. Raises RequestFailed."""
    # Those that stand still are asked for by name: nobody says that a list without a filter has them.
    listed = await asyncio.gather(client.deployments(), client.deployments(*STANDING_STILL))
    found = {one.deploy_id: one for several in reversed(listed) for one in several}
    ours = [
        one
        for one in found.values()
        if one.ours is not None and one.state is not Status.DELETED and one.ours.invocation.startswith(invocation)
    ]
    spent, hourly = await _costs(meter, ours)
    return [_leftover(one, spent.get(one.deploy_id), hourly.get(one.deploy_id)) for one in ours]


async def _costs(meter: Meter, found: list[Deployment]) -> tuple[dict[str, float], dict[str, float | None]]:
    """USD so far and USD per hour, by id; without what cannot be asked: what is there is shown all the same."""
    spent: dict[str, float] = {}
    hourly: dict[str, float | None] = {one.deploy_id: 0.0 for one in found if not one.billed_instances}
    with suppress(RequestFailed, TimeoutError), patience(METER_PATIENCE):
        async with asyncio.timeout(METER_PATIENCE):
            hourly |= {one.deploy_id: await meter.hourly(one) for one in found}
            spent = await meter.usd(found)
    return spent, hourly


def _leftover(found: Deployment, usd: float | None, hourly: float | None) -> Leftover:
    ours, now = found.ours, time.time()
    assert ours is not None
    return Leftover(
        kind="endpoint",
        name=ours.name,
        invocation=ours.invocation,
        id=found.deploy_id,
        state=states.state_of(found),
        said=found.status,
        age=max(0.0, now - found.created) if found.created is not None else None,
        expires_in=ours.expires - now,
        expiry_is_ours=True,
        usd_per_hour=hourly,
        usd=usd,
        owner=ours.owner,
    )


async def remove(client: DeepInfraClient, leftover: Leftover) -> None:
    """Ask for its deletion; one that does not exist any more is no error. Raises RequestFailed."""
    await client.delete(leftover.id)
