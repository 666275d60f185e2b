"""Computes prompts, continuing from what earlier prompts that begin alike have left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from launcher.servers.smollm.runtime import CHUNK, Feed, Runtime
from launcher.servers.smollm.scores import TokenScore, score

_WORTH_KEEPING = 32
"""New tokens from which a prompt is kept: more than most answers of a multiple-choice item, less than its question."""


@dataclass(frozen=True, eq=False, slots=True)
class Prefix:
    """A prompt's tokens, its keys and values, and the scores of its tokens from the second on.

    `top` is how many likeliest tokens each score lists; None: the prompt was not scored.
    """

    tokens: NDArray[np.int32]
    state: bytes
    scores: tuple[TokenScore, ...]
    top: int | None

    def common(self, tokens: NDArray[np.int32]) -> int:
        """How many leading tokens are the same."""
        length = min(len(self.tokens), len(tokens))
        different = self.tokens[:length] != tokens[:length]
        return int(different.argmax()) if different.any() else length

    def serves(self, top: int | None) -> bool:
        """Whether its scores list as many tokens as are asked for."""
        return top is None or (self.top is not None and self.top >= top)


class PrefixCache:
    """The most recently used prefixes, up to `budget` bytes of keys and values."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._used = 0
        self._prefixes: list[Prefix] = []  # least recently used first

    def find(self, tokens: Sequence[int], top: int | None) -> tuple[Prefix, int] | None:
        """The prefix that shares most leading tokens, and how many; None where nothing is shared."""
        wanted = np.array(tokens, dtype=np.int32)
        lengths = [prefix.common(wanted) if prefix.serves(top) else 0 for prefix in self._prefixes]
        longest = max(lengths, default=0)
        if not longest:
            return None
        best = self._prefixes.pop(lengths.index(longest))
        self._prefixes.append(best)
        return best, longest

    def add(self, prefix: Prefix) -> None:
        """Keep `prefix`, and let go of the least recently used ones that no longer fit."""
        self._prefixes.append(prefix)
        self._used += len(prefix.state)
        while self._used > self._budget:
            self._used -= len(self._prefixes.pop(0).state)


class PromptReader:
    """Computes prompts into a runtime's slots. `budget` is in bytes; 0 computes every prompt from its first token."""

    def __init__(self, runtime: Runtime, budget: int) -> None:
        self._runtime = runtime
        self._cache = PrefixCache(budget)

    def read(self, slot: int, tokens: Sequence[int], top: int | None) -> tuple[list[TokenScore], int]:
        """Compute a prompt into an empty slot.

        Returns the scores of its tokens from the second on (none where `top` is None), and the index of its last token
        in the runtime's last pass.
        """
        start, scores = self._recall(slot, tokens, top)
        for begin in range(start, len(tokens), CHUNK):
            chunk = tokens[begin : begin + CHUNK]
            self._decode(slot, chunk, begin, every=top is not None, last=begin + len(chunk) == len(tokens))
            if top is not None:
                following = tokens[begin + 1 : begin + len(chunk) + 1]
                scores += [score(self._runtime.logits(row), token, top) for row, token in enumerate(following)]
        if len(tokens) - start >= _WORTH_KEEPING:
            kept = np.array(tokens, dtype=np.int32)
            self._cache.add(Prefix(kept, self._runtime.save(slot), tuple(scores), top))
        return scores, (len(tokens) - start - 1) % CHUNK

    def _recall(self, slot: int, tokens: Sequence[int], top: int | None) -> tuple[int, list[TokenScore]]:
        """Restore what is known: the number of tokens that need no computing, and their scores plus the next one's.

        The last token in common is computed again, because what follows it differs and whole rows are not kept.
        """
        found = self._cache.find(tokens, top)
        if found is None or found[1] < 2:
            return 0, []
        prefix, start = found[0], found[1] - 1
        self._runtime.restore(slot, prefix.state)
        self._runtime.truncate(slot, start)
        if top is None:
            return start, []
        return start, [TokenScore(known.token, known.logprob, known.top[:top]) for known in prefix.scores[:start]]

    def _decode(self, slot: int, chunk: Sequence[int], begin: int, *, every: bool, last: bool) -> None:
        final = len(chunk) - 1
        self._runtime.decode(
            [Feed(token, begin + row, slot, every or (last and row == final)) for row, token in enumerate(chunk)]
        )
