"""OpenAI's answers, written from what the engine computed."""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from launcher.servers.smollm.job import Completion
from launcher.servers.smollm.protocol import Prompt
from launcher.servers.smollm.scores import TokenScore

Json: TypeAlias = dict[str, Any]
Piece: TypeAlias = Callable[[int], bytes]


def completion(model: str, choices: list[Json], usage: Json) -> Json:
    """The answer of /v1/completions."""
    return _envelope("cmpl", "text_completion", model, choices, usage)


def chat_completion(model: str, choice: Json, usage: Json) -> Json:
    """The answer of /v1/chat/completions."""
    return _envelope("chatcmpl", "chat.completion", model, [choice], usage)


def usage(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Json:
    """Tokens given and computed."""
    given = sum(len(prompt.tokens) for prompt in prompts)
    computed = sum(len(completion.generated) for completion in completions)
    return {"prompt_tokens": given, "completion_tokens": computed, "total_tokens": given + computed}


def text_choice(index: int, prompt: Prompt, done: Completion, *, echo: bool, logprobs: bool, piece: Piece) -> Json:
    """One choice of /v1/completions; log-probabilities cover the prompt too where it is echoed."""
    tokens = (*prompt.tokens, *done.generated) if echo else done.generated
    scores = (None, *done.prompt_scores, *done.scores) if echo else done.scores
    return {
        "index": index,
        "text": prompt.text + done.text if echo else done.text,
        "logprobs": _text_logprobs(tokens, scores, piece) if logprobs else None,
        "finish_reason": done.finish_reason,
    }


def chat_choice(done: Completion, *, logprobs: bool, piece: Piece) -> Json:
    """The choice of /v1/chat/completions."""
    return {
        "index": 0,
        "message": {"role": "assistant", "content": done.text},
        "logprobs": {"content": [_chat_logprob(score, piece) for score in done.scores]} if logprobs else None,
        "finish_reason": done.finish_reason,
    }


def _envelope(prefix: str, kind: str, model: str, choices: list[Json], usage: Json) -> Json:
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def _text_logprobs(tokens: Sequence[int], scores: Sequence[TokenScore | None], piece: Piece) -> Json:
    return {
        "text_offset": _offsets([piece(token) for token in tokens]),
        "tokens": [_shown(piece(token)) for token in tokens],
        "token_logprobs": [score.logprob if score else None for score in scores],
        "top_logprobs": [_top(score, piece) if score else None for score in scores],
    }


def _top(score: TokenScore, piece: Piece) -> dict[str, float]:
    """The likeliest tokens and the token itself. Of two tokens with the same text, the likelier one stays."""
    shown: dict[str, float] = {}
    for token, logprob in (*score.top, (score.token, score.logprob)):
        shown.setdefault(_shown(piece(token)), logprob)
    return shown


def _chat_logprob(score: TokenScore, piece: Piece) -> Json:
    top = [_described(piece(token), logprob) for token, logprob in score.top]
    return {**_described(piece(score.token), score.logprob), "top_logprobs": top}


def _described(raw: bytes, logprob: float) -> Json:
    return {"token": _shown(raw), "logprob": logprob, "bytes": list(raw)}


def _shown(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _offsets(pieces: Sequence[bytes]) -> list[int]:
    """Characters before each token; a token inside a character counts from where that character starts."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets, length = [], 0
    for raw in pieces:
        offsets.append(length)
        length += len(decoder.decode(raw))
    return offsets
