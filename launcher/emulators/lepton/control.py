"""The control plane as an HTTP application: who may enter, faults of routes, the log of requests."""

from __future__ import annotations

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from launcher.emulators.common.faults import Refuse
from launcher.emulators.common.front import METHODS, Disconnect, Front, RequestRecord, bearer
from launcher.emulators.lepton.api import account, endpoints, jobs, logs, storage, templates
from launcher.emulators.lepton.api.call import Call, Handler, Routes, answer
from launcher.emulators.lepton.config import Config
from launcher.emulators.lepton.errors import ApiError, Code, not_found
from launcher.emulators.lepton.workspace import Workspace


class Control:
    """The control plane of one workspace."""

    def __init__(self, workspace: Workspace, data_plane: str, disconnect: Disconnect) -> None:
        self.workspace = workspace
        self._front = Front(workspace.clock, workspace.faults, disconnect)
        self._data_plane = data_plane
        self._base = base_path(workspace.config)

    @property
    def requests(self) -> list[RequestRecord]:
        """All requests so far."""
        return self._front.requests

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
        call = Call(request=request, workspace=self.workspace, body=await request.body(), data_plane=self._data_plane)
        path = request.url.path.removeprefix(self._base)
        resource = _resource(call)

        async def answer_or_refuse() -> Response:
            try:
                self._admit(call, f"{request.method} {path}", resource)
                return await handler(call)
            except ApiError as error:
                return _refusal(error)
            finally:
                if request.method not in ("GET", "HEAD", "POST"):  # a POST creates, which is counted
                    self.workspace.forget_used()

        return await self._front.respond(request, path, resource, answer_or_refuse)

    def _admit(self, call: Call, route: str, resource: str) -> None:
        """Raises ApiError for whom must not enter, and for what a fault refuses."""
        config = self.workspace.config
        if not f"{call.request.url.path}/".startswith(f"{self._base}/"):
            raise not_found("workspace or route", call.request.url.path)
        check_token(call.request.headers.get("authorization", ""), config, self.workspace.clock.now())
        if (fault := self.workspace.faults.pick(Refuse, resource, route)) is not None:
            raise ApiError(fault.status, Code.INTERNAL, fault.message, retry_after=fault.retry_after)


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
