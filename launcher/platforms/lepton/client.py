"""A typed client for the routes of Lepton's control plane that the launcher needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from launcher.decoding import decode
from launcher.platforms.http import Answer, Api, Document, Params, RequestFailed, RetryPolicy, make_client
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.families import Family, Legacy, New
from launcher.platforms.lepton.logs import LogWindow, entries
from launcher.platforms.lepton.types import (
    Description,
    Endpoint,
    Event,
    Features,
    Job,
    JobPage,
    LogAnswer,
    NodeGroup,
    PullSecret,
    ReadinessIssue,
    Rendered,
    Replica,
    Secret,
    SeenJob,
    Shape,
    StoredFile,
    TemplateEntry,
    Termination,
    Token,
    Workspace,
)
from launcher.platforms.secrets import Secrets

T = TypeVar("T")

PAGE_SIZE = 500
ALL, ALIVE = "alive_and_archive", "alive_only"
"""Which jobs are looked for: a finished one is archived after a while, and must not look like a lost one."""
_STORAGE = "/storage/default"
_GONE = 404


class LeptonClient:
    """One workspace. All methods raise RequestFailed when the service refuses or does not answer."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        policy: RetryPolicy | None = None,
        in_flight: int = 16,
    ) -> None:
        """Prepare a client; nothing is sent yet. `in_flight`: most requests under way at once."""
        secrets = Secrets({})
        secrets.remember(credentials.token)
        policy = policy or RetryPolicy()
        self.api = Api(
            make_client(credentials.url, credentials.headers(), policy=policy, transport=transport),
            "Lepton",
            policy=policy,
            in_flight=in_flight,
            redact=secrets.redact,
        )
        self._family: Family | None = None
        self._asking = asyncio.Lock()
        self._stores: bool | None = None

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self.api.requests

    @property
    def users(self) -> int:
        """How many runs of this process ask the workspace by it."""
        return 1

    def begun(self, now: float) -> float:
        """When the first of them began, seconds of the loop's clock; `now` for one that is alone."""
        return now

    async def close(self) -> None:
        """Close the connections."""
        await self.api.close()

    # --- the workspace ------------------------------------------------------------------------------------------------

    async def workspace(self) -> Workspace:
        """State, quota and features; also settles which family is spoken."""
        found = await self.api.get("/workspace", Workspace)
        self._family = New() if (found.features or Features()).enable_new_deployment_api else Legacy()
        return found

    async def family(self) -> Family:
        """The family that the workspace speaks; asked once."""
        async with self._asking:
            if self._family is None:
                await self.workspace()
        assert self._family is not None
        return self._family

    async def description(self) -> Description:
        """The workspace's name for people."""
        return await self.api.get("", Description)

    async def tokens(self) -> list[Token]:
        """Tokens of the workspace, masked, with their ends."""
        return await self.api.get("/tokens", list[Token])

    async def node_groups(self) -> list[NodeGroup]:
        """Dedicated node groups."""
        return await self.api.get("/dedicated-node-groups", list[NodeGroup])

    async def shapes(self, node_group: str, purpose: Literal["deployment", "job"]) -> list[Shape]:
        """Shapes that a node group, by id, offers to endpoints or to jobs."""
        return await self.api.get("/shapes", list[Shape], {"node_groups": node_group, "purpose": purpose})

    async def secrets(self) -> list[str]:
        """Names of the workspace's secrets."""
        return [secret.name for secret in await self.api.get("/usersecrets", list[Secret]) if secret.name]

    async def pull_secrets(self) -> list[str]:
        """Names of the workspace's image pull secrets."""
        return [secret.name for secret in await self.api.get("/imagepullsecrets", list[PullSecret])]

    async def templates(self, visibility: Literal["public", "private"]) -> list[TemplateEntry]:
        """Templates of everybody or of the workspace."""
        return await self.api.get_any(f"/templates/{visibility}", list[TemplateEntry]) or []

    async def render(
        self, visibility: Literal["public", "private"], template: str, run: str | dict[str, Any] | None
    ) -> Rendered:
        """What a template, by id, becomes; nothing is created. `run`: its command or its parameters."""
        path = f"/templates/{visibility}/{quote(template, safe='')}/render"
        return await self.api.call("POST", path, Rendered, body={} if run is None else {"run": run}, only_reads=True)

    # --- endpoints ----------------------------------------------------------------------------------------------------

    async def endpoints(self) -> list[Endpoint]:
        """All endpoints of the workspace; the service has no filter and no pages."""
        family = await self.family()
        answer = await self.api.send("GET", family.path)
        return self._decoded("GET", family.path, answer, family.decode_list)

    async def endpoints_since(self, since: float) -> tuple[float, list[Endpoint]]:  # noqa: ARG002  asks now
        """The same, with the moment when it was asked for, which is not before `since`; seconds of the loop's clock."""
        return asyncio.get_running_loop().time(), await self.endpoints()

    async def endpoint(self, name: str) -> Endpoint | None:
        """One endpoint; None if there is none of this name."""
        family = await self.family()
        answer = await self._unless_gone("GET", f"{family.path}/{name}")
        return None if answer is None else self._decoded("GET", f"{family.path}/{name}", answer, family.decode)

    async def create_endpoint(self, endpoint: Endpoint) -> Endpoint:
        """Create one. Never repeated by itself: on `maybe_done` the caller looks whether it exists."""
        family = await self.family()
        answer = await self.api.send("POST", family.path, body=family.encode(endpoint))
        return self._decoded("POST", family.path, answer, family.decode)

    async def scale_endpoint(self, endpoint: Endpoint, replicas: int) -> None:
        """Give an endpoint of ours this many replicas; 0 stops it."""
        family = await self.family()
        body = family.scaling(endpoint, replicas)
        try:
            await self.api.send("PATCH", f"{family.path}/{endpoint.name}", body=body)
        except RequestFailed as error:
            if not (error.status == 400 and error.message == "no valid field to update"):
                raise  # else: it already is as it shall be

    async def delete_endpoint(self, name: str) -> bool:
        """Ask for deletion, which takes a while; False if there is none of this name."""
        family = await self.family()
        return await self._unless_gone("DELETE", f"{family.path}/{name}") is not None

    async def readiness(self, name: str) -> dict[str, list[ReadinessIssue]]:
        """Why replicas of an endpoint are not ready, by replica. Legacy family only."""
        answer = await self.api.get_any(f"/deployments/{name}/readiness", dict[str, list[ReadinessIssue] | None])
        return {replica: issues or [] for replica, issues in (answer or {}).items()}

    async def terminations(self, name: str) -> dict[str, list[Termination]]:
        """How containers of an endpoint ended, by replica. Legacy family only."""
        answer = await self.api.get_any(f"/deployments/{name}/termination", dict[str, list[Termination] | None])
        return {replica: ends or [] for replica, ends in (answer or {}).items()}

    async def events(self, name: str) -> list[Event]:
        """Events of an endpoint."""
        family = await self.family()
        return await self.api.get_any(f"{family.path}/{name}/events", list[Event]) or []

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def jobs(self, containing: str = "", mode: str = ALL) -> list[Job]:
        """All jobs, archived ones too unless `mode` leaves them out, whose name contains a text; reads every page."""
        found: list[Job] = []
        for page in range(1, 10_000):
            params: dict[str, str | int | list[str]] = {"job_query_mode": mode, "page": page, "page_size": PAGE_SIZE}
            if containing:
                params["q"] = containing
            answer = await self.api.get("/jobs", JobPage | list[SeenJob], params)  # type: ignore[arg-type]
            jobs, total = (answer, len(answer)) if isinstance(answer, list) else (answer.jobs, answer.total)
            found += [job.job() for job in jobs]
            if not jobs or (total is not None and len(found) >= total):
                break
        return found

    async def jobs_since(self, invocation: str, since: float) -> tuple[float, list[Job]]:  # noqa: ARG002  asks now
        """At least all jobs of an invocation, archived ones perhaps not, with the moment when they were asked for."""
        return asyncio.get_running_loop().time(), await self.jobs(containing=invocation)

    async def job(self, job: str) -> Job | None:
        """One job by id; None if there is none."""
        path = f"/jobs/{job}"
        answer = await self._unless_gone("GET", path, {"job_query_mode": ALL})
        return None if answer is None else self._decoded("GET", path, answer, _job)

    async def job_events(self, job: str) -> list[Event]:
        """Events of a job, by id."""
        return await self.api.get_any(f"/jobs/{job}/events", list[Event]) or []

    async def create_job(self, job: Job) -> Job:
        """Submit one. Never repeated by itself: on `maybe_done` the caller looks whether it exists."""
        return (await self.api.call("POST", "/jobs", SeenJob, body=job)).job()

    async def stop_job(self, job: str) -> None:
        """Stop a job, by id, and keep it."""
        await self._unless_gone("PATCH", f"/jobs/{job}", body={"spec": {"stopped": True}})

    async def delete_job(self, job: str) -> bool:
        """Ask for deletion of a job, by id; False if there is none."""
        return await self._unless_gone("DELETE", f"/jobs/{job}", {"job_query_mode": ALL}) is not None

    # --- logs ---------------------------------------------------------------------------------------------------------

    async def logs(self, kind: Literal["endpoint", "job"], name: str, window: LogWindow) -> list[tuple[int, str]]:
        """Collected lines of an endpoint, by name, or of a job, by id: nanoseconds since 1970 and text, oldest first.

        At most `window.limit` lines; the ones at the end of the window that `window.direction` names.
        """
        parameter = "job" if kind == "job" else (await self.family()).log_parameter
        params = {**window.params(), parameter: name, "job_query_mode": ALL}
        answer = await self.api.get("/logs", LogAnswer, params)
        return entries(answer, window)

    async def replicas(self, kind: Literal["endpoint", "job"], name: str) -> list[Replica]:
        """Replicas of an endpoint, by name, or of a job, by id."""
        root = "/jobs" if kind == "job" else (await self.family()).path
        return await self.api.get_any(f"{root}/{name}/replicas", list[Replica]) or []

    async def live_lines(self, kind: Literal["endpoint", "job"], name: str, replica: str) -> AsyncIterator[str]:
        """Lines of a replica as it writes them, until it ends."""
        root = "/jobs" if kind == "job" else (await self.family()).path
        async for line in self.api.lines(f"{root}/{name}/replicas/{replica}/log"):
            yield line

    # --- file storage -------------------------------------------------------------------------------------------------

    async def stores(self) -> bool:
        """Whether the workspace serves the file storage routes; asked once."""
        if self._stores is None:
            self._stores = await self._unless_gone("GET", "/storage") is not None
        return self._stores

    async def read_file(self, path: str) -> bytes | None:
        """A file of the storage; None if it is not there."""
        answer = await self._unless_gone("GET", _stored(path))
        return None if answer is None else bytes(answer.content)

    async def list_folder(self, path: str) -> list[StoredFile]:
        """Entries of a folder of the storage; empty if it is not there."""
        answer = await self._unless_gone("GET", _stored(path))
        return [] if answer is None else self._decoded("GET", _stored(path), answer, _files)

    async def make_folder(self, path: str) -> None:
        """Make a folder of the storage, and those above it."""
        parts = [part for part in path.split("/") if part]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if await self._unless_gone("HEAD", _stored(folder)) is None:
                await self.api.send("PUT", _stored(folder))

    async def remove_folder(self, path: str) -> bool:
        """Remove a folder of the storage with all that is in it; False if it is not there."""
        return await self._unless_gone("DELETE", _stored(path), {"removeall": "true"}) is not None

    # --- helpers ------------------------------------------------------------------------------------------------------

    async def _unless_gone(
        self, method: str, path: str, params: Params | None = None, body: Any = None
    ) -> Answer | None:
        """The answer of a request, or None where the service says that there is no such thing."""
        try:
            return await self.api.send(method, path, params=params, body=body)
        except RequestFailed as error:
            if error.status == _GONE:
                return None
            raise

    def _decoded(self, method: str, path: str, answer: Answer, decode: Callable[[Document], T]) -> T:
        try:
            return decode(answer.content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            message = f"the answer is not understood: {error}"
            raise RequestFailed(
                "Lepton", method, path, status=None, message=message, maybe_done=method == "POST"
            ) from error


def _job(document: Document) -> Job:
    return decode(document, SeenJob, strict=False).job()


def _files(document: Document) -> list[StoredFile]:
    return decode(document, list[StoredFile], strict=False)


def _stored(path: str) -> str:
    return f"{_STORAGE}/{path.strip('/')}"
