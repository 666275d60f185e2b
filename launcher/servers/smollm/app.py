"""The HTTP routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from jinja2 import TemplateError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from launcher.servers.smollm import job, protocol, replies
from launcher.servers.smollm.chat import ChatTemplate
from launcher.servers.smollm.engine import Engine
from launcher.servers.smollm.protocol import ApiError, Prompt
from launcher.servers.smollm.runtime import Runtime

_DEFAULT_MAX_TOKENS = 16  # OpenAI's, for completions


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that answers. `revision` names the exact weights."""

    runtime: Runtime
    engine: Engine
    chat: ChatTemplate | None
    revision: str


@dataclass(kw_only=True)
class Service:
    """What the routes serve. `context` is the longest prompt plus answer in tokens; `model` is None while it loads."""

    served_name: str
    model_id: str
    context: int
    model: LoadedModel | None = None
    started: int = field(default_factory=lambda: int(time.time()))

    @property
    def loaded(self) -> LoadedModel:
        """The model. Raises ApiError while it loads."""
        if self.model is None:
            raise ApiError(503, "the model is loading", type_="unavailable_error")
        return self.model

    async def health(self, _: HttpRequest) -> Response:
        """GET /health: 503 while the model loads, then 200."""
        return _json({"status": "ok", "revision": self.loaded.revision})

    async def models(self, _: HttpRequest) -> Response:
        """GET /v1/models: the one model that is served."""
        model = {
            "id": self.served_name,
            "object": "model",
            "created": self.started,
            "owned_by": "nv-eval",
            "root": self.model_id,
            "revision": self.loaded.revision,
            "max_model_len": self.context,
        }
        return _json({"object": "list", "data": [model]})

    async def tokenizer_info(self, _: HttpRequest) -> Response:
        """GET /tokenizer_info: what a client needs to know of the tokenizer besides /tokenize and /detokenize."""
        chat = self.loaded.chat
        return _json({**_special_tokens(self.loaded.runtime), "chat_template": chat.source if chat else None})

    async def tokenize(self, http: HttpRequest) -> Response:
        """POST /tokenize: text to token ids."""
        body = protocol.parse(await http.body(), protocol.TokenizeBody)
        self._check_name(body.model)
        tokens = self.loaded.runtime.tokenize(body.prompt, add_special=body.add_special_tokens)
        return _json({"tokens": tokens, "count": len(tokens), "max_model_len": self.context})

    async def detokenize(self, http: HttpRequest) -> Response:
        """POST /detokenize: token ids to text."""
        body = protocol.parse(await http.body(), protocol.DetokenizeBody)
        self._check_name(body.model)
        runtime = self.loaded.runtime
        pieces = map(runtime.piece, protocol.checked_tokens(body.tokens, runtime))
        return _json({"prompt": b"".join(pieces).decode(errors="replace")})

    async def completions(self, http: HttpRequest) -> Response:
        """POST /v1/completions."""
        body = protocol.parse(await http.body(), protocol.CompletionBody)
        self._check_name(body.model)
        runtime = self.loaded.runtime
        prompts = protocol.prompts(body.prompt, runtime)
        wanted = _DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        requests = [
            job.Request(
                tokens=prompt.tokens,
                max_tokens=protocol.fit(prompt.tokens, wanted, self.context),
                sampling=body.sampling,
                stop=body.stops,
                score_prompt=body.echo,
                top=body.logprobs,
            )
            for prompt in prompts
        ]
        done = await self._compute(requests)
        choices = [
            replies.text_choice(
                index, prompt, each, echo=body.echo, logprobs=body.logprobs is not None, piece=runtime.piece
            )
            for index, (prompt, each) in enumerate(zip(prompts, done, strict=True))
        ]
        return _json(replies.completion(self.served_name, choices, replies.usage(prompts, done)))

    async def chat_completions(self, http: HttpRequest) -> Response:
        """POST /v1/chat/completions."""
        body = protocol.parse(await http.body(), protocol.ChatBody)
        self._check_name(body.model)
        prompt = self._chat_prompt(body.messages)
        wanted = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        request = job.Request(
            tokens=prompt.tokens,
            max_tokens=protocol.fit(prompt.tokens, wanted, self.context),
            sampling=body.sampling,
            stop=body.stops,
            top=body.top,
        )
        done = await self._compute([request])
        choice = replies.chat_choice(done[0], logprobs=body.top is not None, piece=self.loaded.runtime.piece)
        return _json(replies.chat_completion(self.served_name, choice, replies.usage([prompt], done)))

    def _chat_prompt(self, messages: Sequence[protocol.Message]) -> Prompt:
        if self.loaded.chat is None:
            raise ApiError(400, "this model has no chat template; use /v1/completions", param="messages")
        try:
            text = self.loaded.chat.render([message.plain() for message in messages])
        except TemplateError as error:
            raise ApiError(400, f"the chat template refuses these messages: {error}", param="messages") from None
        return Prompt(text, tuple(self.loaded.runtime.tokenize(text, add_special=False)))

    async def _compute(self, requests: Sequence[job.Request]) -> list[job.Completion]:
        """Results in the order of `requests`; computed in an order that puts those that begin alike together."""
        order = sorted(range(len(requests)), key=lambda index: requests[index].tokens)
        engine = self.loaded.engine
        futures = {index: asyncio.wrap_future(engine.submit(requests[index])) for index in order}
        try:
            return list(await asyncio.gather(*(futures[index] for index in range(len(requests)))))
        except (RuntimeError, ValueError, MemoryError) as error:
            raise ApiError(500, f"the model failed: {error}", type_="InternalServerError") from error
        finally:
            for future in futures.values():
                future.cancel()

    def _check_name(self, name: str | None) -> None:
        if name is not None and name != self.served_name:
            raise ApiError(404, f"The model `{name}` does not exist.", type_="NotFoundError", param="model")


def create_app(service: Service) -> Starlette:
    """The server's routes."""
    return Starlette(
        routes=[
            Route("/health", service.health),
            Route("/v1/health/ready", service.health),  # as NIM calls it
            Route("/v1/models", service.models),
            Route("/v1/completions", service.completions, methods=["POST"]),
            Route("/v1/chat/completions", service.chat_completions, methods=["POST"]),
            Route("/tokenizer_info", service.tokenizer_info),
            Route("/tokenize", service.tokenize, methods=["POST"]),
            Route("/detokenize", service.detokenize, methods=["POST"]),
        ],
        exception_handlers={ApiError: _refused, HTTPException: _no_route},
    )


def load_chat(runtime: Runtime) -> ChatTemplate | None:
    """The model's chat template; None where it has none that works."""
    try:
        return ChatTemplate(runtime.chat_template, _special_tokens(runtime)) if runtime.chat_template else None
    except TemplateError:
        return None


def _special_tokens(runtime: Runtime) -> dict[str, str | None]:
    tokens = {"bos_token": runtime.bos, "eos_token": runtime.eos, "pad_token": runtime.pad}
    return {name: runtime.piece(token).decode() if token >= 0 else None for name, token in tokens.items()}


async def _refused(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _json(error.body, error.status)


async def _no_route(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(ApiError(error.status_code, error.detail, type_="NotFoundError").body, error.status_code)


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
