"""DeepInfra as a platform: it rents the endpoints of one invocation. Jobs run elsewhere (platforms/pair.py)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from launcher.errors import NotFound, PlatformError, PreflightError
from launcher.plan.deepinfra import API_KEY
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.platforms.base import Capacity, Check, Leftover, LogLine, Metrics, Observation, Resource
from launcher.platforms.deepinfra import credentials as files
from launcher.platforms.deepinfra import names, preflight, sweeping
from launcher.platforms.deepinfra.client import DeepInfraClient
from launcher.platforms.deepinfra.credentials import Credentials
from launcher.platforms.deepinfra.endpoints import Endpoints
from launcher.platforms.deepinfra.logs import LogWindow
from launcher.platforms.deepinfra.meter import Meter
from launcher.platforms.http import RequestFailed, RetryPolicy, patience
from launcher.platforms.kept import KeptLogs
from launcher.platforms.pace import LOOKS
from launcher.platforms.secrets import Secrets
from launcher.platforms.tracking import loop_time

T = TypeVar("T")

EVIDENCE_LINES = 1000
"""Lines of a server's log that are kept."""
FOLLOW_INTERVAL = 2.0
LOOK_PATIENCE = 20.0
"""Seconds after which a look at everything is given up, so that the person is told; the next one follows at once."""
DEFAULT_LIFETIME = 4 * 3600.0
"""Seconds until the expiry of an endpoint whose plan says none."""
_STILL_CHANGING = 409


@dataclass(frozen=True, kw_only=True)
class Session:
    """One opened invocation."""

    logs: KeptLogs
    endpoints: Endpoints
    begun: float


