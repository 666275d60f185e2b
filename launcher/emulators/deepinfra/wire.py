"""What the emulator reads of the documents that clients send. Keys it does not know are ignored, as by the service."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from launcher.config.deployment import DeepInfraGpu
from launcher.decoding import convert
from launcher.emulators.deepinfra.errors import ApiError, Shape

Json = dict[str, Any]


class Scale(Struct):
    """How many instances there are."""

    min_instances: int = 1
    max_instances: int = 1

    @property
    def is_sound(self) -> bool:
        """Whether the bounds fit each other."""
        return 0 <= self.min_instances <= self.max_instances


class Weights(Struct):
    """A repository of Hugging Face."""

    repo: str
    revision: str | None = None
    token: str | None = None


class LlmIn(Struct):
    """Body of POST /deploy/llm."""

    model_name: Annotated[str, Meta(min_length=1)]
    gpu: DeepInfraGpu
    num_gpus: Annotated[int, Meta(ge=1, le=8)] = 1
    max_batch_size: Annotated[int, Meta(ge=1, le=256)] = 96
    hf: Weights | None = None
    base_model: str | None = None
    container_image: str | None = None
    settings: Scale | None = None
    extra_args: list[str] | None = None


class UpdateIn(Struct):
    """Body of PUT /deploy/{id}."""

    settings: Scale


class HfModelIn(Struct):
    """Body of POST /deploy/hf/."""

    model_name: str
    task: str | None = None


class CompletionIn(Struct):
    """What is checked of POST /v1/openai/completions."""

    model: str
    prompt: str | list[int]
    max_tokens: Annotated[int, Meta(gt=0, le=1_000_000)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1
    n: Annotated[int, Meta(ge=1, le=4)] = 1
    stream: bool = False
    logprobs: int | None = None
    echo: bool | None = None


class ChatIn(Struct):
    """What is checked of POST /v1/openai/chat/completions."""

    model: str
    messages: list[Json]
    max_tokens: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1
    n: Annotated[int, Meta(ge=1, le=4)] = 1
    stream: bool = False
    logprobs: bool | None = None


class EmbeddingIn(Struct):
    """What is checked of POST /v1/openai/embeddings."""

    model: str
    input: str | list[str]


S = TypeVar("S", bound=Struct)


def decode(body: bytes) -> Json:
    """A body that is a JSON object. Raises ApiError 422."""
    try:
        return msgspec.json.decode(body, type=Json)
    except msgspec.ValidationError as error:
        raise ApiError(422, str(error), Shape.FIELDS, location=["body"]) from None
    except msgspec.DecodeError as error:
        raise ApiError(422, f"JSON decode error: {error}", Shape.FIELDS, location=["body"]) from None


def read(document: Json, type_: type[S], shape: Shape = Shape.FIELDS) -> S:
    """A document as its type. Raises ApiError 422."""
    try:
        return convert(document, type_)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        location = ["body", *re.findall(r"\w+", path)]
        missing = re.search(r"missing required field `(\w+)`", message)
        if missing:
            location.append(missing[1])
        text = message if shape is Shape.FIELDS else f"{'.'.join(location)}: {message}"
        raise ApiError(422, text, shape, location=location) from None
