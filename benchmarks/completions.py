"""An OpenAI-like server of known capacity: so many requests at once, each for as long as its tokens take.

Its tokens are words. What it answers is a fixed function of the prompt, and so is how long it takes; the
log-probabilities of generated and of echoed tokens agree. It keeps count of what was asked, and when.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import msgspec
from aiohttp import web

MODEL = "served"
LENGTH = 4096
"""Most tokens of prompt plus answer."""
TOKEN = re.compile(r"\s*\S+|\s+")
WORDS = ("the", "of", "and", "a", "model", "asks", "what", "comes", "next", "so", "we", "add", "these", "numbers")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the server can do. `room`: it answers 429 to what comes while so many are served or wait; None: never.

    A request takes `base` seconds, `read` for each token of the prompt and `write` for each of the answer.
    """

    slots: int
    base: float = 0.01
    read: float = 0.001
    write: float = 0.02
    room: int | None = None

    def seconds(self, prompt: int, answer: int) -> float:
        """How long one request takes once it has a slot."""
        return self.base + self.read * prompt + self.write * answer


@dataclass
class Counts:
    """What was asked since the last reset. `first` completion asked, `last` answered: in seconds, monotonic."""

    completions: int = 0
    refused: int = 0
    tokenized: int = 0
    in_flight: int = 0
    most: int = 0
    busy: float = 0.0
    """Seconds in slots, of all together."""
    first: float | None = None
    last: float = 0.0

    @property
    def seconds(self) -> float:
        """From the first completion that was asked to the last answer to one."""
        return self.last - self.first if self.first is not None else 0.0


@dataclass
class Vocabulary:
    """Words and their numbers."""

    words: dict[int, str] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        return [self._number(word) for word in TOKEN.findall(text)]

    def decode(self, tokens: list[int]) -> list[str]:
        """The words of tokens that it has seen."""
        return [self.words[token] for token in tokens]

    def _number(self, word: str) -> int:
        number = crc32(word.encode()) & 0x7FFFFFFF
        self.words[number] = word
        return number


def logprob(before: int, token: int) -> float:
    """Of a token after another."""
    return -((before * 31 + token * 7919) % 997) / 100 - 0.01


def words_after(tokens: list[int], most: int) -> list[str]:
    """What is answered to a prompt: always the same, of a length that depends on it."""
    seed = crc32(str(tokens[-8:]).encode())
    return [f" {WORDS[(seed >> number % 24) % len(WORDS)]}" for number in range(min(most, 24 + seed % 97))]


class CompletionsServer:
    """`with CompletionsServer(shape) as server: server.url`. It runs in a thread of its own."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.counts, self.vocabulary = shape, Counts(), Vocabulary()
        self.url = ""
        self._slots = asyncio.Semaphore(shape.slots)
        self._listens, self._thread = threading.Event(), threading.Thread(target=self._serve, daemon=True)

    def reset(self) -> None:
        """Count from zero. Not while requests are in flight."""
        self.counts = Counts()

    def __enter__(self) -> CompletionsServer:
        self._thread.start()
        if not self._listens.wait(30):
            raise RuntimeError("the completions server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.run(self._until_over())

    async def _until_over(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**24)
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/tokenizer_info", self._tokenizer_info)
        for path, answer in (
            ("/tokenize", self._tokenize),
            ("/detokenize", self._detokenize),
            ("/v1/completions", self._completions),
        ):
            app.router.add_post(path, self._counted(answer))
        runner = web.AppRunner(app, handle_signals=False, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        self._listens.set()
        await self._over.wait()
        await runner.cleanup()

    def _counted(self, answer: Callable[[dict[str, Any]], Awaitable[Any]]) -> Callable[..., Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                return json_response(await answer(msgspec.json.decode(await request.read())))
            except Refused:
                self.counts.refused += 1
                return json_response({"error": {"message": "too many requests", "code": 429}}, 429)

        return handle

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        return json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": LENGTH}]})

    async def _tokenizer_info(self, _: web.Request) -> web.Response:
        return json_response({"tokenizer_class": "Words", "eos_token": "</s>", "bos_token": None, "pad_token": "</s>"})

    async def _tokenize(self, body: dict[str, Any]) -> Any:
        self.counts.tokenized += 1
        tokens = self.vocabulary.encode(body["prompt"])
        return {"tokens": tokens, "count": len(tokens), "max_model_len": LENGTH}

    async def _detokenize(self, body: dict[str, Any]) -> Any:
        return {"prompt": "".join(self.vocabulary.decode(body["tokens"]))}

    async def _completions(self, body: dict[str, Any]) -> Any:
        counts, room = self.counts, self.shape.room
        counts.first = counts.first or time.monotonic()
        if room is not None and counts.in_flight >= room:
            raise Refused
        counts.in_flight += 1
        counts.most = max(counts.most, counts.in_flight)
        try:
            async with self._slots:
                return await self._answer(body)
        finally:
            counts.in_flight -= 1
            counts.last = time.monotonic()

    async def _answer(self, body: dict[str, Any]) -> Any:
        prompt = self._prompt(body["prompt"])
        words = words_after(prompt, int(body.get("max_tokens", 16)))
        seconds = self.shape.seconds(len(prompt), len(words))
        await asyncio.sleep(seconds)
        self.counts.busy += seconds
        self.counts.completions += 1
        echo = bool(body.get("echo"))
        text = "".join([*(self.vocabulary.decode(prompt) if echo else []), *words])
        scores = self._scores(prompt, words, echo=echo) if body.get("logprobs") is not None else None
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(words)}
        choice = {"index": 0, "text": text, "logprobs": scores, "finish_reason": "length"}
        return {"object": "text_completion", "model": MODEL, "choices": [choice], "usage": usage}

    def _prompt(self, given: Any) -> list[int]:
        """One prompt, as text or as tokens."""
        one = given[0] if isinstance(given, list) and given and not isinstance(given[0], int) else given
        return self.vocabulary.encode(one) if isinstance(one, str) else list(one)

    def _scores(self, prompt: list[int], words: list[str], *, echo: bool) -> dict[str, Any]:
        tokens = [*prompt, *self.vocabulary.encode("".join(words))]
        values = [None, *map(logprob, tokens, tokens[1:])]
        names = self.vocabulary.decode(tokens)
        tops = [None, *({name: value} for name, value in zip(names[1:], values[1:], strict=True))]
        first = 0 if echo else len(prompt)
        return {"tokens": names[first:], "token_logprobs": values[first:], "top_logprobs": tops[first:]}


class Refused(Exception):
    """There is no room."""


def json_response(content: Any, status: int = 200) -> web.Response:
    """An answer."""
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")
