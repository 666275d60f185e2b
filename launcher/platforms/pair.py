"""Endpoints of one platform and jobs of another: a model rented in one place, evaluated from a second."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

from launcher.errors import NotFound, PlatformError
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.platforms.base import (
    Capacity,
    Check,
    Leftover,
    LogLine,
    Metered,
    Metrics,
    Observation,
    Operable,
    Platform,
    Resource,
    Sharing,
    identified,
    place_of,
)

BOTH = " and "
"""Stands between the places of the two halves."""
EVIDENCE_LINES = 1000
"""Lines of a server's log that are kept of a task that went well."""
LOG_TIME = 5.0
"""Seconds that they may take: the endpoint is not deleted before."""


class Pair:
    """One platform made of two halves. Of `endpoints` no job is asked, of `jobs` no endpoint."""

    close_ends_all = False

    def __init__(self, endpoints: Platform, jobs: Platform) -> None:
        self.endpoints, self.jobs = endpoints, jobs
        self.name = f"{endpoints.name}, {jobs.name}"
        self.create_grace = max(endpoints.create_grace, jobs.create_grace)
        self.close_ends_jobs = jobs.close_ends_jobs
        self._swept: dict[tuple[str, str], Platform] = {}

    @property
    def place(self) -> str:
        """Where both are."""
        return BOTH.join(place for half in (self.endpoints, self.jobs) if (place := place_of(half)))

    async def identify(self) -> None:
        """Let both say what their places cannot tell."""
        await asyncio.gather(*map(identified, halves(self)))

    @property
    def poll_interval(self) -> float:
        """Seconds between two looks; a half that is asked too early answers from the look before."""
        return min(self.endpoints.poll_interval, self.jobs.poll_interval)

    def attend(self, say: Callable[[str], None], *, creates: bool) -> None:
        """`say` is told what a half waits for."""
        for half in (self.endpoints, self.jobs):
            if isinstance(half, Sharing):
                half.attend(say, creates=creates)

    async def preflight(self, plan: Plan) -> list[Check]:
        """The checks of both. Raises PlatformError if one cannot be asked."""
        found = await asyncio.gather(self.endpoints.preflight(plan), self.jobs.preflight(jobs_alone(plan)))
        return [check for checks in found for check in checks]

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        """Prepare both; what endpoints may use is said by the one that has them."""
        capacity = await self.endpoints.open(plan, folder)
        await self.jobs.open(jobs_alone(plan), folder)
        return capacity

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        """Idempotent by name."""
        return await self.endpoints.create_endpoint(task, spec)

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """Idempotent by name."""
        return await self.jobs.submit_job(_alone(task), spec, url)

    async def observe(self) -> Observation:
        """The state of both. That endpoints cannot be asked for keeps no job's end from being seen."""
        endpoints, jobs = await asyncio.gather(self.endpoints.observe(), self.jobs.observe(), return_exceptions=True)
        if isinstance(jobs, BaseException):
            raise jobs
        if isinstance(endpoints, PlatformError):
            return Observation(jobs=jobs.jobs, endpoints_unknown=str(endpoints))
        if isinstance(endpoints, BaseException):
            raise endpoints
        return Observation(endpoints=endpoints.endpoints, jobs=jobs.jobs)

    async def delete_endpoint(self, name: str) -> None:
        """Ask for deletion."""
        await self.endpoints.delete_endpoint(name)

    async def cancel_job(self, name: str) -> None:
        """Ask for the end."""
        await self.jobs.cancel_job(name)

    async def scale(self, name: str, *, least: int, most: int) -> None:
        """Change how many replicas an endpoint has."""
        await self._operable().scale(name, least=least, most=most)

    async def metrics(self, name: str, *, since: float) -> Metrics:
        """What is counted of an endpoint."""
        return await self._operable().metrics(name, since=since)

    async def spent(self, ids: Mapping[str, str], shapes: Mapping[str, str]) -> dict[str, float]:
        """What endpoints have cost, where they are metered."""
        return await self.endpoints.spent(ids, shapes) if isinstance(self.endpoints, Metered) else {}

    def _operable(self) -> Operable:
        if not isinstance(self.endpoints, Operable):
            raise PlatformError(f"{self.endpoints.name}: endpoints can neither be scaled nor counted")
        return self.endpoints

    def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Lines of one endpoint or job. Raises NotFound for a name that neither half knows."""
        try:
            return self.endpoints.logs(name, follow=follow)
        except NotFound:
            return self.jobs.logs(name, follow=follow)

    async def tail(self, name: str, lines: int) -> list[str]:
        """The last lines of one endpoint's or job's output; empty where there is none."""
        return await self.endpoints.tail(name, lines) or await self.jobs.tail(name, lines)

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        """Bring a job's results into `folder`, and the server's log, on which nothing depends, beside them."""
        await self.jobs.fetch(_alone(task), folder)
        if task.endpoint is not None:
            with contextlib.suppress(Exception):  # whatever is wrong with a log, the scores are home
                async with asyncio.timeout(LOG_TIME):
                    await self.endpoints.tail(task.endpoint.name, EVIDENCE_LINES)

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        """Everything that carries our mark in either place."""
        found = await asyncio.gather(*(half.sweep(invocation) for half in (self.endpoints, self.jobs)))
        for half, lefts in zip((self.endpoints, self.jobs), found, strict=True):
            self._swept |= {(left.kind, left.id): half for left in lefts}
        return [left for lefts in found for left in lefts]

    async def remove(self, leftover: Leftover) -> None:
        """Ask for the removal of what `sweep` showed."""
        await self._swept.get((leftover.kind, leftover.id), self.endpoints).remove(leftover)

    async def unseen(self) -> list[str]:
        """What may be there and cannot be seen, in either place."""
        return [*await self.endpoints.unseen(), *await self.jobs.unseen()]

    async def close(self, *, at_once: bool = False) -> None:
        """Let go of both."""
        try:
            await self.jobs.close(at_once=at_once)
        finally:
            await self.endpoints.close(at_once=at_once)


def halves(platform: Platform) -> Iterator[Platform]:
    """The platforms that a platform is made of: itself, or its two halves."""
    if isinstance(platform, Pair):
        yield from (platform.endpoints, platform.jobs)
    else:
        yield platform


def jobs_alone(plan: Plan) -> Plan:
    """A plan as the half sees it that only runs the jobs."""
    existing = tuple(one for one in plan.auxiliary if one.endpoint is None)
    return dataclasses.replace(plan, tasks=tuple(map(_alone, plan.tasks)), auxiliary=existing)


def _alone(task: TaskPlan) -> TaskPlan:
    return dataclasses.replace(task, endpoint=None)
