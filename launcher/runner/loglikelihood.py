"""Whether a server returns log-probabilities of the prompt, and whether they are right.

Part of the runner: standard library only, as it runs inside any image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from launcher.runner.client import Answer, Client, Ending, EndpointProblem, first_choice, one_line


@dataclass(frozen=True)
class Scored:
    """A prompt's log-probabilities as the server gave them, the answer's one token last."""

    values: list[float]
    tokens: list[str]

    @property
    def prompt_sum(self) -> float:
        """Log-probability of the prompt after its first token."""
        return sum(self.values[1:-1])


@dataclass(frozen=True, kw_only=True)
class LoglikelihoodProbe:
    """Does the server return log-probabilities of the prompt, and are they those of the prompt's tokens?

    `ask` posts to /v1/completions, `completes` tells whether a plain completion works right now, and `pause` waits
    before a request is tried again.
    """

    model: str
    client: Client
    ask: Callable[[dict[str, Any]], Answer]
    completes: Callable[[], bool]
    pause: Callable[[], None]

    PROMPT: ClassVar = "The capital of France is Paris"
    # A surprising word whose next token is all but certain: a value that belongs to a neighbour is far off, while
    # rounding in half precision hardly moves it.
    CERTAIN: ClassVar = ("My parents met in Los", "We moved to Hong", "My aunt lives in Puerto")
    SUM_TOLERANCE: ClassVar = 1e-2
    TOKEN_TOLERANCE: ClassVar = 5e-2
    TRIES: ClassVar = 3

    def run(self) -> None:
        """Raise EndpointProblem where prompts are not scored, or scored wrong. What cannot be compared is skipped."""
        scored, prompt_tokens = self._echo(self.PROMPT)
        self._compare_token_ids(scored, prompt_tokens)
        self._compare_generated()

    def _compare_token_ids(self, scored: Scored, prompt_tokens: int | None) -> None:
        ids = self._token_ids(prompt_tokens or len(scored.values) - 1)
        if ids is None:
            return
        answer = self._complete(self._body(prompt=ids, echo=True))
        if answer.status != 200:
            return
        again, _ = read_echo(answer, None)
        if abs(again.prompt_sum - scored.prompt_sum) > self.SUM_TOLERANCE:
            raise _wrong(f"a prompt scores {scored.prompt_sum:.3f} as text, {again.prompt_sum:.3f} as token ids")

    def _token_ids(self, count: int) -> list[int] | None:
        for special in (True, False):
            body = {"model": self.model, "prompt": self.PROMPT, "add_special_tokens": special}
            parsed = self.client.ask("/tokenize", body).json
            ids = parsed.get("tokens") if isinstance(parsed, dict) else None
            if isinstance(ids, list) and len(ids) == count and all(isinstance(i, int) for i in ids):
                return ids
        return None

    def _compare_generated(self) -> None:
        pairs = [pair for prompt in self.CERTAIN if (pair := self._generated_and_echoed(prompt))]
        wrong = [pair for pair in pairs if abs(pair[1] - pair[2]) > self.TOKEN_TOLERANCE]
        if len(wrong) * 2 > len(pairs):
            token, generated, echoed = wrong[0]
            detail = f"{token!r} has log-probability {generated:.3f} when generated but {echoed:.3f} when echoed"
            raise _wrong(detail)

    def _generated_and_echoed(self, prompt: str) -> tuple[str, float, float] | None:
        """The next token with its log-probability, generated and echoed; None where they can't be compared."""
        choice = first_choice(self._complete(self._body(prompt=prompt))) or {}
        token = choice.get("text")
        generated = _numbers(choice.get("logprobs"))
        # Exactly 0.0 is what servers say that report greedy sampling itself instead of the model.
        if not isinstance(token, str) or not token or "\ufffd" in token or len(generated) != 1 or generated[0] == 0.0:
            return None
        before, _ = self._echo(prompt)
        after, _ = self._echo(prompt + token)
        same_tokens = after.tokens[:-2] == before.tokens[:-1] and (not after.tokens or after.tokens[-2] == token)
        if len(after.values) != len(before.values) + 1 or not same_tokens:
            return None
        return token, generated[0], after.values[-2]

    def _body(self, **fields: Any) -> dict[str, Any]:
        return {"model": self.model, "logprobs": 1, "max_tokens": 1, "temperature": 0, **fields}

    def _complete(self, body: dict[str, Any]) -> Answer:
        for _ in range(self.TRIES):
            answer = self.ask(body)
            if 200 <= answer.status < 500 and answer.status not in (408, 425, 429):
                break
            self.pause()
        return answer

    def _echo(self, prompt: str) -> tuple[Scored, int | None]:
        answer = self._complete(self._body(prompt=prompt, echo=True))
        if answer.status == 200:
            return read_echo(answer, prompt)
        # Only a server that completes without echo can be said to lack it.
        able = self.completes()
        ending = Ending.LOGLIKELIHOOD_UNSUPPORTED if able else Ending.ENDPOINT_NOT_SERVING
        raise EndpointProblem(ending, f"POST /v1/completions with echo and logprobs: {answer}")


