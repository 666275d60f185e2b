"""The data plane: OpenAI's routes, passed on to the server of the deployment that a request names.

Fields that the service does not have are left out, the model gets the name that its server knows, and the answer the
name that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
import msgspec
from starlette.responses import Response, StreamingResponse

from launcher.emulators.common.front import HOP_BY_HOP
from launcher.emulators.deepinfra.account import Account
from launcher.emulators.deepinfra.deployment import Deployment, Status
from launcher.emulators.deepinfra.errors import ApiError, Shape, answer
from launcher.emulators.deepinfra.instance import Instance
from launcher.emulators.deepinfra.statistics import Served
from launcher.emulators.deepinfra.wire import ChatIn, CompletionIn, EmbeddingIn, Json, decode, read
from launcher.platforms.local.ports import HOST

SAMPLING = {
    "model", "stream", "stream_options", "temperature", "top_p", "min_p", "top_k", "max_tokens", "stop", "n",
    "presence_penalty", "frequency_penalty", "repetition_penalty", "response_format", "user", "seed", "logprobs",
    "prompt_cache_key",
}  # fmt: skip
COMPLETION_FIELDS = SAMPLING | {"prompt", "echo", "stop_token_ids", "return_tokens_as_token_ids"}
CHAT_FIELDS = SAMPLING | {
    "messages", "tools", "tool_choice", "reasoning_effort", "reasoning", "chat_template_kwargs",
}  # fmt: skip
EMBEDDING_FIELDS = {"model", "input", "encoding_format", "dimensions"}
TIMEOUT = httpx.Timeout(600.0, connect=5.0)
"""Seconds without a byte from the server."""

Act = Callable[[bytes], Awaitable[Response]]
"""Answers a body."""


@dataclass(frozen=True, kw_only=True)
class _Passage:
    """One request on its way. `named`: what the client called the model. Times are seconds of a monotonic clock."""

    deployment: Deployment
    instance: Instance
    path: str
    body: Json
    named: str
    began: float


class Inference:
    """The data plane of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._turn = count()
        nothing_kept = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._http = httpx.AsyncClient(verify=False, trust_env=False, limits=nothing_kept)  # noqa: S501 - loopback

    def routes(self) -> list[tuple[str, str, Act]]:
        """Method, path below `/v1` and `/v1/openai`, and what answers."""
        return [
            ("GET", "/models", self._models),
            ("POST", "/completions", self._passing("/v1/completions", CompletionIn, COMPLETION_FIELDS)),
            ("POST", "/chat/completions", self._passing("/v1/chat/completions", ChatIn, CHAT_FIELDS)),
            ("POST", "/embeddings", self._passing("/v1/embeddings", EmbeddingIn, EMBEDDING_FIELDS)),
        ]

    def resource(self, body: bytes) -> str:
        """What faults call the resource of a request: the name of the deployment without its owner."""
        try:
            named = msgspec.json.decode(body, type=dict[str, Any]).get("model", "")
        except (msgspec.DecodeError, msgspec.ValidationError):
            return ""
        found = self._account.model(str(named))
        return found.short_name if found else str(named)

    async def close(self) -> None:
        """Close all connections to servers."""
        await self._http.aclose()

    async def _models(self, _: bytes) -> Response:
        owner = self._account.config.owner
        running = [found for found in self._account.deployments.values() if found.status is Status.RUNNING]
        created = [(found.name, int(found.states[0][0]), owner) for found in running]
        created += [(name, 0, "deepinfra") for name in self._account.config.legacy]
        models = [
            {
                "id": name,
                "object": "model",
                "created": time_,
                "owned_by": owned_by,
                "root": name,
                "parent": None,
                "metadata": None,
            }
            for name, time_, owned_by in created
        ]
        return answer({"object": "list", "data": models})

    def _passing(self, path: str, type_: type[ChatIn | CompletionIn | EmbeddingIn], fields: set[str]) -> Act:
        async def act(body: bytes) -> Response:
            document = decode(body)
            asked = read(document, type_)
            deployment = self._running(asked.model)
            passage = _Passage(
                deployment=deployment,
                instance=self._choose(deployment),
                path=path,
                body={**{key: document[key] for key in document.keys() & fields}, "model": deployment.name},
                named=asked.model,
                began=time.monotonic(),
            )
            return await self._pass_on(passage)

        return act

    def _running(self, name: str) -> Deployment:
        """Raises ApiError: 404 for a model that is unknown or does not run, 429 for too many requests."""
        found = self._account.model(name)
        if found is None or found.status is not Status.RUNNING:
            raise ApiError(404, f"The model `{name}` does not exist or is not running", Shape.OPENAI)
        if found.in_flight >= self._account.config.rate_limit:
            raise ApiError(429, "Rate limited", Shape.OPENAI, retry_after=1)
        return found

    def _choose(self, deployment: Deployment) -> Instance:
        """Each in turn. Raises ApiError 429 where none runs: the first request asks for one."""
        ready = deployment.open_instances
        if not ready:
            deployment.wake()
            raise ApiError(429, "Model busy, retry later", Shape.OPENAI, retry_after=1)
        return ready[next(self._turn) % len(ready)]

    async def _pass_on(self, passage: _Passage) -> Response:
        passage.deployment.in_flight += 1
        try:
            received = await self._client(passage.instance).send(self._forwarded(passage), stream=True)
            if received.headers.get("content-type", "").startswith("text/event-stream"):
                return StreamingResponse(self._stream(passage, received), received.status_code, _headers(received))
            await received.aread()
        except httpx.TransportError:
            self._end(passage, None, {}, is_error=True)
            raise ApiError(503, "The model does not answer", Shape.OPENAI) from None
        except BaseException:
            self._end(passage, None, {}, is_error=True)
            raise
        return self._whole(passage, received)

    def _whole(self, passage: _Passage, received: httpx.Response) -> Response:
        try:
            document = msgspec.json.decode(received.content, type=Json)
        except (msgspec.DecodeError, msgspec.ValidationError):
            document = {}
        self._end(passage, None, document, is_error=received.is_error)
        if received.is_error:
            raise ApiError(received.status_code, _message(document), Shape.OPENAI)
        return answer(_named(document, passage.named), received.status_code, _headers(received))

    async def _stream(self, passage: _Passage, received: httpx.Response) -> AsyncIterator[str]:
        first: float | None = None
        usage: Json = {}
        try:
            async for line in received.aiter_lines():
                first = time.monotonic() if first is None and line else first
                if not line.startswith("data: {"):
                    yield f"{line}\n"
                    continue
                document = msgspec.json.decode(line.removeprefix("data: "), type=Json)
                usage = document if document.get("usage") else usage
                yield f"data: {msgspec.json.encode(_named(document, passage.named)).decode()}\n"
        finally:
            self._end(passage, first, usage, is_error=received.is_error)
            await received.aclose()

    def _client(self, instance: Instance) -> httpx.AsyncClient:
        if instance.application is None:
            return self._http
        return httpx.AsyncClient(transport=httpx.ASGITransport(instance.application), trust_env=False)

    def _forwarded(self, passage: _Passage) -> httpx.Request:
        return httpx.Request(
            "POST",
            f"http://{HOST}:{passage.instance.port or 80}{passage.path}",
            json=passage.body,
            extensions={"timeout": TIMEOUT.as_dict()},
        )

    def _end(self, passage: _Passage, first: float | None, document: Json, *, is_error: bool) -> None:
        passage.deployment.in_flight -= 1
        usage = document.get("usage") or {}
        now = time.monotonic()
        passage.deployment.statistics.served.append(
            Served(
                time=self._account.clock.now(),
                seconds=now - passage.began,
                first=(now if first is None else first) - passage.began,
                input_tokens=usage.get("prompt_tokens") or 0,
                output_tokens=usage.get("completion_tokens") or 0,
                is_error=is_error,
            )
        )


def _named(document: Json, name: str) -> Json:
    return {**document, "model": name} if "model" in document else document


def _message(document: Json) -> str:
    error = document.get("error")
    return str(error.get("message", error) if isinstance(error, dict) else error or "the server refused the request")


def _headers(received: httpx.Response) -> dict[str, str]:
    dropped = {*HOP_BY_HOP, "content-length", "content-type", "content-encoding", "server", "date"}
    kept = {name: value for name, value in received.headers.items() if name.lower() not in dropped}
    kind = received.headers.get("content-type", "application/json")
    return {**kept, "content-type": kind} if kind.startswith("text/event-stream") else kept
