"""How a job can end, and requests to the endpoint over HTTP.

Part of the runner: standard library only, as it runs inside any image.
"""

from __future__ import annotations

import enum
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, fields
from typing import Any

REQUEST_TIMEOUT = 60.0
"""Most seconds for one request: a cold server may take long for its first token."""
MOST_BYTES = 8 * 2**20
"""Most bytes read of one answer."""


class Ending(enum.Enum):
    """How a job ends: the launcher's word for the reason, and this program's exit code."""

    COMPLETED = ("completed", 0)
    ENDPOINT_START_TIMEOUT = ("endpoint_start_timeout", 10)
    ENDPOINT_NOT_SERVING = ("endpoint_not_serving", 11)
    ENDPOINT_REFUSED = ("endpoint_refused", 12)
    MODEL_NOT_FOUND = ("model_not_found", 13)
    LOGLIKELIHOOD_UNSUPPORTED = ("loglikelihood_unsupported", 14)
    LOGLIKELIHOOD_WRONG = ("loglikelihood_wrong", 15)
    ENDPOINT_DIED = ("endpoint_died", 16)
    AUXILIARY_FAILED = ("auxiliary_failed", 17)
    AUXILIARY_DIED = ("auxiliary_died", 18)
    HARNESS_FAILED = ("harness_failed", 20)
    HARNESS_TIMEOUT = ("harness_timeout", 21)
    HARNESS_MISSING = ("harness_missing", 22)
    RESULTS_MISSING = ("results_missing", 23)
    RESULTS_INVALID = ("results_invalid", 24)
    STOPPED = ("stopped", 30)

    def __init__(self, reason: str, exit_code: int) -> None:
        self.reason = reason
        self.exit_code = exit_code


class Ended(Exception):
    """The job is over. `detail` is one line for the person."""

    def __init__(self, ending: Ending, detail: str) -> None:
        super().__init__(detail)
        self.ending = ending
        self.detail = detail

    @property
    def reason(self) -> str:
        """The launcher's word for the ending."""
        return self.ending.reason


class EndpointProblem(Ended):
    """The endpoint cannot be evaluated. `steady`: waiting longer is not likely to change it."""

    def __init__(self, ending: Ending, detail: str, *, steady: bool = False) -> None:
        super().__init__(ending, detail)
        self.steady = steady


def one_line(text: str, limit: int = 200) -> str:
    """The text on one line, cut to `limit` characters."""
    return " ".join(text.split())[:limit]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The endpoint. `url` is its base without /v1; times are seconds; `api_key_env` names the variable with its key.

    `health_interval` is the least time between two questions to the health path. An endpoint that refuses
    connections for `dead_after` seconds without a break, while the harness runs, counts as dead. `lists_model`: it has
    to show the model in /v1/models before it is asked.
    """

    url: str
    model: str
    lists_model: bool = True
    endpoint_type: str = "completions"
    health_path: str | None = "/health"
    health_interval: float = 0.25
    needs_loglikelihood: bool = False
    start_timeout: float = 3600.0
    health_timeout: float = 300.0
    api_key_env: str | None = None
    dead_after: float = 20.0

    def __post_init__(self) -> None:
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"the endpoint's URL {self.url!r} does not begin with http:// or https://")

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Target:
        """The target of a job document. Keys this version does not know are left out."""
        names = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in document.items() if name in names})

    @property
    def key(self) -> str | None:
        """The endpoint's key, looked up in the environment."""
        return os.environ.get(self.api_key_env) if self.api_key_env else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.hostname or "localhost", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def direct(self) -> bool:
        """Whether connections reach the endpoint without a proxy."""
        host = self.address[0]
        scheme = urllib.parse.urlsplit(self.url).scheme
        return is_loopback(host) or scheme not in urllib.request.getproxies() or bool(urllib.request.proxy_bypass(host))


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, which no proxy can reach for us."""
    return host in ("localhost", "::1") or host.startswith("127.")


@dataclass(frozen=True)
class Answer:
    """What came back: the HTTP status (0: nothing) and the body, or why nothing came."""

    status: int
    body: str

    @property
    def json(self) -> Any:
        """The parsed body, or None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def __str__(self) -> str:
        parsed = self.json
        error = parsed.get("error", parsed.get("message")) if isinstance(parsed, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        text = one_line(message if isinstance(message, str) else self.body)
        return f"HTTP {self.status}: {text}".rstrip(": ") if self.status else text


def first_choice(answer: Answer) -> dict[str, Any] | None:
    """The first of the completions that an answer carries, if it carries any."""
    parsed = answer.json
    choices = parsed.get("choices") if isinstance(parsed, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are answers: following one would carry the key to another host."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Never follow."""


class Client:
    """Requests to one endpoint. Never raises for what the endpoint does; `requests` counts them."""

    def __init__(self, target: Target, key: str | None = None) -> None:
        """`key` in place of the one in the variable `target.api_key_env`."""
        self.requests = 0
        self.key = key or target.key
        self._url = target.url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "User-Agent": "nv-eval-runner"}
        if self.key:
            self._headers["Authorization"] = f"Bearer {self.key}"
        proxies: dict[str, str] | None = {} if is_loopback(target.address[0]) else None
        self._opener = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler(proxies))

    def ask(self, path: str, body: dict[str, Any] | None = None, *, timeout: float = REQUEST_TIMEOUT) -> Answer:
        """GET, or POST where there is a body. `timeout` in seconds of silence."""
        self.requests += 1
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, self._headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=timeout) as response:
                return Answer(response.status, response.read(MOST_BYTES).decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            return Answer(error.code, _error_body(error))
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, _why_nothing_came(error))


def _error_body(error: urllib.error.HTTPError) -> str:
    try:
        with error:
            return error.read(65536).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""


def _why_nothing_came(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return one_line(str(cause)) or type(cause).__name__
