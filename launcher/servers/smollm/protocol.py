"""The OpenAI requests that are understood: typed, checked, with every refusal in OpenAI's shape."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from launcher.servers.smollm.runtime import Runtime, Sampling

Tokens = tuple[int, ...]
Body = TypeVar("Body", bound=Struct)
NonNegative = Annotated[int, Meta(ge=0)]
TopCount = Annotated[int, Meta(ge=0, le=20)]

_UNSUPPORTED: dict[str, object] = {
    "stream": False,
    "n": 1,
    "best_of": 1,
    "suffix": "",
    "logit_bias": {},
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "min_p": 0,
    "min_tokens": 0,
    "ignore_eos": False,
    "use_beam_search": False,
    "response_format": {"type": "text"},
    "tools": [],
    "functions": [],
}
"""Fields that would change the answer and that this server does not know, with the value that asks for nothing."""


class ApiError(Exception):
    """A refusal: HTTP status, a message for the person, and the field it is about."""

    def __init__(self, status: int, message: str, *, type_: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self._error = {"message": message, "type": type_, "param": param, "code": status}

    @property
    def body(self) -> dict[str, Any]:
        """The error as OpenAI writes it."""
        return {"error": self._error}


class Generation(Struct, kw_only=True):
    """Fields that both kinds of completion have."""

    model: str | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: NonNegative | None = None

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen; a seed of its own where none is given."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=self.top_p or 1.0,
            top_k=max(0, self.top_k or 0),
            seed=secrets.randbits(32) if self.seed is None else self.seed % (1 << 32),
        )

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if "" in stops:
            raise ApiError(400, "a stop string must not be empty", param="stop")
        return tuple(stops)


class CompletionBody(Generation, kw_only=True):
    """Body of POST /v1/completions."""

    prompt: str | list[Any]
    echo: bool = False
    logprobs: TopCount | None = None


class TextPart(Struct):
    """One piece of a message."""

    type: str
    text: str = ""


class Message(Struct):
    """One message of a chat."""

    role: str
    content: str | list[TextPart] | None = None

    def plain(self) -> dict[str, str]:
        """Role and text. Raises ApiError where the content is something else than text."""
        if isinstance(self.content, list):
            if any(part.type != "text" for part in self.content):
                raise ApiError(400, "only text content is supported", param="messages")
            return {"role": self.role, "content": "".join(part.text for part in self.content)}
        return {"role": self.role, "content": self.content or ""}


class ChatBody(Generation, kw_only=True):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: NonNegative | None = None
    logprobs: bool | None = None
    top_logprobs: TopCount | None = None

    @property
    def top(self) -> int | None:
        """Likeliest tokens to list per token; None where no log-probabilities are asked for."""
        return (self.top_logprobs or 0) if self.logprobs else None


class TokenizeBody(Struct, kw_only=True):
    """Body of POST /tokenize."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool = True


class DetokenizeBody(Struct, kw_only=True):
    """Body of POST /detokenize."""

    tokens: list[int]
    model: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and as tokens."""

    text: str
    tokens: Tokens


def parse(raw: bytes, kind: type[Body]) -> Body:
    """The request body as `kind`. Raises ApiError, also for fields that are not supported."""
    try:
        fields = msgspec.json.decode(raw)
        body = msgspec.convert(fields, kind)
    except msgspec.DecodeError as error:
        raise ApiError(400, f"the request body is wrong: {error}") from None
    if issubclass(kind, Generation):
        for name, neutral in _UNSUPPORTED.items():
            if fields.get(name, neutral) not in (None, neutral):
                raise ApiError(400, f"{name}={fields[name]!r} is not supported by this server", param=name)
    return body


def prompts(given: str | list[Any], runtime: Runtime) -> list[Prompt]:
    """The prompts of a completion: a string, a list of strings, token ids, or a list of lists of token ids."""
    if isinstance(given, str):
        return [_from_text(given, runtime)]
    if given and all(isinstance(item, str) for item in given):
        return [_from_text(text, runtime) for text in given]
    if given and all(isinstance(item, list) for item in given):
        return [_from_tokens(tokens, runtime) for tokens in given]
    return [_from_tokens(given, runtime)]


def checked_tokens(tokens: Sequence[object], runtime: Runtime) -> Tokens:
    """Token ids of this vocabulary. Raises ApiError for anything else."""
    valid = tuple(token for token in tokens if type(token) is int and 0 <= token < runtime.n_vocab)
    if len(valid) != len(tokens):
        raise ApiError(400, f"token ids are integers from 0 to {runtime.n_vocab - 1}", param="prompt")
    return valid


def fit(prompt: Tokens, max_tokens: int | None, context: int) -> int:
    """How many tokens may be generated: `max_tokens`, or all that fit. Raises ApiError where it is too much."""
    if not prompt:
        raise ApiError(400, "the prompt is empty", param="prompt")
    room = context - len(prompt)
    if room < (max_tokens or 0):
        raise ApiError(
            400,
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{len(prompt)} prompt tokens and {max_tokens or 0} completion tokens.",
            param="max_tokens" if room >= 0 else "prompt",
        )
    return room if max_tokens is None else max_tokens


def _from_text(text: str, runtime: Runtime) -> Prompt:
    return Prompt(text, tuple(runtime.tokenize(text, add_special=True)))


def _from_tokens(tokens: Sequence[object], runtime: Runtime) -> Prompt:
    checked = checked_tokens(tokens, runtime)
    return Prompt(b"".join(map(runtime.piece, checked)).decode(errors="replace"), checked)
