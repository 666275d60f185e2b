"""A small OpenAI-like server whose every fault can be ordered.

Its "model" is a fixed function of the last bytes: one token is one byte of UTF-8, and the log-probabilities of
generated, echoed, text and token-id prompts agree with each other unless a fault says otherwise.

    python -m tests.servers.openai_server --port 8000 --model fake --fault die_mid_run --after 4

It prints `listening on PORT` once it listens, and with --workers `worker PID` and `daemon PID` before that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

EOS = "</s>"
EOS_ID = 256
LETTERS = [ord(character) for character in " abcdefghijklmnopqrstuvwxyz,."]


class Fault(StrEnum):
    """What goes wrong."""

    NONE = "none"
    NEVER_START = "never_start"
    """Runs but never listens."""
    DIE_LOADING = "die_loading"
    """After --delay prints a traceback and exits with 3."""
    SLOW_START = "slow_start"
    """Listens after --delay."""
    HEALTHY_TOO_EARLY = "healthy_too_early"
    """The health path answers 200, all else 503, for ever."""
    DIE_MID_RUN = "die_mid_run"
    """Exits with 1 after --after completions."""
    HANG = "hang"
    """After --after completions accepts connections and never answers."""
    WRONG_MODEL = "wrong_model"
    """Serves another name."""
    UNAUTHORIZED = "unauthorized"
    """401 on /v1."""
    CHAT_ONLY = "chat_only"
    """No /v1/completions."""
    NO_MODELS_ROUTE = "no_models_route"
    """No /v1/models; still honest."""
    NO_TOKENIZE = "no_tokenize"
    """No /tokenize; still honest."""
    NO_ECHO = "no_echo"
    """Ignores echo: the silent llama.cpp case."""
    ECHO_ERROR = "echo_error"
    """Refuses echo with a message: older llama.cpp."""
    ECHO_TEXT_ONLY = "echo_text_only"
    """Echoes the text, scores only the answer: TensorRT-LLM."""
    NULL_LOGPROBS = "null_logprobs"
    """`logprobs: null`."""
    OFF_BY_ONE = "off_by_one"
    """Echoed tokens carry the value of the token before."""
    OFF_BY_ONE_AHEAD = "off_by_one_ahead"
    """Echoed tokens carry the value of the token after."""
    POSITIVE = "positive"
    """Log-probabilities above zero."""
    TOKEN_IDS_DIFFER = "token_ids_differ"
    """Prompts of token ids are scored otherwise than text."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the server behaves. `delay` and `latency` in seconds; `latency` holds back each completion."""

    model: str = "fake"
    fault: Fault = Fault.NONE
    after: int = 0
    delay: float = 0.0
    latency: float = 0.0
    requests_file: Path | None = None
    api_key: str | None = None


def tokenize(text: str) -> list[int]:
    """One token per byte."""
    return list(text.encode())


def detokenize(tokens: list[int]) -> str:
    """The text of tokens."""
    return b"".join(EOS.encode() if token == EOS_ID else bytes([token]) for token in tokens).decode(errors="replace")


@lru_cache(maxsize=65536)
def distribution(context: bytes) -> tuple[float, ...]:
    """Log-probabilities of the 257 possible next tokens; peaked on one letter."""
    seed = int.from_bytes(hashlib.sha256(context[-6:]).digest()[:8], "big")
    dice = random.Random(seed)
    logits = [dice.uniform(-2, 2) for _ in range(257)]
    logits[dice.choice(LETTERS)] += dice.uniform(4, 9)
    norm = math.log(sum(map(math.exp, logits)))
    return tuple(logit - norm for logit in logits)


def _next(tokens: list[int]) -> tuple[float, ...]:
    return distribution(bytes(token % 256 for token in tokens[-6:]))


def greedy(tokens: list[int]) -> int:
    """The likeliest letter after the tokens."""
    values = _next(tokens)
    return max(LETTERS, key=lambda letter: values[letter])


@dataclass
class Completion:
    """One prompt with its answer, scored."""

    prompt: list[int]
    answer: list[int] = field(default_factory=list)

    def generate(self, max_tokens: int, stop: list[str]) -> str:
        """Extend the answer greedily; returns its text up to the first stop string."""
        for _ in range(max_tokens):
            self.answer.append(greedy(self.prompt + self.answer))
            text = detokenize(self.answer)
            for mark in stop:
                if mark and mark in text:
                    return text[: text.index(mark)]
        return detokenize(self.answer)

    def logprobs(self, *, echo: bool) -> dict[str, Any]:
        """The `logprobs` object of the completions route."""
        tokens = self.prompt + self.answer
        first = 0 if echo else len(self.prompt)
        values: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        for position in range(first, len(tokens)):
            row = _next(tokens[:position])
            best = max(range(257), key=row.__getitem__)
            values.append(row[tokens[position]] if position else None)
            names = {best, tokens[position]}
            tops.append({detokenize([token]): row[token] for token in names} if position else None)
        return {
            "tokens": [detokenize([token]) for token in tokens[first:]],
            "token_logprobs": values,
            "top_logprobs": tops,
        }


