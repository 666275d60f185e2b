"""The API as an HTTP application: who may enter, faults of routes, the log of requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from launcher.emulators.common.front import METHODS, Disconnect, Front, RequestRecord, bearer
from launcher.emulators.deepinfra.account import Account
from launcher.emulators.deepinfra.api import account, deployments, logs
from launcher.emulators.deepinfra.api.call import Call, Handler
from launcher.emulators.deepinfra.errors import ApiError, Shape, answer
from launcher.emulators.deepinfra.faults import FalseRefusal, Refuse
from launcher.emulators.deepinfra.inference import Act, Inference

Respond = Callable[[Request], Awaitable[Response]]


class Control:
    """All routes of one account: those that rent, and those that answer prompts."""

    def __init__(self, account_: Account, disconnect: Disconnect) -> None:
        self.account = account_
        self.inference = Inference(account_)
        self._front = Front(account_.clock, account_.faults, disconnect)
        self._calls = Front(account_.clock, account_.faults, disconnect)

    @property
    def requests(self) -> list[RequestRecord]:
        """All requests so far but those for inference."""
        return self._front.requests

    @property
    def calls(self) -> list[RequestRecord]:
        """All requests for inference so far."""
        return self._calls.requests

    def application(self) -> Starlette:
        """What to serve. A slash at the end of a path does not matter."""
        served = [*deployments.routes(), *logs.routes(), *account.routes()]
        routes = [self._route(path, [method], self._control(handler)) for method, path, handler in served]
        routes += [
            self._route(f"{base}{path}", [method], self._infer(act))
            for base in ("/v1/openai", "/v1")
            for method, path, act in self.inference.routes()
        ]
        open_to_all = self._route("/cli/version", ["GET"], _version)
        flat = [route for pair in (*routes, open_to_all) for route in pair]
        return Starlette(routes=[*flat, Route("/{rest:path}", _unknown, methods=METHODS)])

    def _route(self, path: str, methods: list[str], respond: Respond) -> tuple[Route, Route]:
        return Route(path, respond, methods=methods), Route(f"{path}/", respond, methods=methods)

    def _control(self, handler: Handler) -> Respond:
        async def respond(request: Request) -> Response:
            call = Call(request=request, account=self.account, body=await request.body())
            resource = self._resource(call)

            async def act() -> Response:
                try:
                    self._admit(request, resource, Shape.ERROR)
                    self._refuse_falsely(call, resource, handler)
                    return handler(call)
                except ApiError as error:
                    return error.response()

            return await self._front.respond(request, request.url.path, resource, act)

        return respond

    def _infer(self, act: Act) -> Respond:
        async def respond(request: Request) -> Response:
            body = await request.body()
            resource = self.inference.resource(body)

            async def admitted() -> Response:
                try:
                    self._admit(request, resource, Shape.OPENAI)
                    return await act(body)
                except ApiError as error:
                    return error.response()

            return await self._calls.respond(request, request.url.path, resource, admitted)

        return respond

    def _admit(self, request: Request, resource: str, shape: Shape) -> None:
        """Raises ApiError for whom must not enter, and for what a fault refuses."""
        config = self.account.config
        key = bearer(request.headers.get("authorization", "")) or request.headers.get("xi-api-key")
        if key not in config.keys:
            raise _unauthorized(config.unauthorized, shape)
        fault = self.account.faults.pick(Refuse, resource, f"{request.method} {request.url.path}")
        if fault is not None:
            kind = fault.shape if shape is Shape.ERROR else shape
            raise ApiError(fault.status, fault.message, kind, retry_after=fault.retry_after)

    def _refuse_falsely(self, call: Call, resource: str, handler: Handler) -> None:
        """Raises ApiError where a fault says so; what was asked happens later."""
        route = f"{call.request.method} {call.request.url.path}"
        if (fault := self.account.faults.pick(FalseRefusal, resource, route)) is not None:
            self.account.later(fault.seconds, lambda: _do(handler, call))
            raise ApiError(fault.status, fault.message)

    def _resource(self, call: Call) -> str:
        """What faults call the resource of a request: the name of the deployment without its owner."""
        id_ = call.request.path_params.get("deploy_id") or call.query("deploy_id")
        if id_:
            found = self.account.deployments.get(id_)
            return found.short_name if found else str(id_)
        return _name_in(call.body).rpartition("/")[2]


def _do(handler: Handler, call: Call) -> None:
    try:
        handler(call)
    except ApiError:
        return  # nobody is there to be told


def _unauthorized(how: str, shape: Shape) -> ApiError:
    if how == "forbidden":
        return ApiError(403, "Not authenticated", Shape.PLAIN)
    inside = Shape.DETAIL if how == "detail" else shape
    return ApiError(401, "Invalid or missing API key", inside)


def _name_in(body: bytes) -> str:
    try:
        parsed: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    return str(parsed.get("model_name", "")) if isinstance(parsed, dict) else ""


async def _version(request: Request) -> Response:
    return answer({"version": request.query_params.get("version", ""), "update": False})


async def _unknown(_: Request) -> Response:
    return ApiError(404, "Not Found", Shape.PLAIN).response()
