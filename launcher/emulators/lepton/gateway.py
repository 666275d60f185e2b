"""The data plane: one port for all endpoints, each below `/{workspace}-{name}`."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from itertools import count

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from launcher.emulators.common.front import HOP_BY_HOP, METHODS, bearer
from launcher.emulators.lepton.control import is_workspace_token
from launcher.emulators.lepton.endpoint import Endpoint
from launcher.emulators.lepton.replica import Replica
from launcher.emulators.lepton.wire import TokenVar
from launcher.emulators.lepton.workspace import Workspace
from launcher.platforms.local.ports import HOST

REPLICA_HEADER = "x-lepton-replica-target"
DEFAULT_TIMEOUT = 300.0
"""Seconds without a byte from the container, where the spec says nothing."""


class Gateway:
    """Lets requests with the right token through to the processes of endpoints."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._turn = count()
        nothing_kept = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._http = httpx.AsyncClient(verify=False, trust_env=False, limits=nothing_kept)  # noqa: S501 - loopback

    def application(self) -> Starlette:
        """What to serve."""
        return Starlette(routes=[Route("/{target}{path:path}", self._respond, methods=[*METHODS, "OPTIONS"])])

    async def close(self) -> None:
        """Close all connections to containers."""
        await self._http.aclose()

    async def _respond(self, request: Request) -> Response:
        endpoint = self._find(request.path_params["target"].partition("/")[0])
        if endpoint is None:
            return PlainTextResponse("no such endpoint", 404)
        if (refusal := self._refusal(endpoint, request)) is not None:
            return refusal
        endpoint.last_traffic = self._workspace.clock.now()
        replica = self._choose(endpoint, request)
        if replica is None:
            return PlainTextResponse("no healthy upstream", 503)
        return await self._pass_on(endpoint, replica, request)

    def _find(self, target: str) -> Endpoint | None:
        prefix = f"{self._workspace.config.workspace}-"
        return self._workspace.endpoints.get(target.removeprefix(prefix)) if target.startswith(prefix) else None

    def _refusal(self, endpoint: Endpoint, request: Request) -> Response | None:
        """401 without a token that opens this endpoint, 403 from an address that is not listed."""
        allowed = (endpoint.spec.auth_config and endpoint.spec.auth_config.ip_allowlist) or ()
        address = ipaddress.ip_address(request.client.host if request.client else HOST)
        if allowed and not any(address in ipaddress.ip_network(network, strict=False) for network in allowed):
            return PlainTextResponse("address not allowed", 403)
        tokens = endpoint.spec.api_tokens or []
        token = bearer(request.headers.get("authorization", ""))
        if tokens and not self._is_workspace_token(token) and token not in self._values(tokens):
            return PlainTextResponse("unauthorized", 401)
        return None

    def _is_workspace_token(self, token: str | None) -> bool:
        return is_workspace_token(token, self._workspace.config, self._workspace.clock.now())

    def _values(self, tokens: list[TokenVar]) -> set[str]:
        """The values of tokens, references resolved."""
        names = [token.value_from.token_name_ref for token in tokens if token.value_from]
        referred = [self._workspace.secret_values[name] for name in names if name in self._workspace.secret_values]
        return {*referred, *(token.value for token in tokens if token.value)}

    def _choose(self, endpoint: Endpoint, request: Request) -> Replica | None:
        """The replica that a header asks for, else each in turn."""
        ready = endpoint.ready
        policy = endpoint.spec.routing_policy
        wanted = request.headers.get(REPLICA_HEADER)
        if wanted and policy and policy.enable_header_based_replica_routing:
            ready = [replica for replica in ready if replica.id == wanted]
        return ready[next(self._turn) % len(ready)] if ready else None

    def _client(self, replica: Replica) -> httpx.AsyncClient:
        if replica.application is None:
            return self._http
        return httpx.AsyncClient(transport=httpx.ASGITransport(replica.application), trust_env=False)

    async def _pass_on(self, endpoint: Endpoint, replica: Replica, request: Request) -> Response:
        seconds = endpoint.spec.ingress_timeout_seconds or DEFAULT_TIMEOUT
        try:
            answer = await self._client(replica).send(self._forwarded(endpoint, replica, request, seconds), stream=True)
        except httpx.TimeoutException:
            return PlainTextResponse("upstream request timeout", 504)
        except httpx.TransportError:
            return PlainTextResponse("upstream connect error or disconnect before headers", 503)
        response = StreamingResponse(self._body(endpoint, answer), answer.status_code)
        response.raw_headers = [
            (name.lower(), value) for name, value in answer.headers.raw if name.decode().lower() not in HOP_BY_HOP
        ]
        return response

    def _forwarded(self, endpoint: Endpoint, replica: Replica, request: Request, seconds: float) -> httpx.Request:
        path = "/" + request.scope["raw_path"].decode("ascii").lstrip("/").partition("/")[2]
        query = request.scope["query_string"].decode("ascii")
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        return httpx.Request(
            request.method,
            f"http://{HOST}:{replica.port or 80}{path}{'?' if query else ''}{query}",
            headers=self._headers(endpoint, request),
            content=request.stream() if has_body else None,
            extensions={"timeout": httpx.Timeout(seconds, connect=5.0).as_dict()},
        )

    def _headers(self, endpoint: Endpoint, request: Request) -> list[tuple[bytes, bytes]]:
        auth = endpoint.spec.auth_config and endpoint.spec.auth_config.lepton_workspace_token_auth
        dropped = {*HOP_BY_HOP, "authorization"} if auth and auth.remove_authorization_header else HOP_BY_HOP
        return [(name, value) for name, value in request.headers.raw if name.decode("latin-1") not in dropped]

    async def _body(self, endpoint: Endpoint, answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                yield chunk
        finally:
            endpoint.last_traffic = self._workspace.clock.now()
            await answer.aclose()