class State:
    """What requests share."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.served = "another-model" if options.fault is Fault.WRONG_MODEL else options.model
        self.completions = 0
        self.lock = threading.Lock()

    def count(self, line: str) -> None:
        """Note a request in the requests file."""
        if self.options.requests_file:
            with self.lock, self.options.requests_file.open("a") as file:
                file.write(line + "\n")

    def begin_completion(self) -> None:
        """Count a completion, or end the process where the fault says so."""
        with self.lock:
            if self.options.fault is Fault.DIE_MID_RUN and self.completions >= self.options.after:
                sys.stderr.write("CUDA error: an illegal memory access was encountered\n")
                sys.stderr.flush()
                os._exit(1)
            self.completions += 1

    @property
    def hangs(self) -> bool:
        """Whether nothing is answered any more."""
        return self.options.fault is Fault.HANG and self.completions >= self.options.after


class HttpError(Exception):
    """An answer that is no 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    protocol_version = "HTTP/1.1"
    server: OpenAIServer

    def do_GET(self) -> None:
        self._handle({"/health": self._health, "/v1/models": self._models, "/tokenizer_info": self._tokenizer_info})

    def do_POST(self) -> None:
        self._handle(
            {
                "/v1/completions": self._completions,
                "/v1/chat/completions": self._chat,
                "/tokenize": self._tokenize,
                "/detokenize": self._detokenize,
            }
        )

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _handle(self, routes: dict[str, Any]) -> None:
        state = self.server.state
        self.body = self._read_body()
        state.count(f"{self.command} {self.path}")
        if state.hangs:
            self.server.closing.wait()
            return
        try:
            self._refuse(state)
            self._send(200, routes.get(self.path, self._not_found)())
        except HttpError as error:
            kind = {401: "authentication_error", 503: "unavailable_error"}.get(error.status, "BadRequestError")
            self._send(error.status, {"error": {"message": str(error), "type": kind, "code": error.status}})

    def _refuse(self, state: State) -> None:
        fault = state.options.fault
        if fault is Fault.HEALTHY_TOO_EARLY and self.path != "/health":
            raise HttpError(503, "Loading model")
        key = state.options.api_key
        wrong_key = key is not None and self.headers.get("Authorization") != f"Bearer {key}"
        if self.path.startswith("/v1/") and (fault is Fault.UNAUTHORIZED or wrong_key):
            raise HttpError(401, "Unauthorized")
        missing = {
            Fault.CHAT_ONLY: "/v1/completions",
            Fault.NO_MODELS_ROUTE: "/v1/models",
            Fault.NO_TOKENIZE: "/tokenize",
        }
        if self.path == missing.get(fault):
            raise HttpError(404, "Not Found")

    def _read_body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length") or 0)
        parsed = json.loads(self.rfile.read(length) or b"{}")
        return parsed if isinstance(parsed, dict) else {}

    def _send(self, status: int, body: Any) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _not_found(self) -> None:
        raise HttpError(404, "Not Found")

    def _health(self) -> None:
        return None

    def _models(self) -> dict[str, Any]:
        entry = {"id": self.server.state.served, "object": "model", "owned_by": "tests"}
        return {"object": "list", "data": [entry]}

    def _tokenizer_info(self) -> dict[str, Any]:
        return {"tokenizer_class": "Bytes", "eos_token": EOS, "bos_token": None, "pad_token": EOS}

    def _tokenize(self) -> dict[str, Any]:
        tokens = [EOS_ID] if self.body.get("prompt") == EOS else tokenize(str(self.body.get("prompt", "")))
        return {"tokens": tokens, "count": len(tokens), "max_model_len": 4096}

    def _detokenize(self) -> dict[str, Any]:
        return {"prompt": detokenize(self.body.get("tokens", []))}

    def _begin(self) -> None:
        state = self.server.state
        if self.body.get("model") != state.served:
            raise HttpError(404, f"The model `{self.body.get('model')}` does not exist.")
        state.begin_completion()
        if state.options.latency:
            self.server.closing.wait(state.options.latency)

    def _stops(self) -> list[str]:
        stop = self.body.get("stop") or []
        return [stop] if isinstance(stop, str) else list(stop)

    def _max_tokens(self) -> int:
        return int(self.body.get("max_tokens", 16))

    def _chat(self) -> dict[str, Any]:
        self._begin()
        text = "".join(f"{message['role']}: {message['content']}\n" for message in self.body["messages"])
        completion = Completion(tokenize(text))
        content = completion.generate(self._max_tokens(), self._stops())
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return {"object": "chat.completion", "model": self.server.state.served, "choices": [choice]} | usage(completion)

    def _completions(self) -> dict[str, Any]:
        self._begin()
        fault = self.server.state.options.fault
        if self.body.get("echo") and fault is Fault.ECHO_ERROR:
            raise HttpError(400, "Only no echo is supported")
        done, choices = [], []
        for index, prompt in enumerate(prompts(self.body.get("prompt", ""))):
            completion = Completion(prompt)
            choices.append({"index": index, "finish_reason": "length"} | self._choice(completion, fault))
            done.append(completion)
        return {"object": "text_completion", "model": self.server.state.served, "choices": choices} | usage(*done)

    def _choice(self, completion: Completion, fault: Fault) -> dict[str, Any]:
        echo = bool(self.body.get("echo")) and fault is not Fault.NO_ECHO
        text = completion.generate(self._max_tokens(), self._stops())
        logprobs = None
        if self.body.get("logprobs") is not None and fault is not Fault.NULL_LOGPROBS:
            logprobs = completion.logprobs(echo=echo and fault is not Fault.ECHO_TEXT_ONLY)
            if echo:
                by_ids = not isinstance(self.body.get("prompt"), str)
                logprobs["token_logprobs"] = falsified(logprobs["token_logprobs"], fault, by_ids=by_ids)
        return {"text": (detokenize(completion.prompt) if echo else "") + text, "logprobs": logprobs}


