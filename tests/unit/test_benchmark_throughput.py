"""What the throughput benchmark calculates, and the server that it asks."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from benchmarks.completions import MODEL, CompletionsServer, Shape, Vocabulary, logprob, words_after
from benchmarks.throughput import Compared, Evaluation, Rate, allowed, best, by_hand, found, median_rate, told
from launcher.runner.client import Target
from launcher.runner.endpoint import wait_ready

QUICK = Shape(slots=2, base=0.0, read=0.0, write=0.0)


def rated(concurrency: int | str, seconds: float, failed: str = "") -> Rate:
    return Rate(
        shape="s",
        concurrency=concurrency,
        samples=100,
        seconds=seconds,
        refused=0,
        most=1,
        busy=1.0,
        settled=20 if concurrency == "auto" else None,
        failed=failed,
    )


def test_the_overhead_is_the_median_of_pairs_and_not_the_difference_of_medians():
    walls = {"runner": [10.0, 30.0, 21.0], "lm-eval by hand": [9.5, 20.0, 20.5], "driver alone": [9.0, 29.0, 20.0]}
    compared = Compared(task="t", walls=walls | {"nv-eval run": [12.0, 22.0, 32.0]})
    assert compared.overhead("runner", "lm-eval by hand") == 0.5
    assert compared.median("lm-eval by hand") == 20.0

    figures = told(compared)
    assert [figure.value for figure in figures] == [0.5, 1.0, 2.5]
    assert [figure.target for figure in figures] == [allowed(20.0), allowed(20.0), None]
    assert allowed(20.0) == pytest.approx(1.4)


def test_a_number_that_failed_is_never_the_best():
    rates = [rated(8, 10.0), rated(16, 5.0), rated(16, 50.0), rated(16, 50.0), rated(64, 1.0, failed="429")]
    assert best(rates) == 8
    assert median_rate(rates, 16) == 2.0


def test_auto_is_compared_with_the_best_fixed_number_alone():
    figure = found("s", [rated(8, 10.0), rated("auto", 9.0), rated(16, 8.0), rated("auto", 9.0)])
    assert figure.value == pytest.approx(8 / 9)
    assert figure.meets is False
    assert "best 16, auto 20" in figure.note


def test_lm_eval_by_hand_gets_the_arguments_that_the_plan_has(tmp_path: Path):
    words = by_hand(Evaluation(url="http://host:1", folder=tmp_path, task="gsm8k_100", concurrency=7, limit=3))
    given = words[words.index("--model_args") + 1].split(",")
    assert {"model=served", "num_concurrent=7", "base_url=http://host:1/v1/completions"} <= set(given)
    assert words[-2:] == ["--limit", "3"]
    assert (tmp_path / "tasks" / "gsm8k_100.yaml").is_file()


def post(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, None


def test_the_server_can_be_evaluated_with_log_likelihoods():
    with CompletionsServer(QUICK) as server:
        wait_ready(Target(url=server.url, model=MODEL, needs_loglikelihood=True, health_path="/health"))
        status, answer = post(f"{server.url}/detokenize", post(f"{server.url}/tokenize", {"prompt": " a  b "})[1])
    assert (status, answer) == (200, {"prompt": " a  b "})


def test_the_server_refuses_what_it_has_no_room_for_and_counts_it():
    shape = Shape(slots=1, base=0.3, read=0.0, write=0.0, room=1)
    with CompletionsServer(shape) as server, ThreadPoolExecutor(4) as pool:
        url, body = f"{server.url}/v1/completions", {"model": MODEL, "prompt": "Hello", "max_tokens": 1}
        statuses = sorted(status for status, _ in pool.map(lambda _: post(url, body), range(4)))
    assert statuses[0] == 200
    assert statuses.count(429) == server.counts.refused
    assert server.counts.completions == statuses.count(200)
    assert server.counts.most == 1


def test_what_the_server_answers_depends_on_the_prompt_alone():
    words = Vocabulary()
    tokens = words.encode("Question: what is two and two?\nAnswer:")
    assert "".join(words.decode(tokens)) == "Question: what is two and two?\nAnswer:"
    assert words_after(tokens, 500) == words_after(tokens, 500) != words_after(tokens[1:-1], 500)
    assert len(words_after(tokens, 5)) == 5
    assert logprob(tokens[0], tokens[1]) < 0
    assert Shape(slots=1, base=1.0, read=0.1, write=2.0).seconds(10, 3) == pytest.approx(8.0)
