"""The one module that knows cyllama: a model, its vocabulary, and a context with several sequences.

Works with cyllama 0.2.18 (Python 3.11) and 0.7 (Python 3.12 and later).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cyllama.llama.llama_cpp as native
import numpy as np

from launcher.errors import PreflightError
from launcher.servers.smollm.scores import Logits

CHUNK = 48
"""Tokens per forward pass. Below 64, llama.cpp's CPU flash attention computes every row on its own, so that a token's
logits are the same bits however a prompt is cut up, continued or batched. From 64 on it takes a blocked kernel whose
last-bit differences the 8-bit activations of a quantised model amplify to 0.3 in one log-probability."""
_PADDING = 256
_FLASH_ATTENTION_ON = 1
_GGML_LOG_LEVEL_ERROR = 4
_GPT2_VOCABULARY = 2


@dataclass(frozen=True, slots=True)
class Feed:
    """One token for the next forward pass. `slot` is its sequence; `logits` asks for those that follow it."""

    token: int
    position: int
    slot: int
    logits: bool


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the likeliest; `top_k` 0 and `top_p` 1 leave nothing out."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


class _Model(native.LlamaModel):  # type: ignore[misc]
    @property
    def n_vocab(self) -> int:
        """0.2.18's own `get_logits_ith` asks for this and the class lacks it."""
        return int(self.get_vocab().n_vocab)


class Runtime:
    """A loaded model. Decoding is for one thread at a time; the vocabulary may be used from any.

    `context` is the longest sequence in tokens, `slots` the number of sequences side by side.
    Raises PreflightError for a file that is no usable model or a context longer than the model's.
    """

    def __init__(self, path: Path, *, context: int, slots: int, threads: int) -> None:
        native.set_log_callback(_log)
        native.ggml_backend_load_all()
        self._model = _load(path)
        self._vocab = self._model.get_vocab()
        self.n_vocab = int(self._vocab.n_vocab)
        trained = int(self._model.n_ctx_train)
        if context > trained:
            raise PreflightError(f"a context of {context} tokens is too long: {path.name} was trained for {trained}")
        self._context = native.LlamaContext(self._model, _context_params(context, slots, threads))
        self._batch = native.LlamaBatch(n_tokens=max(CHUNK, slots), embd=0, n_seq_max=1)
        self.eos = int(self._vocab.token_eos())
        self.bos = int(self._vocab.token_bos())
        self.pad = int(self._vocab.token_pad())
        self.piece = cache(self._piece)

    @property
    def chat_template(self) -> str | None:
        """The Jinja template in the model's own metadata."""
        return dict(self._model.metadata()).get("tokenizer.chat_template") or None

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Token ids of `text`; special tokens written out in it count as such."""
        return list(self._vocab.tokenize(text, add_special, True))

    def is_end(self, token: int) -> bool:
        """Whether this token ends a generation."""
        return bool(self._vocab.is_eog(token))

    def is_control(self, token: int) -> bool:
        """Whether this token is markup rather than text."""
        return bool(self._vocab.is_control(token))

    def decode(self, feeds: Sequence[Feed]) -> None:
        """One forward pass over at most CHUNK tokens."""
        self._batch.clear()
        for feed in feeds:
            self._batch.add(feed.token, feed.position, [feed.slot], feed.logits)
        self._context.decode(self._batch)

    def logits(self, index: int) -> Logits:
        """What follows the token fed at `index` of the last pass, over the whole vocabulary."""
        return np.array(self._context.get_logits_ith(index), dtype=np.float64)

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens of a sequence."""
        self._context.memory_seq_rm(slot, length, -1)

    def save(self, slot: int) -> bytes:
        """The computed keys and values of a sequence."""
        state: bytes = self._context.get_state_seq_data(slot)
        return state

    def restore(self, slot: int, state: bytes) -> None:
        """Put a saved sequence into `slot`."""
        self.truncate(slot, 0)
        self._context.set_state_seq_data(state, slot)

    def sampler(self, sampling: Sampling) -> Any:
        """A sampler of its own random state, for `sample`."""
        chain = native.LlamaSampler(native.LlamaSamplerChainParams())
        if sampling.temperature == 0:
            chain.add_greedy()
            return chain
        chain.add_temp(sampling.temperature)
        if sampling.top_k > 0:
            chain.add_top_k(sampling.top_k)
        if sampling.top_p < 1:
            chain.add_top_p(sampling.top_p, 1)
        chain.add_dist(sampling.seed)
        return chain

    def sample(self, sampler: Any, index: int) -> int:
        """The next token after the one fed at `index` of the last pass."""
        return int(sampler.sample(self._context, index))

    def _piece(self, token: int) -> bytes:
        """Bytes of one token; it may hold part of a character."""
        if hasattr(self._vocab, "token_to_bytes"):
            return bytes(self._vocab.token_to_bytes(token, special=True))
        piece = str(self._vocab.token_to_piece(token, 0, True))
        if "\N{REPLACEMENT CHARACTER}" not in piece:
            return piece.encode()
        text = str(self._vocab.get_text(token))
        if int(self._vocab.vocab_type) == _GPT2_VOCABULARY:
            return bytes(_gpt2_bytes()[character] for character in text)
        return bytes([int(text[3:-1], 16)])  # written as <0xE6>


def _load(path: Path) -> Any:
    params = native.LlamaModelParams()
    params.n_gpu_layers = 0
    try:
        return _Model(str(path), params)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).split(". ")[0]  # advice about cyllama's own options follows
        raise PreflightError(f"cannot load {path}: {reason}") from None


def _context_params(context: int, slots: int, threads: int) -> Any:
    params = native.LlamaContextParams()
    # Each slot keeps a KV buffer of its own: one that is shared would make a sequence's numbers depend on the others.
    params.kv_unified = False
    params.n_seq_max = slots
    params.n_ctx = slots * -(-context // _PADDING) * _PADDING
    params.n_batch = params.n_ubatch = CHUNK
    params.flash_attn_type = _FLASH_ATTENTION_ON
    params.n_threads = params.n_threads_batch = threads
    return params


def _log(level: int, text: str) -> None:
    if level == _GGML_LOG_LEVEL_ERROR:
        sys.stderr.write(text)


@cache
def _gpt2_bytes() -> dict[str, int]:
    """The byte behind each character in the vocabulary of a byte-level BPE: printable Latin-1 stands for itself."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}