def falsified(values: list[float | None], fault: Fault, *, by_ids: bool) -> list[float | None]:
    """Echoed log-probabilities as the fault has them."""
    if fault is Fault.OFF_BY_ONE:
        return [None, values[-1], *values[1:-1]]
    if fault is Fault.OFF_BY_ONE_AHEAD:
        return [None, *values[2:], values[1]]
    if fault is Fault.POSITIVE:
        return [None, *(-(value or 0.0) for value in values[1:])]
    if fault is Fault.TOKEN_IDS_DIFFER and by_ids:
        return [None, *((value or 0.0) - 0.1 for value in values[1:])]
    return values


def prompts(prompt: Any) -> list[list[int]]:
    """The prompts of a request as token ids: one text, several, one list of ids, or several."""
    if isinstance(prompt, str):
        return [tokenize(prompt)]
    if prompt and isinstance(prompt[0], int):
        return [list(prompt)]
    return [tokenize(part) if isinstance(part, str) else list(part) for part in prompt]


def usage(*completions: Completion) -> dict[str, Any]:
    """The `usage` object."""
    before = sum(len(completion.prompt) for completion in completions)
    after = sum(len(completion.answer) for completion in completions)
    return {"usage": {"prompt_tokens": before, "completion_tokens": after, "total_tokens": before + after}}


class OpenAIServer(ThreadingHTTPServer):
    """The server in this process, for tests that need no process: `with OpenAIServer(Options()) as server`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: Options, port: int = 0, host: str = "127.0.0.1") -> None:
        super().__init__((host, port), Handler)
        self.state = State(options)
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Base URL without /v1."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> OpenAIServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def start_helpers() -> None:
    """A worker in our process group and a daemon outside of it, as inference servers have: both outlive us if let."""
    sleep = "import time; time.sleep(3600)"
    for kind, own_session in (("worker", False), ("daemon", True)):
        argv = [sys.executable, "-c", sleep, f"openai-server-{kind}"]
        helper = subprocess.Popen(argv, start_new_session=own_session)
        print(f"{kind} {helper.pid}", flush=True)


def serve(options: Options, port: int, host: str) -> None:
    """Run until ended, or as the fault says."""
    if options.fault is Fault.NEVER_START:
        threading.Event().wait()
    if options.fault is Fault.DIE_LOADING:
        time.sleep(options.delay)
        message = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
        sys.stderr.write(f'Traceback (most recent call last):\n  File "server.py", line 1, in <module>\n{message}\n')
        sys.exit(3)
    if options.fault is Fault.SLOW_START:
        time.sleep(options.delay)
    server = OpenAIServer(options, port, host)
    print(f"listening on {server.port}", flush=True)
    server.serve_forever()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a container")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--model", default="fake", help="served name")
    parser.add_argument("--fault", type=Fault, default=Fault.NONE, choices=list(Fault), metavar="KIND")
    parser.add_argument(
        "--after", type=int, default=0, help="completions before the fault shows, the runner's own included"
    )
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before it listens or dies")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds each completion takes")
    parser.add_argument("--requests-file", type=Path, help="gets one line per request")
    parser.add_argument("--api-key-env", help="variable with the key that /v1 wants")
    parser.add_argument("--workers", action="store_true", help="start a worker and a daemon process first")
    args = parser.parse_args()
    if args.workers:
        start_helpers()
    options = Options(
        model=args.model,
        fault=args.fault,
        after=args.after,
        delay=args.delay,
        latency=args.latency,
        requests_file=args.requests_file,
        api_key=os.environ.get(args.api_key_env) if args.api_key_env else None,
    )
    serve(options, args.port, args.host)


if __name__ == "__main__":
    main()
