"""Samples as they lie on disk: what counts as a value, and what a broken file says."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path

import pytest

from launcher.errors import ResultsError
from launcher.results import samples
from launcher.results.samples import SampleText
from tests.unit.past_runs import STAMP, PastTask, write_samples

REAL = Path(__file__).parent / "data" / "lm_eval"


def test_real_files_are_read_by_sub_task_and_filter() -> None:
    found = samples.read(REAL / "generation")

    assert {filter_name: len(kept) for (_, filter_name), kept in found.items()} == {
        "strict-match": 2,
        "flexible-extract": 2,
    }
    assert set(samples.read(REAL / "group")) == {("colours_cold", "none"), ("colours_warm", "none")}


def test_older_files_do_not_list_their_metrics(tmp_path: Path) -> None:
    path = write_samples(tmp_path, PastTask("t", {"acc": [1]}))
    path.write_text('{"doc_id": 7, "filter": "none", "target": "x", "acc": 1.0, "acc_norm": 0}\n')

    kept = samples.read(tmp_path / "t")[("t", "none")]

    assert kept.ids == [7] and {metric: list(values) for metric, values in kept.values.items()} == {
        "acc": [1.0],
        "acc_norm": [0.0],
    }


@pytest.mark.parametrize(("metric", "answer"), [("acc", "no"), ("acc_norm", "certainly")])
def test_a_choice_reads_as_the_text_that_the_model_found_likeliest(tmp_path: Path, metric: str, answer: str) -> None:
    line = {
        "doc_id": 0,
        "filter": "none",
        "target": "1",
        "arguments": {"gen_args_0": {"arg_0": "Is it?", "arg_1": " no"}, "gen_args_1": ["Is it?", " certainly"]},
        "filtered_resps": [["-2.0", "False"], ["-4.0", "False"]],
        "metrics": [metric],
        metric: 1.0,
    }
    path = write_samples(tmp_path, PastTask("t", {"acc": [1]}))
    path.write_text(json.dumps(line) + "\n")
    kept = samples.read(tmp_path / "t")[("t", "none")]

    assert samples.texts(kept, [0], metric) == [SampleText("Is it?", "certainly", answer)]


def test_what_is_no_single_number_is_no_value(tmp_path: Path) -> None:
    odd = [1, 0.0, True, None, math.nan, math.inf, [0.5, 3], "0.5", 10**400]
    task = PastTask("odd", {"acc": odd})
    write_samples(tmp_path, task)

    kept = samples.read(tmp_path / "odd")[("odd", "none")]

    assert list(kept.values["acc"][:3]) == [1.0, 0.0, 1.0]
    assert all(math.isnan(value) for value in kept.values["acc"][3:])


def test_samples_of_an_earlier_attempt_are_left_alone(tmp_path: Path) -> None:
    write_samples(tmp_path, PastTask("t", {"acc": [1, 1]}))
    earlier = tmp_path / "t" / "output" / "samples_t_2025-01-01T00-00-00.000000.jsonl"
    earlier.write_text(PastTask("t", {"acc": [0, 0, 0]}).lines())

    assert list(samples.read(tmp_path / "t")[("t", "none")].values["acc"]) == [1, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"doc_id": 0, "filter": "none", "acc": 1}\n{"doc_id": 1, "fil', "jsonl:2: broken or cut off"),
        ("[1]\n", "jsonl:1: broken or cut off: is no JSON object"),
        ('{"filter": "none", "acc": 1}\n', "has no doc_id"),
        ('{"doc_id": [], "filter": "none"}\n', "wrong type"),
        ('{"doc_id": 0, "filter": "n\xff"}\n', "broken or cut off"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(tmp_path: Path, content: str, said: str) -> None:
    path = write_samples(tmp_path, PastTask("t", {"acc": [1]}))
    path.write_bytes(content.encode("latin-1"))

    with pytest.raises(ResultsError) as caught:
        samples.read(tmp_path / "t")

    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_one_id_twice_is_refused(tmp_path: Path) -> None:
    write_samples(tmp_path, PastTask("t", {"acc": [1, 0]}, ids=[3, 3]))

    with pytest.raises(ResultsError, match="the same doc_id is there twice"):
        samples.read(tmp_path / "t")[("t", "none")].positions()


def test_samples_stay_small_in_memory_however_long_their_texts(tmp_path: Path) -> None:
    task = PastTask("big", {"acc": [0, 1] * 1_500}, document="d" * 500 + "{id}", prompt="p" * 500 + "{id}")
    path = write_samples(tmp_path, task)
    tracemalloc.start()

    kept = samples.read(tmp_path / "big")[("big", "none")]

    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept) == 3_000 and path.stat().st_size > 3_000 * 1_400
    assert held < 3_000 * 700
    assert samples.texts(kept, [2_999], "acc")[0].prompt.endswith("p2999")


def test_results_without_samples_have_none(tmp_path: Path) -> None:
    write_samples(tmp_path, PastTask("t", {"acc": [1]}, logged=False))

    assert samples.read(tmp_path / "t") == {}
    assert samples.read(tmp_path / "never") == {}
    assert STAMP in str(next((tmp_path / "t" / "output").iterdir()))
