"""Whether an endpoint can be evaluated, and whether it still answers.

Part of the runner: standard library only, as it runs inside any image.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from launcher.runner.client import REQUEST_TIMEOUT, Answer, Client, Ending, EndpointProblem, Target, first_choice
from launcher.runner.loglikelihood import LoglikelihoodProbe

STEADY = 15.0
"""Seconds after which an answer that waiting is not likely to change counts as the server's last word."""
POLL = 0.25


Say = Callable[[str, str], None]
"""Told of every phase (waiting or probing) and of every change while waiting, with one line of detail."""

Look = Callable[[float], EndpointProblem | None]
"""Asks once, with a time-out in seconds: None, or what is not right yet."""


def wait_ready(
    target: Target,
    say: Say = lambda *_: None,
    *,
    key: str | None = None,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    stop: threading.Event | None = None,
) -> None:
    """Return once the endpoint is healthy, lists the model, completes a token and, if needed, scores prompts right.

    Raises EndpointProblem with the reason. `key` is the endpoint's key where the variable that the target names is
    not set here. `stop` is looked at between two requests.
    """
    Readiness(target, Client(target, key), say, now, sleep, stop.is_set if stop else lambda: False).wait()


@dataclass(frozen=True)
class Readiness:
    """The steps of `wait_ready`."""

    target: Target
    client: Client
    say: Say = lambda *_: None
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    stopped: Callable[[], bool] = lambda: False

    def wait(self) -> None:
        """All steps in order; raises EndpointProblem."""
        if self.target.health_path:
            self.say("waiting", f"for GET {self.target.health_path} to answer 200")
            self._poll("waiting", self._unhealthy, self.target.start_timeout, self.target.health_interval)
        deadline = self.now() + self.target.health_timeout
        if self.target.lists_model:
            self.say("probing", f"does it list {self.target.model} and complete a token")
            self._poll("probing", self._not_listed, deadline - self.now(), POLL)
        else:
            self.say("probing", f"does {self.target.model} complete a token")
        self._poll("probing", self.completes_not, deadline - self.now(), POLL)
        if self.target.needs_loglikelihood:
            self.say("probing", "are its prompt log-probabilities right")
            self._loglikelihood_probe().run()

    def _loglikelihood_probe(self) -> LoglikelihoodProbe:
        return LoglikelihoodProbe(
            model=self.target.model,
            client=self.client,
            ask=lambda body: self.ask("/v1/completions", body),
            completes=lambda: self.completes_not(REQUEST_TIMEOUT) is None,
            pause=lambda: self.sleep(POLL),
        )

    def ask(self, path: str, body: dict[str, Any] | None = None, *, timeout: float = REQUEST_TIMEOUT) -> Answer:
        """One request. Raises EndpointProblem if the endpoint refuses the key, or when asked to stop."""
        if self.stopped():
            raise EndpointProblem(Ending.STOPPED, "stopped while waiting for the endpoint")
        answer = self.client.ask(path, body, timeout=timeout)
        if answer.status in (401, 403):
            asked = "asked with a key" if self.client.key else "asked without a key"
            raise EndpointProblem(Ending.ENDPOINT_REFUSED, f"{path}: {answer} ({asked})")
        return answer

    def _poll(self, phase: str, look: Look, timeout: float, interval: float) -> None:
        start = since = self.now()
        last = ""
        while problem := look(max(1.0, min(REQUEST_TIMEOUT, start + timeout - self.now()))):
            if problem.detail != last:
                last, since = problem.detail, self.now()
                self.say(phase, last)
            settled = problem.steady and self.now() - since >= STEADY
            if settled or self.now() - start >= timeout:
                raise problem
            self.sleep(interval)

    def _unhealthy(self, timeout: float) -> EndpointProblem | None:
        answer = self.ask(self.target.health_path or "/", timeout=timeout)
        if answer.status == 200:
            return None
        return EndpointProblem(Ending.ENDPOINT_START_TIMEOUT, f"GET {self.target.health_path}: {answer}")

    def _not_listed(self, timeout: float) -> EndpointProblem | None:
        answer = self.ask("/v1/models", timeout=timeout)
        names = _listed_models(answer)
        if answer.status in (404, 405, 501) or (names is not None and self.target.model in names):
            return None
        if names is None:
            return EndpointProblem(Ending.ENDPOINT_NOT_SERVING, f"GET /v1/models: {answer}")
        listed = ", ".join(names[:10]) or "no model"
        detail = f"{self.target.model} is not served; /v1/models lists {listed}"
        return EndpointProblem(Ending.MODEL_NOT_FOUND, detail, steady=bool(names))

    def completes_not(self, timeout: float) -> EndpointProblem | None:
        """Why it does not complete a token; None if it does. Raises EndpointProblem if it refuses the key."""
        chat = self.target.endpoint_type == "chat"
        path = "/v1/chat/completions" if chat else "/v1/completions"
        prompt = {"messages": [{"role": "user", "content": "Hello"}]} if chat else {"prompt": "Hello"}
        answer = self.ask(path, {"model": self.target.model, "max_tokens": 1, **prompt}, timeout=timeout)
        if answer.status == 200 and first_choice(answer):
            return None
        steady = answer.status in (400, 404, 405, 422)
        return EndpointProblem(Ending.ENDPOINT_NOT_SERVING, f"POST {path}: {answer}", steady=steady)


def _listed_models(answer: Answer) -> list[str] | None:
    parsed = answer.json if answer.status == 200 else None
    data = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(data, list):
        return None
    return [str(entry["id"]) for entry in data if isinstance(entry, dict) and "id" in entry]


class EndpointWatch:
    """Notices, in a thread of its own, an endpoint that refuses connections for `dead_after` seconds on end."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._refused_since: float | None = None
        if target.direct:
            threading.Thread(target=self._watch, daemon=True).start()

    @property
    def dead(self) -> bool:
        """Whether it has been refusing for long enough."""
        since = self._refused_since
        return since is not None and time.monotonic() - since >= self._target.dead_after

    def _watch(self) -> NoReturn:
        pause = max(0.05, min(5.0, self._target.dead_after / 4))
        while True:
            if not self._refuses():
                self._refused_since = None
            elif self._refused_since is None:
                self._refused_since = time.monotonic()
            time.sleep(pause)

    def _refuses(self) -> bool:
        try:
            socket.create_connection(self._target.address, timeout=2.0).close()
        except TimeoutError:
            return False  # a busy server is slow to accept
        except OSError:
            return True
        return False


def last_sign_of_life(target: Target, client: Client) -> str:
    """Empty if the endpoint still answers, else what it says instead. Asked after a harness failed."""
    if not target.lists_model:  # a service with many models answers, whatever became of this one
        return _last_completion(target, client)
    path = target.health_path or "/v1/models"
    for attempt in range(3):
        if attempt:
            time.sleep(POLL)
        answer = client.ask(path, timeout=10.0)
        if answer.status in (200, 429) or (not target.health_path and 0 < answer.status < 500):
            return ""
    return f"GET {path}: {answer}"


def _last_completion(target: Target, client: Client) -> str:
    """What it says instead of a token; empty if it completes one."""
    said = ""
    for attempt in range(3):
        if attempt:
            time.sleep(POLL)
        try:
            problem = Readiness(target, client).completes_not(REQUEST_TIMEOUT)
        except EndpointProblem as refusal:
            problem = refusal
        if problem is None:
            return ""
        said = problem.detail
    return said
