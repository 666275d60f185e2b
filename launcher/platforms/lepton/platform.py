"""Lepton as a platform: the verbs of launcher/platforms/base.py for one invocation."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from launcher.config.execution import Lepton
from launcher.config.pricing import Pricing
from launcher.errors import NotFound, PlatformError
from launcher.plan.lepton import ENDPOINT_TOKEN, on_volume
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.platforms import home
from launcher.platforms.base import Capacity, Check, Leftover, LogLine, Observation, Resource
from launcher.platforms.http import RequestFailed, RetryPolicy, patience
from launcher.platforms.jobscript import ARCHIVE, script
from launcher.platforms.kept import KeptLogs
from launcher.platforms.lepton import credentials as files
from launcher.platforms.lepton import preflight, sources, sweeping
from launcher.platforms.lepton.client import LeptonClient
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.endpoints import Endpoints
from launcher.platforms.lepton.jobs import Jobs
from launcher.platforms.lepton.logs import SECOND, LogWindow
from launcher.platforms.lepton.requests import Filling, environment, ids_of
from launcher.platforms.lepton.shared import SharedClient
from launcher.platforms.lepton.types import Job, NodeGroup
from launcher.platforms.secrets import Secrets
from launcher.platforms.sharing import Shared

EVIDENCE_LINES = 1000
"""Lines of a server's log that are kept."""
SERVER_LOGS = 25
"""Most tasks of a plan whose server logs are kept though all went well: each is one more request."""
SERVER_LOG_TIME = 5.0
"""Seconds that the log of a server whose task went well may take; its endpoint is not deleted before."""
FOLLOW_INTERVAL = 2.0
LOOK_PATIENCE = 20.0
"""Seconds after which a look at everything is given up, so that the person is told; the next one follows at once."""
SETTLE_TIME = 90.0
"""Seconds that the end of a run waits for ended jobs, which cost nothing, to vanish after their removal."""
SHORTEST_POLL, LONGEST_POLL, POLL_SHARE = 0.2, 1.0, 0.01


@dataclass(frozen=True, kw_only=True)
class Session:
    """One opened invocation."""

    plan: Plan
    filling: Filling
    logs: KeptLogs
    endpoints: Endpoints
    jobs: Jobs
    begun: float


