"""A model without weights: it answers ` ok` to everything, with as many words as it may, streamed where asked.

It has no log-probabilities: none that it could make up would be right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

WORD = " ok"
MOST_WORDS = 16
"""Words of an answer where a request does not say how many."""
HEALTH = ("/health", "/v1/health/ready", "/v1/health/live")
"""Where servers are asked for their health: vLLM and most others, and NIM."""


async def _completions(request: Request) -> Response:
    asked = msgspec.json.decode(await request.body())
    prompt = asked.get("prompt", "")
    length = len(prompt.split()) if isinstance(prompt, str) else len(prompt)
    return _answer(asked, "text_completion", length, lambda text, _: {"text": text, "logprobs": None})


async def _chat(request: Request) -> Response:
    asked = msgspec.json.decode(await request.body())
    length = sum(len(str(message.get("content", "")).split()) for message in asked.get("messages", ()))

    def content(text: str, is_part: bool) -> dict[str, Any]:
        return {"delta" if is_part else "message": {"role": "assistant", "content": text}}

    kind = "chat.completion.chunk" if asked.get("stream") else "chat.completion"
    return _answer(asked, kind, length, content)


def _answer(asked: dict[str, Any], kind: str, length: int, content: Any) -> Response:
    words = asked.get("max_tokens") or MOST_WORDS
    usage = {"prompt_tokens": length, "completion_tokens": words, "total_tokens": length + words}
    head = {"id": "canned", "object": kind, "created": 0, "model": asked.get("model", "")}
    if not asked.get("stream"):
        choice = {"index": 0, "finish_reason": "length", **content(WORD * words, False)}
        return _json({**head, "choices": [choice], "usage": usage})
    parts = [{"index": 0, "finish_reason": None, **content(WORD, True)} for _ in range(words)]
    parts[-1]["finish_reason"] = "length"
    chunks = [*({**head, "choices": [part]} for part in parts), {**head, "choices": [], "usage": usage}]
    return StreamingResponse(_events(chunks), media_type="text/event-stream")


def _events(chunks: list[dict[str, Any]]) -> Iterator[bytes]:
    for chunk in chunks:
        yield b"data: " + msgspec.json.encode(chunk) + b"\n\n"
    yield b"data: [DONE]\n\n"


async def _health(_request: Request) -> Response:
    return Response()


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _routes() -> list[Route]:
    return [
        Route("/v1/completions", _completions, methods=["POST"]),
        Route("/v1/chat/completions", _chat, methods=["POST"]),
    ]


def serving(name: str | None) -> Starlette:
    """A server of this model, as vLLM and the like are one: it is healthy, lists the model, and answers.

    Of a model without a name it lists none: 404.
    """

    async def models(_request: Request) -> Response:
        return _json({"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "canned"}]})

    health = [Route(path, _health) for path in HEALTH]
    return Starlette(routes=[*_routes(), *health, *([Route("/v1/models", models)] if name else [])])


model = Starlette(routes=_routes())
"""The application that only answers."""
