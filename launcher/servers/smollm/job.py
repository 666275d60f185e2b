"""One request on its way: the prompt, the tokens generated so far, and the text they make."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from launcher.servers.smollm.runtime import Runtime, Sampling
from launcher.servers.smollm.scores import TokenScore, score

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt and what to do with it.

    `top` asks for scores that list so many likeliest tokens (None: no scores), with `score_prompt` also for the
    prompt's own tokens. At most `max_tokens` are generated, fewer where one of the `stop` strings appears.
    """

    tokens: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    score_prompt: bool = False
    top: int | None = None

    @property
    def prompt_top(self) -> int | None:
        """Likeliest tokens to list per prompt token; None where the prompt is not scored."""
        return self.top if self.score_prompt else None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What came of a Request.

    `text` lacks the stop string and markup; `generated` holds every token that was computed. `prompt_scores` are those
    of the prompt's tokens from the second on.
    """

    text: str
    generated: tuple[int, ...]
    prompt_scores: tuple[TokenScore, ...]
    scores: tuple[TokenScore, ...]
    finish_reason: FinishReason


class Job:
    """A request being computed. Only the engine's thread may call its methods."""

    def __init__(self, request: Request, runtime: Runtime) -> None:
        self.request = request
        self.future: Future[Completion] = Future()
        self.ended = False
        self._runtime = runtime
        self._sampler = runtime.sampler(request.sampling)
        self._prompt_scores: tuple[TokenScore, ...] = ()
        self._generated: list[int] = []
        self._scores: list[TokenScore] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    @property
    def last(self) -> tuple[int, int]:
        """The token generated last, and its position in the sequence."""
        return self._generated[-1], len(self.request.tokens) + len(self._generated) - 1

    def begin(self, prompt_scores: Sequence[TokenScore], index: int) -> None:
        """The prompt is computed; the first token follows the one fed at `index`."""
        self._prompt_scores = tuple(prompt_scores)
        if self.request.max_tokens:
            self.extend(index)
        else:
            self._end("length")

    def extend(self, index: int) -> None:
        """Choose the next token from what follows the one fed at `index` of the last pass."""
        token = self._runtime.sample(self._sampler, index)
        self._generated.append(token)
        if self.request.top is not None:
            self._scores.append(score(self._runtime.logits(index), token, self.request.top))
        if self._runtime.is_end(token) or self._completes_stop(token):
            self._end("stop")
        elif len(self._generated) == self.request.max_tokens:
            self._end("length")

    def fail(self, error: Exception) -> None:
        """End without a result."""
        self.ended = True
        self.future.set_exception(error)

    def _completes_stop(self, token: int) -> bool:
        """Add the token's text. Where that completes a stop string, cut the text at its first appearance."""
        if self._runtime.is_control(token):
            return False
        before = len(self._text)
        self._text += self._decoder.decode(self._runtime.piece(token))
        hits = [self._text.find(stop, max(0, before - len(stop) + 1)) for stop in self.request.stop]
        cut = min((hit for hit in hits if hit >= 0), default=None)
        if cut is None:
            return False
        self._text = self._text[:cut]
        self._decoder.reset()
        return True

    def _end(self, reason: FinishReason) -> None:
        self.ended = True
        self.future.set_result(
            Completion(
                text=self._text + self._decoder.decode(b"", final=True),
                generated=tuple(self._generated),
                prompt_scores=self._prompt_scores,
                scores=tuple(self._scores),
                finish_reason=reason,
            )
        )
