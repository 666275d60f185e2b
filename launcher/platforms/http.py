"""The one HTTP client of the launcher, with its one retry policy. Platforms build their routes on it.

What may be repeated is repeated: on transport errors, 408, 425, 429 and 5xx, with jittered back-off that honours
Retry-After, until a deadline. A creation is repeated only where it certainly had no effect; otherwise the error says
`maybe_done`, and the caller looks whether the thing exists.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx
import msgspec

from launcher.decoding import decode
from launcher.errors import PlatformError
from launcher.platforms.lanes import Lanes, one_connection

T = TypeVar("T")
Params: TypeAlias = Mapping[str, str | int | list[str]]
Document: TypeAlias = bytes | bytearray
"""The body of an answer: what came in several pieces is not copied once more."""

_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "PATCH", "DELETE"})
"""Methods whose second request has the effect of the first (RFC 9110; our patches set values, they add nothing)."""
_PASSING = frozenset({408, 425, 429})
"""Client errors that pass with time."""
_NOTHING_HAPPENED = frozenset({425, 429})
"""Answers that say that a request was turned away unread: safe to repeat whatever it asked for."""
_NEVER_SERVED = 501
"""The one 5xx that does not pass with time."""
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What is raised for a document that is not JSON, nests too deeply, or is not what was asked for."""
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_LONGEST_MESSAGE = 300
_MOST_COMPLAINTS = 3
"""Fields of a request that are named where a service refuses several."""
_PATIENCE: ContextVar[float] = ContextVar("patience", default=math.inf)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Within, requests are given up after so many seconds, and leave half of the slots to those outside.

    For questions that nothing depends on, or that are asked again anyway.
    """
    before = _PATIENCE.set(seconds)
    try:
        yield
    finally:
        _PATIENCE.reset(before)


@dataclass(frozen=True)
class Answer:
    """An answer that has been read to its end."""

    status_code: int
    headers: httpx.Headers
    content: Document

    @property
    def is_success(self) -> bool:
        """Whether the service did what was asked."""
        return 200 <= self.status_code < 300

    @property
    def text(self) -> str:
        """The body as text, whatever its bytes are."""
        return self.content.decode(errors="replace")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long to keep trying. All times are seconds."""

    deadline: float = 90.0
    """No try begins later than this after the first: two that are met with silence leave time for a third."""
    try_timeout: float = 30.0
    """Longest silence within one try."""
    first_wait: float = 0.5
    longest_wait: float = 8.0
    longest_retry_after: float = 30.0
    """A server that asks for more patience than this gets this much."""

    def wait(self, tries: int, answer: Answer | None, chance: random.Random) -> float:
        """Time before the next try: what the server asks for, else doubling, with jitter so that clients spread."""
        asked = _retry_after(answer) if answer is not None else None
        if asked is not None:
            return min(asked, self.longest_retry_after) + chance.uniform(0, self.first_wait)
        longest = min(self.longest_wait, self.first_wait * 2.0**tries)
        return chance.uniform(longest / 2, longest)


class RequestFailed(PlatformError):
    """A request that failed for good.

    `status` is None without an answer, or with one that was not understood. `maybe_done`: it may have had its effect.
    """

    def __init__(
        self, service: str, method: str, path: str, *, status: int | None, message: str, maybe_done: bool
    ) -> None:
        self.method, self.path, self.status, self.maybe_done = method, path, status, maybe_done
        self.message = message
        answered = f"answered {status}" if status is not None else "failed"
        super().__init__(f"{service}: {method} {path} {answered}{': ' if message else ''}{message}")


def _strictly(document: Document, answer: Any) -> Any:
    return decode(document, answer, strict=False)