class DeepInfraPlatform:
    """Rents deployments in one account."""

    name = "deepinfra"
    create_grace = 30.0
    close_ends_all = close_ends_jobs = False

    def __init__(
        self,
        credentials: Credentials | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        """Prepare the platform; nothing is sent yet. Raises PreflightError without credentials.

        The key is lent to the environment until `close`, where jobs and probes, which call endpoints, look for it.
        """
        self._credentials = credentials or files.find()
        self._secrets = Secrets()
        self._secrets.remember(self._credentials.key)
        self._client = DeepInfraClient(self._credentials, secrets=self._secrets, transport=transport, policy=policy)
        self._meter = Meter(self._client)
        self._account = ""
        self._session: Session | None = None
        self._loan = _Loan(self._credentials.key)

    @property
    def place(self) -> str:
        """Account and address; empty before `identify`."""
        return f"the DeepInfra account {self._account} at {self._credentials.url}" if self._account else ""

    async def identify(self) -> None:
        """Ask whose key it is. Raises PreflightError if it opens no account, PlatformError if nobody answers."""
        if self._account:
            return
        try:
            self._account = (await self._client.me()).uid
        except RequestFailed as error:
            if preflight.is_unreachable(error):
                raise
            raise PreflightError(preflight.refused(error, self._credentials).message) from None

    @property
    def poll_interval(self) -> float:
        """Seconds between two looks; those that come too early for the service answer from the one before."""
        session = self._session
        return LOOKS.interval(loop_time() - session.begun if session is not None else 0.0)

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self._client.requests

    async def preflight(self, plan: Plan) -> list[Check]:
        """Reads, never writes: everything that would keep the plan from running, all at once.

        Raises PlatformError if the service cannot be asked.
        """
        try:
            world = await preflight.look(self._client, plan)
        except RequestFailed as error:
            found = preflight.refused(error, self._credentials)
            if preflight.is_unreachable(error):
                raise PlatformError(found.message) from error
            return [found]
        return preflight.check(plan, world, self._credentials, os.environ)

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        """Prepare for one invocation. What endpoints may use is what the account's limit leaves them.

        But never less than the largest of them needs: whether that must wait is for the service to say.
        """
        now = loop_time()
        self._remember(plan)
        self._session = Session(
            logs=KeptLogs(plan, folder),
            endpoints=Endpoints(
                self._client,
                self._meter,
                plan.invocation,
                now,
                url=self._credentials.url,
                redact=self._secrets.redact,
            ),
            begun=now,
        )
        wanted = plan.endpoints
        return Capacity(gpus=await self._free(plan, wanted)) if wanted else Capacity()

    def _remember(self, plan: Plan) -> None:
        """Take the plan's secrets out of all that is shown, those too with which an earlier launcher made something."""
        for reference in {found for endpoint in plan.endpoints for found in preflight.references_in(endpoint.request)}:
            with suppress(PlatformError):  # without a value: nobody needs it before something is created
                self._secrets.resolve(reference)

    async def _free(self, plan: Plan, wanted: list[EndpointPlan]) -> int:
        """GPUs that the endpoints may hold at once; where the account does not say, by the usual limit."""
        gpu = preflight.gpu_of(wanted[0])
        limits, there = await asyncio.gather(_known(self._client.gpu_limits()), _known(self._client.deployments()))
        free = preflight.gpu_limit(limits or {}, gpu) - preflight.held(there or (), gpu, plan.invocation)
        return max(free, *(endpoint.gpus for endpoint in wanted))

    # --- endpoints ----------------------------------------------------------------------------------------------------

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:  # noqa: ARG002  the request has all
        """Idempotent by name. Raises PlatformError if the service refuses or cannot say whether it exists."""
        if spec.request is None:
            raise PlatformError(f"DeepInfra: the plan of {spec.name} has no request; set deployment: deepinfra")
        body = self._filled(spec.request)
        lifetime = spec.lifetime or DEFAULT_LIFETIME
        body["model_name"] = names.expiring(body["model_name"], lifetime, time.time())
        return await self._opened().endpoints.create(spec.name, body)

    def _filled(self, part: Any) -> Any:
        """A part of a request with values where references stand. Raises PlatformError for one without a value."""
        if isinstance(part, dict):
            return {key: self._filled(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return [self._filled(value) for value in part]
        return self._secrets.fill(part) if isinstance(part, str) else part

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:  # noqa: ARG002  it never runs one
        """Always raises PlatformError: there is nothing on DeepInfra that runs jobs."""
        raise PlatformError(f"DeepInfra runs no jobs; {spec.name} belongs to the execution")

    async def observe(self) -> Observation:
        """The state of all deployments from one list, asked for when it is due. There are no jobs."""
        session = self._opened()
        with patience(LOOK_PATIENCE):
            await session.endpoints.refresh()
        return Observation(endpoints=session.endpoints.resources())

    async def delete_endpoint(self, name: str) -> None:
        """Ask for deletion; `observe` says GONE when the service has no such deployment any more.

        One that is still changing may refuse it; it is to be asked again, as long as `observe` shows it.
        """
        try:
            await self._opened().endpoints.delete(name)
        except RequestFailed as error:
            if error.status != _STILL_CHANGING:
                raise

    async def cancel_job(self, name: str) -> None:
        """Nothing: there are no jobs."""

    async def scale(self, name: str, *, least: int, most: int) -> None:
        """Change how many instances an endpoint has. Raises PlatformError, NotFound for one that does not exist."""
        found = await self._opened().endpoints.find(name)
        await self._client.scale(found.deploy_id, least=least, most=most)

    async def price(self, shape: str) -> float | None:
        """USD per hour of one instance, such as 2xA100-80GB; None if the service names none. Raises PlatformError."""
        return await self._meter.price(shape)

    async def metrics(self, name: str, *, since: float) -> Metrics:
        """What was counted since a time, in seconds since 1970; the cost is the meter's, and of its whole life.

        Raises PlatformError, NotFound for an endpoint that does not exist.
        """
        found = await self._opened().endpoints.find(name)
        tokens, counts, spent = await asyncio.gather(
            self._client.token_counts(found.deploy_id, since),
            self._client.counts(found.deploy_id, since),
            self._meter.usd([found]),
        )
        best = tokens or counts
        if best is None:
            raise PlatformError(f"DeepInfra counts nothing of {name} (yet)")
        return Metrics(
            requests=best.requests,
            errors=best.errors,
            input_tokens=best.input_tokens,
            output_tokens=best.output_tokens,
            latency_ms=counts.avg_time if counts is not None else None,
            latency_p95_ms=counts.avg95_time if counts is not None else None,
            first_token_ms=tokens.avg_ttft_ms if tokens is not None else None,
            usd=spent.get(found.deploy_id),
        )

    async def spent(self, ids: Mapping[str, str], shapes: Mapping[str, str]) -> dict[str, float]:
        """USD by the meter, by the names of endpoints, of deployments with these `ids`, those too that are gone.

        `shapes` are those of the plan's endpoints, by name; without one the service is asked, which may have forgotten
        it. What the meter or the price list does not know is missing. Raises PlatformError if they cannot be asked.
        """
        known = {name: shapes.get(name) or await self._shape(deploy_id) for name, deploy_id in ids.items()}
        usd = await self._meter.usd_of({ids[name]: shape for name, shape in known.items() if shape})
        return {name: usd[deploy_id] for name, deploy_id in ids.items() if deploy_id in usd}

    async def _shape(self, deploy_id: str) -> str:
        found = await self._client.deployment(deploy_id)
        return found.gpu_config if found is not None else ""

    # --- logs ---------------------------------------------------------------------------------------------------------

    def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Collected lines, with time stamps, a little behind. Raises NotFound for a name that was never created."""
        if not self._opened().endpoints.known(name):
            raise NotFound(f"no endpoint {name} in this invocation")
        return self._lines(name, follow=follow)

    async def _lines(self, name: str, *, follow: bool) -> AsyncIterator[LogLine]:
        endpoints = self._opened().endpoints
        window = LogWindow.since(endpoints.created(name))
        while True:
            over = endpoints.is_over(name)
            page = await endpoints.lines(name, window)
            for stamp, text in window.fresh(page):
                yield LogLine(self._secrets.redact(text), float(stamp) if stamp else None)
            is_full, window = window.is_full(page), window.after(page)
            if not is_full and (over or not follow):
                return
            if not is_full:
                await asyncio.sleep(FOLLOW_INTERVAL)

    async def tail(self, name: str, lines: int) -> list[str]:
        """The last lines of one endpoint's output, without secrets; empty where there is none."""
        session = self._opened()
        if not session.endpoints.known(name):
            return []
        try:
            found = await session.endpoints.last_lines(name, max(lines, EVIDENCE_LINES))
        except RequestFailed as error:
            return [f"(its log could not be read: {error})"]
        session.logs.keep(name, found)
        return found[-lines:]

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        """Nothing: results come from where the jobs run."""

    # --- the account --------------------------------------------------------------------------------------------------

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        """Deployments of the account that carry our mark, stopped and failed ones too, with expiry and cost."""
        return await sweeping.sweep(self._client, self._meter, invocation)

    async def remove(self, leftover: Leftover) -> None:
        """Ask for its deletion. Raises PlatformError, also for one that is still changing: it is to be asked again."""
        await sweeping.remove(self._client, leftover)

    async def unseen(self) -> list[str]:
        """Nothing: a list shows every deployment."""
        return []

    async def close(self, *, at_once: bool = False) -> None:  # noqa: ARG002  nothing takes time
        """Close the connections. What still exists stays: it is the orchestrator that removes it."""
        self._loan.end()
        session, self._session = self._session, None
        if session is not None:
            await session.endpoints.close()
        await self._client.close()

    def _opened(self) -> Session:
        if self._session is None:
            raise PlatformError("the deepinfra platform was used before open() or after close()")
        return self._session


async def _known(answer: Awaitable[T]) -> T | None:
    """An answer; None if there is none."""
    with suppress(RequestFailed):
        return await answer
    return None


class _Loan:
    """The key in the environment, where the person's own does not stand, as long as a platform that lent it is open."""

    _lent = 0
    """Platforms of this process that have lent it."""

    def __init__(self, key: str) -> None:
        self._holds = _Loan._lent > 0 or API_KEY not in os.environ
        if self._holds:
            _Loan._lent += 1
            os.environ.setdefault(API_KEY, key)

    def end(self) -> None:
        """Take it back; a second time does nothing."""
        if not self._holds:
            return
        self._holds = False
        _Loan._lent -= 1
        if not _Loan._lent:
            os.environ.pop(API_KEY, None)
