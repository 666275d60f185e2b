"""The control plane as an HTTP application: who may enter, faults of routes, the log of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from launcher.emulators.lepton.api import account, endpoints, jobs, logs, storage, templates
from launcher.emulators.lepton.api.call import Call, Handler, Routes, answer
from launcher.emulators.lepton.config import Config
from launcher.emulators.lepton.errors import ApiError, Code, not_found
from launcher.emulators.lepton.faults import LateEffect, LoseAnswer, Refuse, SlowAnswer
from launcher.emulators.lepton.workspace import Workspace

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request. `path` below the workspace, without the query; `time` in seconds since 1970.

    `status` is what was or would have been answered; `lost`: the connection was closed instead.
    """

    method: str
    path: str
    query: str
    time: float
    status: int
    lost: bool = False


Disconnect = Callable[[Request], None]
"""Closes the connection of a request at once."""


class Control:
    """The control plane of one workspace."""

    def __init__(self, workspace: Workspace, data_plane: str, disconnect: Disconnect) -> None:
        self.workspace = workspace
        self.requests: list[RequestRecord] = []
        self._data_plane = data_plane
        self._disconnect = disconnect
        self._base = base_path(workspace.config)

    def application(self) -> Starlette:
        """What to serve."""
        served = [self._route(self._base + path, [method], handler) for method, path, handler in self._routes()]
        return Starlette(routes=[*served, self._route("/{rest:path}", METHODS, account.unknown)])

    def _routes(self) -> Routes:
        config = self.workspace.config
        served = [
            *account.routes(),
            *endpoints.routes(new=config.new_deployment_api),
            *jobs.routes(),
            *logs.routes(),
        ]
        served += templates.routes() if config.template_routes else []
        return [*served, *storage.routes()] if config.storage_routes else served

    def _route(self, path: str, methods: list[str], handler: Handler) -> Route:
        async def respond(request: Request) -> Response:
            return await self._respond(request, handler)

        return Route(path, respond, methods=methods)

    async def _respond(self, request: Request, handler: Handler) -> Response:
        time = self.workspace.clock.now()
        call = Call(request=request, workspace=self.workspace, body=await request.body(), data_plane=self._data_plane)
        path = request.url.path.removeprefix(self._base)
        route, resource = f"{request.method} {path}", _resource(call)
        await self._hold(resource, route)
        try:
            self._admit(call, route, resource)
            response = await handler(call)
        except ApiError as error:
            response = _refusal(error)
        lost = response.status_code < 400 and self.workspace.faults.pick(LoseAnswer, resource, route) is not None
        self.requests.append(
            RequestRecord(
                method=request.method,
                path=path,
                query=request.url.query,
                time=time,
                status=response.status_code,
                lost=lost,
            )
        )
        await self._delay(resource, route)
        if lost:
            self._disconnect(request)
        return response

    def _admit(self, call: Call, route: str, resource: str) -> None:
        """Raises ApiError for whom must not enter, and for what a fault refuses."""
        config = self.workspace.config
        if not f"{call.request.url.path}/".startswith(f"{self._base}/"):
            raise not_found("workspace or route", call.request.url.path)
        check_token(call.request.headers.get("authorization", ""), config, self.workspace.clock.now())
        if (fault := self.workspace.faults.pick(Refuse, resource, route)) is not None:
            raise ApiError(fault.status, Code.INTERNAL, fault.message, retry_after=fault.retry_after)

    async def _hold(self, resource: str, route: str) -> None:
        if (late := self.workspace.faults.pick(LateEffect, resource, route)) is not None:
            await asyncio.sleep(late.seconds)

    async def _delay(self, resource: str, route: str) -> None:
        if (slow := self.workspace.faults.pick(SlowAnswer, resource, route)) is not None:
            await asyncio.sleep(slow.seconds)


def base_path(config: Config) -> str:
    """Path of all routes of a workspace."""
    return f"/api/v2/workspaces/{config.workspace}"


def check_token(header: str, config: Config, now: float) -> None:
    """Raises ApiError: 401 for no, an unknown or an expired token, 403 for one of another workspace."""
    value = bearer(header)
    if value in config.foreign_tokens:
        raise ApiError(403, Code.FORBIDDEN, "the token may not use this workspace")
    if not is_workspace_token(value, config, now):
        raise ApiError(401, Code.UNAUTHORIZED, "missing, unknown or expired token")


def is_workspace_token(value: str | None, config: Config, now: float) -> bool:
    """Whether this token opens the workspace now."""
    return any(token.value == value and (token.expires_at or now + 1) > now for token in config.tokens)


def bearer(header: str) -> str | None:
    """The token of an Authorization header."""
    kind, _, value = header.partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


def _refusal(error: ApiError) -> Response:
    response = answer({"code": error.code, "message": error.message}, error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _resource(call: Call) -> str:
    """What faults call the resource of a request: its name, also where the path has an id."""
    parameters = call.request.path_params
    if "id" in parameters and (job := call.workspace.jobs.get(parameters["id"])) is not None:
        return job.name
    for key in ("name", "path", "id"):
        if key in parameters:
            return str(parameters[key])
    return call.query("job") or call.query("deployment") or call.query("endpoint") or _name_in(call.body)


def _name_in(body: bytes) -> str:
    try:
        metadata = msgspec.json.decode(body)["metadata"]
        return str(metadata.get("name") or metadata["id"])
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return ""