def _numbers(logprobs: Any) -> list[float]:
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    return values if isinstance(values, list) and all(map(_is_logprob, values)) else []


def _is_logprob(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value <= 1e-4  # rounding may pass zero by a hair


def read_echo(answer: Answer, prompt: str | None) -> tuple[Scored, int | None]:
    """The scored prompt and its number of tokens, where told. Raises EndpointProblem for what cannot be scored with.

    `prompt` is None where it was sent as token ids, so that its text is not compared.
    """
    choice = first_choice(answer) or {}
    logprobs, text = choice.get("logprobs"), str(choice.get("text"))
    if prompt and prompt not in text:
        raise _unsupported(f"echo is ignored: asked to echo {prompt!r}, the server answers {text[:60]!r}")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(logprobs, dict) or not isinstance(values, list) or not values:
        raise _unsupported(f"no token_logprobs in the answer: {one_line(answer.body)}")
    usage = answer.json.get("usage")
    prompt_tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if len(values) == 1 and prompt_tokens != 0:
        raise _unsupported("only the answer's token has a log-probability, the prompt's have none")
    if isinstance(prompt_tokens, int) and len(values) != prompt_tokens + 1:
        raise _wrong(f"{len(values)} log-probabilities for {prompt_tokens} prompt tokens and 1 answer token")
    _check_values(values, logprobs.get("top_logprobs"))
    scored = Scored([value or 0.0 for value in values], _token_texts(logprobs, len(values)))
    return scored, prompt_tokens if isinstance(prompt_tokens, int) else None


def _token_texts(logprobs: dict[str, Any], count: int) -> list[str]:
    """The tokens' texts; empty where the server does not name them."""
    tokens = logprobs.get("tokens")
    return tokens if isinstance(tokens, list) and len(tokens) == count else []


def _check_values(values: list[Any], top: Any) -> None:
    if values[0] is not None:
        raise _wrong(f"the first token has log-probability {values[0]!r} although nothing comes before it")
    for position, value in enumerate(values[1:], 1):
        if not _is_logprob(value):
            raise _wrong(f"token {position} has {value!r} for a log-probability")
    if not isinstance(top, list) or not all(isinstance(entry, dict) for entry in top[1:]):
        raise _unsupported("no top_logprobs for the prompt's tokens")
    if len(top) != len(values):
        raise _wrong(f"{len(top)} top_logprobs for {len(values)} tokens")


def _unsupported(detail: str) -> EndpointProblem:
    return EndpointProblem(Ending.LOGLIKELIHOOD_UNSUPPORTED, detail)


def _wrong(detail: str) -> EndpointProblem:
    return EndpointProblem(Ending.LOGLIKELIHOOD_WRONG, detail)
