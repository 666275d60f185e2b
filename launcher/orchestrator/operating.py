"""What can be done to a kept endpoint from another process than its keeper: read it, scale it, count it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from launcher.errors import PlatformError, PreflightError
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.keeper import PRICE_TIME, open_endpoints
from launcher.plan.endpoint import TASK
from launcher.plan.model import Plan
from launcher.platforms.base import KeyMaking, LogLine, Metrics, Operable, Platform, Priced, Sharing, identified
from launcher.platforms.secrets import Secrets


async def scale(plan: Plan, journal: Journal, *, least: int, most: int) -> float | None:
    """Change how many replicas it has; the price of `most` in USD per hour, None where it is not known.

    Raises PlatformError where its platform cannot, or does not know it.
    """
    async with _opened(plan, journal) as platform:
        operable, replica = _operable(platform), await _replica_price(plan, platform)
        price = None if replica is None else replica * most
        said = {"least": least, "most": most, "usd_per_hour": price}
        journal.record(plan.invocation, Fact.INTEND_SCALE_ENDPOINT, TASK, _name(plan), **said)
        await operable.scale(_name(plan), least=least, most=most)
        return price


async def _replica_price(plan: Plan, platform: Platform) -> float | None:
    """USD per hour of one replica by the plan, else by what the platform tells."""
    endpoint = plan.tasks[0].endpoint
    assert endpoint is not None
    known = endpoint.hourly(plan.usd_per_gpu_hour)
    if known is not None:
        return known / endpoint.replicas
    if isinstance(platform, Priced) and endpoint.shape:
        with contextlib.suppress(TimeoutError, PlatformError):
            async with asyncio.timeout(PRICE_TIME):
                return await platform.price(endpoint.shape)
    return None


async def metrics(plan: Plan, journal: Journal, *, since: float) -> Metrics:
    """What its platform counted since a time, in seconds since 1970. Raises as `scale`."""
    async with _opened(plan, journal) as platform:
        return await _operable(platform).metrics(_name(plan), since=since)


async def read_log(
    plan: Plan, journal: Journal, write: Callable[[LogLine], None], *, lines: int | None = None, follow: bool = False
) -> None:
    """Tell `write` its output as its platform collects it: the last `lines`, or all of it, with `follow` to its end."""
    async with _opened(plan, journal) as platform:
        if lines is not None and not follow:
            for text in await platform.tail(_name(plan), lines):
                write(LogLine(text))
            return
        async with _looked_at(platform):
            async for line in platform.logs(_name(plan), follow=follow):
                write(line)


async def key(plan: Plan, journal: Journal) -> str:
    """The key that calls it. Raises PlatformError if it has none here."""
    reference = plan.tasks[0].target.api_key
    if reference is None:
        raise PlatformError(f"{plan.invocation}: its endpoint needs no key")
    async with _opened(plan, journal) as platform:  # a platform may make the key, and sets its variable then
        made = await platform.key(_name(plan)) if isinstance(platform, KeyMaking) else None
        return made or Secrets().resolve(reference)


@asynccontextmanager
async def _looked_at(platform: Platform) -> AsyncIterator[None]:
    """Within, the platform looks again and again, so that it notices the end of what is followed."""

    async def look() -> None:
        while True:
            await asyncio.sleep(platform.poll_interval)
            with contextlib.suppress(PlatformError):
                await platform.observe()

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait({looking})


def _name(plan: Plan) -> str:
    endpoint = plan.tasks[0].endpoint
    assert endpoint is not None
    return endpoint.name


def _operable(platform: Platform) -> Operable:
    if not isinstance(platform, Operable):
        raise PlatformError(f"{platform.name}: endpoints there can neither be scaled nor counted")
    return platform


@asynccontextmanager
async def _opened(plan: Plan, journal: Journal) -> AsyncIterator[Platform]:
    """The platform that has the endpoint, with a first look taken; one that ends what it opened is left closed."""
    platform = open_endpoints(plan)
    try:
        if not platform.close_ends_all:
            before, here = journal.place(plan.invocation), await identified(platform)
            if before and here and before != here:
                raise PreflightError(f"{plan.invocation}: is in {before}, and the credentials here lead to {here}")
            if isinstance(platform, Sharing):
                platform.attend(lambda _: None, creates=False)
            await platform.open(plan, Path(plan.output_dir) / plan.invocation)
            await platform.observe()
        yield platform
    finally:
        await platform.close(at_once=True)
