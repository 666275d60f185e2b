"""Keeping one endpoint that is wanted for itself: what stands in the place of its job.

An invocation that keeps an endpoint is run like any other, so that its lease, its intents, its teardown and its
recovery are those of every run. Only its job is no program anywhere: it asks the endpoint until it answers, tells the
journal, and ends when the time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from launcher.config.execution import Local
from launcher.errors import LauncherError, NotFound, PlatformError
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.probing import EndpointProblem, Probes
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import TaskState
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.platforms import RENTED, open_platform
from launcher.platforms.base import (
    Capacity,
    Check,
    Leftover,
    LogLine,
    Observation,
    Platform,
    Progress,
    Resource,
    ResourceState,
    RunnerEnd,
)
from launcher.platforms.pair import Pair
from launcher.platforms.sharing import Shared

PRICE_TIME = 10.0
"""Seconds that the platform may take to say what the endpoint costs."""


def open_endpoints(plan: Plan, shared: Shared | None = None) -> Platform:
    """The platform that has the endpoint of a plan. Raises PreflightError as `open_platform` does."""
    return open_platform(RENTED.get(plan.deployment) or plan.execution_config(), plan.pricing(), shared)


def keeper(plan: Plan, journal: Journal, shared: Shared | None = None) -> Platform:
    """The platform that keeps the one endpoint of a plan. Raises PreflightError as `open_platform` does."""
    endpoints = open_endpoints(plan, shared)
    return Pair(endpoints, Vigil(plan, endpoints, journal))


class Vigil:
    """The half of a platform whose one job watches over the endpoint of the other half.

    The job is in the phase `evaluating` once the endpoint answers, and completed when its time is over.
    """

    name = "keeper"
    create_grace = 0.0
    close_ends_all = False
    close_ends_jobs = True
    poll_interval = 5.0
    """How late the end of the time may be noticed; the other half mostly looks more often."""

    def __init__(self, plan: Plan, endpoints: Platform, journal: Journal) -> None:
        assert plan.expires is not None
        self._plan = plan
        self._expires = plan.expires
        self._endpoints = endpoints
        self._journal = journal
        self._probes = Probes(plan.invocation, endpoints)
        self._name = ""
        self._watching: asyncio.Task[None] | None = None
        self._progress = Progress(phase="waiting")
        self._end: RunnerEnd | None = None
        self._is_gone = False

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """Begin to watch; idempotent."""
        if self._watching is None:
            self._name = spec.name
            self._watching = asyncio.create_task(self._watch(task, url))
        return self._resource()

    async def _watch(self, task: TaskPlan, url: str) -> None:
        """Until the endpoint answers; whatever goes wrong is how the job ends."""
        watched = replace(task, endpoint=self._plan.tasks[0].endpoint)
        try:
            await self._probes.answers(TaskState(plan=watched, url=url), self._say)
            await self._announce(task, url)
        except EndpointProblem as problem:
            self._end = RunnerEnd(reason=problem.reason, detail=problem.detail)
        except LauncherError as error:
            self._end = RunnerEnd(reason=Reason.LAUNCHER_ERROR.value, detail=str(error))
        except Exception as error:  # a defect here must not leave an endpoint that nobody watches
            self._end = RunnerEnd(reason=Reason.LAUNCHER_ERROR.value, detail=f"{type(error).__name__}: {error}")
        else:
            self._progress = Progress(phase="evaluating")

    def _say(self, phase: str, detail: str) -> None:
        self._progress = Progress(phase=phase, detail=detail)

    async def _announce(self, task: TaskPlan, url: str) -> None:
        spec = self._plan.tasks[0].endpoint
        assert spec is not None
        said = {"url": url.rstrip("/"), "model": task.target.model, "usd_per_hour": await self._price(spec)}
        self._journal.record(self._plan.invocation, Fact.ENDPOINT_UP, task.key, spec.name, **said)

    async def _price(self, spec: EndpointPlan) -> float | None:
        """What it costs in USD per hour by the plan, else by what its platform tells."""
        known = spec.hourly(self._plan.usd_per_gpu_hour)
        if known is not None or (isinstance(self._plan.execution_config(), Local) and not spec.is_metered):
            return known
        with contextlib.suppress(TimeoutError, PlatformError):
            async with asyncio.timeout(PRICE_TIME):
                found = await self._endpoints.sweep(self._plan.invocation)
                return next((left.usd_per_hour for left in found if left.kind == "endpoint"), None)
        return None

    def _resource(self) -> Resource:
        if self._progress.phase == "evaluating" and self._end is None and time.time() >= self._expires:
            self._end = RunnerEnd(reason=Reason.COMPLETED.value)
        return Resource(
            name=self._name,
            state=ResourceState.GONE if self._is_gone else ResourceState.RUNNING,
            progress=self._progress,
            end=self._end,
        )

    async def observe(self) -> Observation:
        """The job, if it has begun."""
        return Observation(jobs={self._name: self._resource()} if self._watching is not None else {})

    async def cancel_job(self, name: str) -> None:  # noqa: ARG002  there is only one
        """End the watch."""
        await self.close()
        self._is_gone = True

    async def close(self, *, at_once: bool = False) -> None:  # noqa: ARG002
        """End the watch."""
        self._probes.stop_all()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    # --- what a job of this kind does not need ------------------------------------------------------------------------

    async def preflight(self, plan: Plan) -> list[Check]:  # noqa: ARG002
        """Nothing can be wrong."""
        return []

    async def open(self, plan: Plan, folder: Path) -> Capacity:  # noqa: ARG002
        """Nothing to prepare."""
        return Capacity()

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:  # noqa: ARG002
        """The other half has the endpoints."""
        raise PlatformError(f"{spec.name}: is no job")

    async def delete_endpoint(self, name: str) -> None:
        """The other half has the endpoints."""

    def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:  # noqa: ARG002
        """It writes none."""
        raise NotFound(f"no log of {name}")

    async def tail(self, name: str, lines: int) -> list[str]:  # noqa: ARG002
        """It writes none."""
        return []

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        """It has no results."""

    async def sweep(self, invocation: str = "") -> list[Leftover]:  # noqa: ARG002
        """It ends with this process."""
        return []

    async def remove(self, leftover: Leftover) -> None:
        """It leaves nothing."""

    async def unseen(self) -> list[str]:
        """Nothing."""
        return []