@dataclass
class Api:
    """Typed requests to one service. Time is the event loop's."""

    client: httpx.AsyncClient
    service: str
    """Name of the service, for messages."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    in_flight: int = 16
    """Most requests under way at once."""
    redact: Callable[[str], str] = lambda text: text
    """Takes secrets out of what the service said."""
    decode: Callable[[Document, Any], Any] = _strictly
    """Reads a JSON document as a type; raises msgspec.DecodeError where it is something else."""
    chance: random.Random = field(default_factory=random.Random)
    requests: int = 0
    """Requests sent so far, repeated ones included."""

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.in_flight)
        self._lesser_slots = asyncio.Semaphore(max(1, self.in_flight // 2))

    async def get(self, path: str, answer: type[T], params: Params | None = None) -> T:
        """GET a JSON document of type `answer`. Raises RequestFailed."""
        return await self.call("GET", path, answer, params=params)

    async def get_any(self, path: str, answer: type[T], params: Params | None = None) -> T | None:
        """GET a JSON document of type `answer`, or `null`. Raises RequestFailed."""
        wanted: Any = answer | None
        found: T | None = await self.call("GET", path, wanted, params=params)
        return found

    async def call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        params: Params | None = None,
        body: Any = None,
        only_reads: bool = False,
    ) -> T:
        """One request with a JSON body, if any, and a JSON answer; see `send`. Raises RequestFailed."""
        response = await self.send(method, path, params=params, body=body, only_reads=only_reads)
        try:
            found: T = self.decode(response.content, answer)
        except _UNREADABLE as error:
            done = method not in _REPEATABLE
            message = f"the answer is not understood: {error}"
            raise self._failed(method, path, None, message, maybe_done=done) from error
        return found

    async def send(
        self, method: str, path: str, *, params: Params | None = None, body: Any = None, only_reads: bool = False
    ) -> Answer:
        """One request, repeated where that is safe, until it is answered by 2xx. Raises RequestFailed.

        `only_reads`: it changes nothing, whatever its method.
        """
        effect = "GET" if only_reads else method
        clock = asyncio.get_running_loop()
        deadline = clock.time() + min(self.policy.deadline, _PATIENCE.get())
        for tries in range(1_000_000):
            answer, error = await self._try(method, path, params, body)
            if answer is not None and answer.is_success:
                return answer
            wait = self.policy.wait(tries, answer, self.chance)
            if not _may_repeat(effect, answer, error) or clock.time() + wait > deadline:
                raise self._refused(method, path, answer, error)
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _try(
        self, method: str, path: str, params: Params | None, body: Any
    ) -> tuple[Answer | None, httpx.RequestError | None]:
        headers = {} if body is None else {"Content-Type": "application/json"}
        lesser = self._lesser_slots if _PATIENCE.get() < math.inf else nullcontext()
        async with lesser, self._slots:
            self.requests += 1
            content = None if body is None else msgspec.json.encode(body)  # here: a thousand may wait for their turn
            try:
                async with self.client.stream(
                    method, path, params=params, content=content, headers=headers
                ) as response:
                    return await _read(response), None
            except httpx.RequestError as error:
                return None, error

    async def lines(self, path: str) -> AsyncIterator[str]:
        """Lines of a text stream that stays open, as they come; it is opened once. Raises RequestFailed."""
        self.requests += 1
        timeout = httpx.Timeout(self.policy.try_timeout, read=None)
        try:
            async with self.client.stream("GET", path, timeout=timeout) as response:
                if not response.is_success:
                    raise self._refused("GET", path, await _read(response), None)
                async for line in response.aiter_lines():
                    yield self.redact(line)
        except httpx.RequestError as error:
            raise self._refused("GET", path, None, error) from error

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()

    def _refused(
        self, method: str, path: str, answer: Answer | None, error: httpx.RequestError | None
    ) -> RequestFailed:
        effect = _maybe_done(method, answer, error)
        if answer is None:
            return self._failed(method, path, None, _transport_message(error), maybe_done=effect)
        return self._failed(method, path, answer.status_code, message_of(answer), maybe_done=effect)

    def _failed(self, method: str, path: str, status: int | None, message: str, *, maybe_done: bool) -> RequestFailed:
        text = self.redact(message)[:_LONGEST_MESSAGE]
        return RequestFailed(self.service, method, path, status=status, message=text, maybe_done=maybe_done)


def make_client(
    base_url: str,
    headers: Mapping[str, str],
    *,
    policy: RetryPolicy | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """A client for one service. Proxies of the environment are used, but not for this machine."""
    trust_env = not _is_loopback(base_url)
    if transport is None and not (trust_env and getproxies().keys() - {"no"}):
        transport = Lanes(one_connection(tls=base_url.startswith("https:")))
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"User-Agent": "nv-eval", **headers},
        timeout=(policy or RetryPolicy()).try_timeout,
        transport=transport,
        trust_env=trust_env,
        limits=httpx.Limits(max_connections=64, max_keepalive_connections=8),  # each is looked at for each request
    )


async def _read(response: httpx.Response) -> Answer:
    """All of it, held once: lists of a thousand jobs are long, and joining their pieces would take twice as much."""
    pieces = response.aiter_bytes()
    content: Document = await anext(pieces, b"")
    async for piece in pieces:
        if isinstance(content, bytes):
            content = bytearray(content)
        content += piece
    return Answer(response.status_code, response.headers, content)


def message_of(answer: Answer) -> str:
    """What a service says of an error, on one line: the usual fields of a JSON body, else the body itself."""
    try:
        said = str(_said(msgspec.json.decode(answer.content)))
    except _UNREADABLE:
        said = answer.text
    return " ".join(said.split())


def _said(body: Any) -> Any:
    if isinstance(body, dict):
        for name in ("message", "detail", "error", "reason"):
            if body.get(name):
                return _said(body[name])
    if isinstance(body, list) and body and all(isinstance(one, dict) and one.get("msg") for one in body):
        return "; ".join(map(_complaint, body[:_MOST_COMPLAINTS]))
    return body if isinstance(body, str) else msgspec.json.encode(body).decode()


def _complaint(one: dict[str, Any]) -> str:
    """One field that a service does not take; what was sent, which may be a secret, is left out."""
    place = one.get("loc")
    where = ".".join(str(part) for part in place if part != "body") if isinstance(place, list) else ""
    return f"{where}: {one['msg']}" if where else str(one["msg"])


def _may_repeat(method: str, answer: Answer | None, error: httpx.RequestError | None) -> bool:
    if answer is None:
        return method in _REPEATABLE or isinstance(error, _NEVER_SENT)
    if method in _REPEATABLE:
        return answer.status_code in _PASSING or (answer.status_code >= 500 and answer.status_code != _NEVER_SERVED)
    return answer.status_code in _NOTHING_HAPPENED


def _maybe_done(method: str, answer: Answer | None, error: httpx.RequestError | None) -> bool:
    if method in ("GET", "HEAD"):
        return False
    if answer is None:
        return not isinstance(error, _NEVER_SENT)
    return answer.status_code == 408 or (answer.status_code >= 500 and answer.status_code != _NEVER_SERVED)


def _transport_message(error: httpx.RequestError | None) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__


def _retry_after(answer: Answer) -> float | None:
    """Retry-After in seconds, from its number or its date; None if there is none that can be read."""
    text = answer.headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(text)) if text.replace(".", "", 1).isdigit() else _until(text)
    except (ValueError, TypeError):
        return None


def _until(date: str) -> float | None:
    if not date:
        return None
    moment = parsedate_to_datetime(date)
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