class LeptonPlatform:
    """Runs endpoints and jobs in one workspace."""

    name = "lepton"
    create_grace = 30.0
    close_ends_all = close_ends_jobs = False
    _lent = 0
    """Platforms of this process that have lent the token of endpoints to the environment."""

    def __init__(
        self,
        execution: Lepton,
        *,
        pricing: Pricing | None = None,
        credentials: Credentials | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        policy: RetryPolicy | None = None,
        shared: Shared | None = None,
    ) -> None:
        """Nothing is sent yet. `shared`: of those it asks together with. Raises PreflightError without credentials."""
        self._execution = execution
        self._pricing = pricing or Pricing()
        self._credentials = credentials or files.find(workspace=execution.workspace_id)
        if shared is None:
            self._client = LeptonClient(self._credentials, transport=transport, policy=policy)
        else:
            self._client = SharedClient.of(shared, self._credentials, transport=transport, policy=policy)
        self._groups: list[NodeGroup] | None = None
        self._source: sources.Source | None = None
        self._session: Session | None = None
        self._token_is_lent = False

    @property
    def place(self) -> str:
        """Workspace and address of its control plane."""
        return f"workspace {self._credentials.workspace} at {self._credentials.url}"

    async def identify(self) -> None:
        """Nothing: the credentials name the workspace."""

    @property
    def poll_interval(self) -> float:
        """Seconds between two looks; those that come too early for the service answer from the one before."""
        session = self._session
        elapsed = asyncio.get_running_loop().time() - session.begun if session is not None else 0.0
        return min(max(elapsed * POLL_SHARE, SHORTEST_POLL), LONGEST_POLL)

    @property
    def requests(self) -> int:
        """Requests sent to the control plane so far."""
        return self._client.requests

    async def preflight(self, plan: Plan) -> list[Check]:
        """Reads, never writes: everything that would keep the plan from running, all at once.

        Raises PlatformError if the workspace cannot be asked.
        """
        try:
            alike, others = preflight.parts(plan, self._execution)
            world = await preflight.look(self._client, alike, self._execution)
            checks = preflight.check(alike, self._execution, world, self._credentials.token, os.environ)
            self._groups, self._source = world.groups, world.source
            for part, execution in others:
                world = await preflight.look(self._client, part, execution)
                found = preflight.check(part, execution, world, self._credentials.token, os.environ)
                checks += [preflight.auxiliary(check, part) for check in found if check not in checks]
        except RequestFailed as error:
            refusal = preflight.refused(error, self._credentials)
            if preflight.is_unreachable(error):
                raise PlatformError(refusal.message) from error
            return [refusal]
        return checks

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        """Learn what requests need. The service queues what does not fit, so the capacity is not limited here."""
        if self._groups is None:
            self._groups = await self._client.node_groups()
        rendered = await sources.settle(self._client, plan, self._source)
        known = environment(self._credentials, plan.scope or plan.invocation, self._execution.access.mode)
        secrets = Secrets(known)
        secrets.remember(self._credentials.token)
        secrets.remember(known[ENDPOINT_TOKEN])
        self._lend(known[ENDPOINT_TOKEN])
        now = asyncio.get_running_loop().time()
        few = plan.max_parallel_endpoints is not None or plan.max_gpus is not None
        endpoints = Endpoints(self._client, plan.invocation, now, secrets.redact, places_are_few=few)
        self._session = Session(
            plan=plan,
            filling=Filling(secrets, ids_of(self._groups), rendered),
            logs=KeptLogs(plan, folder),
            endpoints=endpoints,
            jobs=Jobs(
                self._client,
                plan.invocation,
                now,
                secrets.redact,
                endpoints.oldest,
                planned=len(plan.tasks),
                places_are_few=few,
            ),
            begun=now,
        )
        await self._make_cache_folder()
        return Capacity()

    def _lend(self, token: str) -> None:
        """Let the orchestrator, which resolves references from the environment, probe the endpoints."""
        if ENDPOINT_TOKEN not in os.environ or LeptonPlatform._lent > 0:
            os.environ.setdefault(ENDPOINT_TOKEN, token)
            LeptonPlatform._lent += 1
            self._token_is_lent = True

    async def _make_cache_folder(self) -> None:
        config = self._execution.storage
        if config.volume is None or not config.model_cache:
            return
        try:
            if await self._client.stores():
                await self._client.make_folder(on_volume(config, f"{config.workspace.rstrip('/')}/model-cache"))
        except RequestFailed:
            return  # where the service makes the folders of mounts itself, nothing is missing

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:  # noqa: ARG002  the request has all
        """Idempotent by name. Raises PlatformError if the service refuses or cannot say whether it exists."""
        session = self._opened()
        return await session.endpoints.create(session.filling.endpoint(spec))

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """Idempotent by name. Raises PlatformError if the service refuses or cannot say whether it exists."""
        session = self._opened()

        def make() -> Job:
            text = script(session.plan.invocation, task, url=url, folder=self._task_folder(task))
            return session.filling.job(spec, text)

        return await session.jobs.submit(spec.name, make)

    def _task_folder(self, task: TaskPlan) -> str | None:
        """The folder of a task's job on the mounted storage; None without storage."""
        return None if self._execution.storage.volume is None else f"{self._opened().plan.storage}/{task.key}"

    async def observe(self) -> Observation:
        """The state of everything, from one list of endpoints and one of jobs, each asked for when it is due."""
        session = self._opened()
        with patience(LOOK_PATIENCE):
            await asyncio.gather(session.endpoints.refresh(), session.jobs.refresh())
        return Observation(endpoints=session.endpoints.resources(), jobs=session.jobs.resources())

    async def delete_endpoint(self, name: str) -> None:
        """Ask for deletion; `observe` says GONE when the service answers 404 for it."""
        await self._opened().endpoints.delete(name)

    async def cancel_job(self, name: str) -> None:
        """Ask for removal; `observe` says GONE when nothing of it runs any more."""
        await self._opened().jobs.cancel(name)

    # --- logs ---------------------------------------------------------------------------------------------------------

    def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Collected lines, with time stamps, a little behind. Raises NotFound for a name that was never created."""
        self._kind(name)
        return self._lines(name, follow=follow)

    def _kind(self, name: str) -> Literal["endpoint", "job"]:
        session = self._opened()
        if session.endpoints.known(name):
            return "endpoint"
        if session.jobs.known(name):
            return "job"
        raise NotFound(f"no endpoint or job {name} in this invocation")

    async def _lines(self, name: str, *, follow: bool) -> AsyncIterator[LogLine]:
        session, kind = self._opened(), self._kind(name)
        tracker: Endpoints | Jobs = session.endpoints if kind == "endpoint" else session.jobs
        since = tracker.created(name)
        while True:
            over = tracker.is_over(name)
            window: LogWindow | None = LogWindow.first(since=since)
            while window is not None:
                route = name if kind == "endpoint" else session.jobs.id(name)
                page, window = window.rest(await self._client.logs(kind, route, window))
                for stamp, text in page:
                    yield LogLine(session.filling.secrets.redact(text), stamp / SECOND)
                    since = (stamp + 1) / SECOND
            if over or not follow:
                return
            await asyncio.sleep(FOLLOW_INTERVAL)

    async def tail(self, name: str, lines: int) -> list[str]:
        """The last lines of one endpoint's or job's output, without secrets; empty where there is none."""
        session = self._opened()
        try:
            found = await self._tail(name, max(lines, EVIDENCE_LINES))
        except RequestFailed as error:
            return [f"(its log could not be read: {error})"]
        found = [session.filling.secrets.redact(line) for line in found]
        session.logs.keep(name, found)
        return found[-lines:]

    async def _tail(self, name: str, lines: int) -> list[str]:
        session = self._opened()
        if session.endpoints.known(name):
            return await session.endpoints.last_lines(name, lines)
        if session.jobs.known(name):
            return session.jobs.log(name) or await session.jobs.last_lines(name, lines)
        return []

    async def _keep_server_log(self, task: TaskPlan) -> None:
        """The server's log of a task that went well: nothing depends on it, so nothing waits long for it."""
        if task.endpoint is None or len(self._opened().plan.tasks) > SERVER_LOGS:
            return
        with contextlib.suppress(TimeoutError, OSError), patience(SERVER_LOG_TIME):
            async with asyncio.timeout(SERVER_LOG_TIME):
                await self.tail(task.endpoint.name, EVIDENCE_LINES)

    # --- results ------------------------------------------------------------------------------------------------------

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        """Bring a job's results into `folder`: all of them, or PlatformError."""
        session = self._opened()
        log = session.jobs.log(task.job.name)
        session.logs.keep(task.job.name, [session.filling.secrets.redact(line) for line in log])
        found = await self._results(task)
        home.write(found, folder)
        session.filling.secrets.scrub(folder)
        await self._keep_server_log(task)

    async def _results(self, task: TaskPlan) -> dict[str, bytes]:
        session, name, wanted = self._opened(), task.job.name, task.job.run.results
        why = "it was never submitted"
        if session.jobs.known(name):
            try:
                found = await session.jobs.results(name)
                lacking = home.missing(wanted, found)
                if not lacking and not _left_out(session.jobs, name):
                    return found
                why = f"no file matches {', '.join(lacking) or 'what the job left out'} in its log"
            except PlatformError as error:
                why = str(error)
        stored = await self._stored(task)
        if stored is None:
            raise PlatformError(f"no file matches {', '.join(wanted)} from job {name}: {why}{self._elsewhere(task)}")
        if lacking := home.missing(wanted, stored):
            raise PlatformError(f"no file matches {', '.join(lacking)} in the job's storage; its log: {why}")
        return stored

    async def _stored(self, task: TaskPlan) -> dict[str, bytes] | None:
        """Everything a job wrote, from its storage; None where there is none, no route to it, or nothing in it."""
        folder = self._task_folder(task)
        if folder is None or not await self._client.stores():
            return None
        archive = await self._client.read_file(on_volume(self._execution.storage, f"{folder}/{ARCHIVE}"))
        return None if archive is None else await asyncio.to_thread(home.unpack, archive)

    def _elsewhere(self, task: TaskPlan) -> str:
        folder, config = self._task_folder(task), self._execution.storage
        return "" if folder is None else f"; see {on_volume(config, folder)} on {config.volume}"

    # --- the account --------------------------------------------------------------------------------------------------

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        """Endpoints, jobs and folders of the workspace that carry our mark, ended and archived jobs too."""
        return await sweeping.sweep(self._client, self._execution, self._pricing, invocation)

    async def remove(self, leftover: Leftover) -> None:
        """Ask for its removal; endpoints and jobs take a while to go."""
        await sweeping.remove(self._client, self._execution, leftover)

    async def unseen(self) -> list[str]:
        """The storage, where the workspace serves no routes to it."""
        return await sweeping.unseen(self._client, self._execution)

    async def close(self, *, at_once: bool = False) -> None:
        """Close the connections. What still exists in the workspace stays: it is the orchestrator that removes it."""
        if self._session is not None:
            await self._session.endpoints.close()
            await self._session.jobs.close()
        if self._session is not None and not at_once:
            with contextlib.suppress(RequestFailed):
                await self._session.jobs.settle(SETTLE_TIME)
        if self._token_is_lent:
            self._token_is_lent = False
            LeptonPlatform._lent -= 1
            if not LeptonPlatform._lent:
                os.environ.pop(ENDPOINT_TOKEN, None)
        self._session = None
        await self._client.close()

    def _opened(self) -> Session:
        if self._session is None:
            raise PlatformError("the lepton platform was used before open() or after close()")
        return self._session


def _left_out(jobs: Jobs, name: str) -> bool:
    """Whether the runner says that some results were too large for its log."""
    end = jobs.end(name)
    return bool(end and end.data.get("not_printed"))
