"""The embedded model server, as a process, with the real model."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("cyllama", reason="cyllama is not installed: pip install 'nv-eval-launcher[smollm]'")

import httpx
import numpy as np

from launcher.errors import LauncherError
from launcher.servers.smollm import weights
from launcher.servers.smollm.engine import Engine
from launcher.servers.smollm.job import Request
from launcher.servers.smollm.runtime import CHUNK, Runtime, Sampling

pytestmark = pytest.mark.e2e

REFERENCE = "The capital of France is Paris"
CONTEXT = (
    "Playing the piano: A woman sits down at a grand piano in an empty hall and opens a book of sheet music. She "
    "adjusts the bench, stretches her fingers, and looks at the first page for a moment before she begins. She"
)
ENDINGS = [
    " plays a slow piece with both hands.",
    " throws the piano across the room and then jumps into the swimming pool behind the house to cool down again.",
    " is seen cooking.",
    " closes the book — “enough”, she says — and leaves 音楽.",
]
TEXTS = [REFERENCE, "Hello", "def add(a, b):\n    return a + b\n", *(CONTEXT + ending for ending in ENDINGS)]
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]

    def post(self, path: str, **body: object) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json={"model": "small", **body}, timeout=120)

    def complete(self, prompt: object, **body: object) -> dict:
        reply = self.post("/v1/completions", prompt=prompt, **{"temperature": 0, **body})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def logprobs(self, prompt: object) -> list[list[float]]:
        """Per prompt, the log-probabilities of its tokens from the second on, as a harness asks for them."""
        choices = self.complete(prompt, echo=True, logprobs=1, max_tokens=1, seed=1234)["choices"]
        return [choice["logprobs"]["token_logprobs"][1:-1] for choice in choices]


@pytest.fixture(scope="session")
def gguf() -> Path:
    try:
        return weights.find().path
    except LauncherError as error:
        pytest.skip(f"the model weights cannot be had: {error}")


@contextmanager
def running(*arguments: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "launcher.servers.smollm", "--port", "0", "--threads", "1", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            start = process.stdout.readline()
            port = start.split(",")[0].rpartition(":")[2]
            yield Server(f"http://127.0.0.1:{port}", process)
        finally:
            process.kill()


def wait_ready(server: Server) -> None:
    deadline = time.monotonic() + 60
    while httpx.get(f"{server.url}/health").status_code != 200:
        assert time.monotonic() < deadline, "not ready after 60 s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(gguf) -> Iterator[Server]:
    with running("--gguf", str(gguf), "--served-name", "small", "--context", "1024") as started:
        wait_ready(started)
        yield started


class Direct:
    """The same weights through the bindings alone: a fresh context per text, one pass, the logits of all positions."""

    def __init__(self, gguf: Path) -> None:
        import cyllama.llama.llama_cpp as native

        class Model(native.LlamaModel):
            @property
            def n_vocab(self) -> int:
                return self.get_vocab().n_vocab

        native.disable_logging()
        self.native = native
        self.model = Model(str(gguf))
        self.vocab = self.model.get_vocab()

    def logprobs(self, text: str) -> list[float]:
        tokens = self.vocab.tokenize(text, False, True)
        params = self.native.LlamaContextParams()
        params.n_ctx = params.n_batch = 512
        params.n_ubatch = 63  # the longest pass whose rows do not depend on one another; see runtime.CHUNK
        context = self.native.LlamaContext(self.model, params)
        batch = self.native.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
        for position, token in enumerate(tokens):
            batch.add(token, position, [0], True)
        context.decode(batch)
        rows = np.array([context.get_logits_ith(index) for index in range(len(tokens))], dtype=np.longdouble)
        rows -= rows.max(axis=1, keepdims=True)
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        return [float(rows[index, token]) for index, token in enumerate(tokens[1:])]


@pytest.fixture(scope="module")
def direct(gguf) -> dict[str, list[float]]:
    model = Direct(gguf)
    return {text: model.logprobs(text) for text in TEXTS}


@pytest.fixture(scope="module")
def runtime(gguf) -> Runtime:
    return Runtime(gguf, context=512, slots=4, threads=1)


@contextmanager
def engine_of(runtime: Runtime, **options: int) -> Iterator[Engine]:
    engine = Engine(runtime, **{"slots": 4, **options})
    try:
        yield engine
    finally:
        engine.close()


# --- the numbers


def test_log_likelihoods_equal_those_computed_directly_from_the_weights(server, direct):
    for text in TEXTS:
        assert server.logprobs(text)[0] == pytest.approx(direct[text], abs=TOLERANCE), text


def test_the_reference_sentence_has_its_known_scores(server):
    known = [-11.4496, -0.3111, -2.5327, -0.4414, -0.2591]
    assert server.logprobs(REFERENCE)[0] == pytest.approx(known, abs=TOLERANCE)


def test_prompts_in_one_request_and_as_token_ids_score_like_single_strings(server, direct):
    ids = [server.post("/tokenize", prompt=text, add_special_tokens=False).json()["tokens"] for text in TEXTS]
    assert server.logprobs(TEXTS) == server.logprobs(ids)
    assert server.logprobs(ids[0]) == server.logprobs(TEXTS[0])
    for text, got in zip(TEXTS, server.logprobs(ids), strict=True):
        assert got == pytest.approx(direct[text], abs=TOLERANCE)


def test_four_clients_at_once_get_the_numbers_of_one(server, direct):
    def ask(text: str) -> list[float]:
        return server.logprobs(text)[0]

    with ThreadPoolExecutor(4) as clients:
        for text, got in zip(TEXTS * 2, clients.map(ask, TEXTS * 2), strict=True):
            assert got == pytest.approx(direct[text], abs=TOLERANCE)


def test_reusing_a_prefix_changes_no_bit(runtime):
    texts = [tuple(runtime.tokenize(CONTEXT + ending, add_special=True)) for ending in ENDINGS]
    requests = [Request(tokens=tokens, max_tokens=1, score_prompt=True, top=2) for tokens in [*texts, texts[0][:40]]]
    with engine_of(runtime, prefix_budget=0) as fresh:
        expected = [fresh.submit(request).result() for request in requests]
    with engine_of(runtime) as reusing:
        again = [[reusing.submit(request).result() for request in requests] for _ in range(2)]
    assert again == [expected, expected]


def test_a_prefix_is_not_computed_twice(runtime, monkeypatch):
    computed = []
    decode = runtime.decode
    monkeypatch.setattr(runtime, "decode", lambda feeds: (computed.append(len(feeds)), decode(feeds))[1])
    texts = [tuple(runtime.tokenize(CONTEXT + ending, add_special=True)) for ending in ENDINGS]
    shared = len(runtime.tokenize(CONTEXT, add_special=True))
    with engine_of(runtime) as engine:
        for tokens in texts:
            engine.submit(Request(tokens=tokens, max_tokens=0, score_prompt=True, top=1)).result()
    assert sum(computed) == len(texts[0]) + sum(len(tokens) - shared + 1 for tokens in texts[1:])


def test_a_generated_token_has_the_score_it_gets_as_part_of_a_prompt(server):
    first = server.complete(CONTEXT, max_tokens=CHUNK, logprobs=1)["choices"][0]
    tokens = server.post("/tokenize", prompt=CONTEXT + first["text"]).json()["tokens"]
    echoed = server.logprobs(tokens)[0]
    generated = first["logprobs"]["token_logprobs"]
    assert echoed[-len(generated) :] == pytest.approx(generated, abs=TOLERANCE)


# --- the shape


def test_an_echoed_completion_has_all_its_parts(server):
    reply = server.complete(REFERENCE, echo=True, logprobs=2, max_tokens=1)
    choice = reply["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"] == "".join(logprobs["tokens"]) == REFERENCE + "."
    assert choice["finish_reason"] == "length"
    assert logprobs["tokens"][1] == " capital"
    assert logprobs["text_offset"] == [0, 3, 11, 14, 21, 24, 30]
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    assert [len(top) for top in logprobs["top_logprobs"][1:]] == [3, 2, 2, 2, 2, 2]
    listed = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    for token, logprob, top in list(listed)[1:]:
        assert top[token] == logprob <= max(top.values())
    assert reply["usage"] == {"prompt_tokens": 6, "completion_tokens": 1, "total_tokens": 7}


def test_max_tokens_zero_only_scores_the_prompt(server):
    reply = server.complete(REFERENCE, echo=True, logprobs=1, max_tokens=0)
    assert reply["choices"][0]["text"] == REFERENCE
    assert len(reply["choices"][0]["logprobs"]["token_logprobs"]) == 6
    assert reply["usage"]["completion_tokens"] == 0


def test_without_echo_only_generated_tokens_are_listed(server):
    choice = server.complete(REFERENCE, logprobs=1, max_tokens=3)["choices"][0]
    assert choice["text"] == "".join(choice["logprobs"]["tokens"])
    assert len(choice["logprobs"]["token_logprobs"]) == 3
    assert server.complete(REFERENCE, max_tokens=3)["choices"][0]["logprobs"] is None


def test_the_model_list_names_model_revision_and_length(server, gguf):
    (model,) = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert model["id"] == "small"
    assert model["max_model_len"] == 1024
    assert model["revision"] == weights.find(gguf).revision


def test_text_survives_tokens_and_back(server):
    text = "naïve — 日本語 😀 <|im_start|>user"
    reply = server.post("/tokenize", prompt=text, add_special_tokens=False).json()
    assert reply["count"] == len(reply["tokens"])
    assert reply["max_model_len"] == 1024
    assert server.post("/detokenize", tokens=reply["tokens"]).json() == {"prompt": text}


def test_the_harness_finds_the_remote_tokenizer_it_wants(server):
    lm_eval = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed")
    tokenizer = lm_eval.RemoteTokenizer(f"{server.url}/v1/completions")
    assert tokenizer.decode(tokenizer.encode(REFERENCE)) == REFERENCE
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.bos_token_id) == ("<|im_end|>", 2, 1)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    tokenizer.session.close()


# --- generation


def test_greedy_answers_repeat_whatever_runs_beside_them(server):
    prompts = ["The first man on the moon was", "Water boils at", CONTEXT, "One, two, three,"]
    alone = [server.complete(prompt, max_tokens=16)["choices"][0]["text"] for prompt in prompts]
    with ThreadPoolExecutor(4) as clients:
        together = list(clients.map(lambda text: server.complete(text, max_tokens=16), prompts))
    assert [reply["choices"][0]["text"] for reply in together] == alone
    assert [choice["text"] for choice in server.complete(prompts, max_tokens=16)["choices"]] == alone


def test_a_seed_repeats_a_sample_and_another_gives_another(server):
    def sample(seed: int, **more: object) -> str:
        body = {"temperature": 1.0, "top_p": 0.95, "top_k": 50, "max_tokens": 16, "seed": seed, **more}
        return server.complete("Once upon a time", **body)["choices"][0]["text"]

    assert sample(7) == sample(7)
    assert len({sample(seed) for seed in range(3)}) > 1
    greedy = server.complete("Once upon a time", max_tokens=16)["choices"][0]["text"]
    assert sample(7, top_k=1) == sample(8, top_p=1e-9) == greedy


def test_text_ends_before_the_first_stop_string(server):
    full = server.complete(REFERENCE, max_tokens=16)["choices"][0]["text"]
    stop = full[7:12]
    for stops in (stop, ["never appears", stop, full[9:14]]):
        choice = server.complete(REFERENCE, max_tokens=16, stop=stops)["choices"][0]
        assert choice["text"] == full[: full.index(stop)]
        assert choice["finish_reason"] == "stop"


def test_the_chat_template_of_the_model_is_used_and_its_end_token_ends(server):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}]
    body = {"messages": messages, "temperature": 0, "max_completion_tokens": 64}
    reply = server.post("/v1/chat/completions", **body, logprobs=True, top_logprobs=2).json()
    text = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    plain = server.complete(text, max_tokens=64)
    choice = reply["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": plain["choices"][0]["text"]}
    assert choice["finish_reason"] == "stop"
    assert "<|im_end|>" not in choice["message"]["content"]
    assert reply["usage"] == plain["usage"]
    content = choice["logprobs"]["content"]
    assert content[-1]["token"] == "<|im_end|>"
    assert all(item["top_logprobs"][0]["logprob"] == item["logprob"] for item in content)


def test_the_openai_client_is_served(server):
    openai = pytest.importorskip("openai", reason="openai is not installed")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["small"]
        text = client.completions.create(model="small", prompt=REFERENCE, max_tokens=1, logprobs=1, temperature=0)
        assert text.choices[0].text == "."
        said = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
        chat = client.chat.completions.create(model="small", messages=said, max_tokens=4, temperature=0)
        assert chat.choices[0].finish_reason == "length"
        with pytest.raises(openai.NotFoundError, match="`large` does not exist"):
            client.completions.create(model="large", prompt="x")
        with pytest.raises(openai.BadRequestError, match="stream=True is not supported"):
            client.completions.create(model="small", prompt="x", stream=True)


# --- refusals


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/completions", {"prompt": ""}, 400, "empty"),
        ("/v1/completions", {"prompt": []}, 400, "empty"),
        ("/v1/completions", {"prompt": ["a", 1]}, 400, "token ids"),
        ("/v1/completions", {"prompt": [49152]}, 400, "0 to 49151"),
        ("/v1/completions", {"prompt": [True]}, 400, "token ids"),
        ("/v1/completions", {"prompt": [5] * 1024, "max_tokens": 1}, 400, "maximum context length is 1024"),
        ("/v1/completions", {"prompt": "a", "model": "other"}, 404, "`other` does not exist"),
        ("/v1/chat/completions", {"messages": "hi"}, 400, "$.messages"),
        ("/detokenize", {"tokens": [-1]}, 400, "token ids"),
        ("/v1/embeddings", {"input": "a"}, 404, "Not Found"),
    ],
)
def test_a_bad_request_is_refused_in_openai_form(server, path, body, status, says):
    reply = server.post(path, **body)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert error["code"] == status
    assert says in error["message"]


def test_a_failure_inside_the_model_ends_only_its_own_request(runtime):
    with engine_of(runtime) as engine:
        broken = engine.submit(Request(tokens=(runtime.n_vocab + 5,), max_tokens=1))
        with pytest.raises((ValueError, RuntimeError)):
            broken.result(timeout=60)
        sampling = Sampling(temperature=0)
        tokens = tuple(runtime.tokenize(REFERENCE, add_special=True))
        answer = engine.submit(Request(tokens=tokens, max_tokens=1, sampling=sampling)).result(timeout=60)
    assert answer.text == "."


# --- the process


def test_health_says_loading_until_the_model_answers(gguf):
    with running("--gguf", str(gguf), "--served-name", "small") as server:
        seen = httpx.get(f"{server.url}/health")
        assert seen.status_code == 503
        assert seen.json()["error"]["message"] == "the model is loading"
        assert server.post("/v1/completions", prompt="a").status_code == 503
        wait_ready(server)
        assert server.process.stdout.readline().startswith("ready: sha256:")


def test_sigterm_ends_a_busy_server_within_a_second(gguf):
    with running("--gguf", str(gguf), "--served-name", "small") as server:
        wait_ready(server)

        def ask() -> None:
            with pytest.raises(httpx.TransportError):
                server.complete("Once upon a time", max_tokens=1500, temperature=1, seed=1)

        client = threading.Thread(target=ask)
        client.start()
        wait_busy(server.process.pid)
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=10) == 0
        assert time.monotonic() - begin < 1
        client.join(timeout=10)
        assert not client.is_alive()
        assert server.process.stdout.read().endswith("stopped by SIGTERM\n")


def wait_busy(pid: int) -> None:
    """Until the process has computed for half a second of CPU time."""

    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    begin = used()
    while used() - begin < 0.5:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), (b"no model at all", "does not look like"), (b"GGUF", "cannot load")]
)
def test_a_file_that_is_no_model_ends_the_server_with_one_line(tmp_path, content, says):
    path = tmp_path / "broken.gguf"
    if content is not None:
        path.write_bytes(content)
    done = run("--port", "0", "--gguf", str(path))
    assert done.returncode == 3
    (error,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert str(path) in error
    assert says in error
    assert "Traceback" not in done.stdout + done.stderr


def test_a_port_in_use_is_one_line(gguf):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port), "--gguf", str(gguf))
    assert done.returncode == 3
    assert done.stdout == f"error: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_fetch_prints_the_path_and_nothing_else(gguf):
    done = run("--fetch", "--gguf", str(gguf))
    assert (done.returncode, done.stdout) == (0, f"{gguf}\n")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher.servers.smollm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
