"""Intervals of scores: from samples where there are any, from the standard error otherwise."""

from __future__ import annotations

import sys
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from launcher.harnesses.lm_eval import clusters
from launcher.harnesses.spec import Score
from launcher.results import intervals, means, samples
from tests.unit.past_runs import PastTask, write_samples

SCORE = Score(task="t", metric="m", filter="none", value=0.5, stderr=0.1, n=10)


def kept(tmp_path: Path, task: PastTask, cluster_by: str = "") -> samples.SampleSet:
    write_samples(tmp_path, task)
    return samples.read(tmp_path / task.folder / "output", lambda _: cluster_by)[task.name, "none"]


def with_interval(tmp_path: Path, task: PastTask, cluster_by: str = "") -> Score:
    (score,) = task.scores()
    return intervals.of(score, kept(tmp_path, task, cluster_by))


def test_a_share_of_right_answers_has_the_interval_of_wilson(tmp_path: Path):
    found = with_interval(tmp_path, PastTask("t", {"acc": [1, 0, 0, 1, 1, 1, 0, 1]}))
    assert found.interval == "wilson"
    assert (found.low, found.high) == pytest.approx(proportion_confint(5, 8, method="wilson"))


def test_all_answers_wrong_is_no_certainty(tmp_path: Path):
    found = with_interval(tmp_path, PastTask("t", {"acc": [0] * 10}))
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.2775, abs=1e-4)


def test_a_mean_of_many_other_numbers_has_the_interval_that_scipy_bootstraps(tmp_path: Path):
    values = np.random.default_rng(1).gamma(2.0, size=means.MANY)
    found = with_interval(tmp_path, PastTask("t", {"f1": values.tolist()}))
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=means.RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(means.SEED),
    ).confidence_interval
    assert found.interval == "bootstrap"
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_a_mean_of_few_other_numbers_has_the_interval_of_student_stretched_to_its_skew(tmp_path: Path):
    values = np.random.default_rng(1).gamma(2.0, size=60)
    found = with_interval(tmp_path, PastTask("t", {"f1": values.tolist()}))
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.interval == "t"
    assert found.low == pytest.approx(theirs.low)
    assert found.high is not None and theirs.high < found.high < theirs.high + (theirs.high - theirs.low) / 4


def test_questions_about_one_text_are_drawn_together_and_the_interval_is_wider(tmp_path: Path):
    random = np.random.default_rng(2)
    values = np.repeat(random.integers(0, 2, 30), 10).tolist()  # ten questions a passage, all right or all wrong
    task = PastTask("t", {"acc": values}, document="passage")
    alone = with_interval(tmp_path / "alone", task)
    lines = [
        f'{{"doc_id": {i}, "filter": "none", "doc": {{"about": {{"text": "{i // 10}"}}}}, "acc": {v}}}'
        for i, v in enumerate(values)
    ]
    path = write_samples(tmp_path / "together", task)
    path.write_text("\n".join(lines) + "\n")
    together = samples.read(path.parent, lambda _: "about.text")["t", "none"]
    found = intervals.of(task.scores()[0], together)
    assert found.interval == "cluster t"
    assert found.low is not None and found.high is not None and alone.low is not None and alone.high is not None
    assert 2.5 < (found.high - found.low) / (alone.high - alone.low) < 4.0  # about the root of ten


def test_a_field_that_documents_lack_makes_no_clusters(tmp_path: Path):
    assert with_interval(tmp_path, PastTask("t", {"acc": [1, 0, 1]}), cluster_by="nowhere").interval == "wilson"


def test_clusters_that_are_all_right_count_as_one_answer_each(tmp_path: Path):
    task = PastTask("t", {"acc": [1] * 40}, document="passage")
    found = with_interval(tmp_path, task, cluster_by="text")
    assert found.interval == "cluster wilson"
    assert found.low == pytest.approx(proportion_confint(1, 1, method="wilson")[0])


def of_clusters(values: list[float], number: int, stderr: float = 0.05) -> Score:
    """The score of values that lie in `number` clusters, in turn."""
    clustered = samples.SampleSet("t", "none", Path("none"), values={"m": array("d", values)})
    clustered.clusters = [str(place % number) for place in range(len(values))]
    return intervals.of(replace(SCORE, value=float(np.mean(values)), stderr=stderr), clustered)


def test_too_few_clusters_tell_nothing_and_the_standard_error_which_knows_no_clusters_tells_no_more():
    found = of_clusters([1.0, 0.0, 1.0, 1.0, 0.0] * 20, number=5)
    assert (found.low, found.high, found.interval) == (None, None, "unknown")
    assert intervals.of(found) is found  # as a table does that reads it later


def test_many_clusters_have_the_interval_of_their_cluster_robust_standard_error():
    values = np.repeat([np.random.default_rng(3).random(20_001)], 3, axis=0).ravel()  # three alike in each cluster
    found = of_clusters(values.tolist(), number=20_001, stderr=1e-9)
    assert found.interval == "cluster t"
    assert found.low is not None and found.high is not None
    expected = 2 * stats.norm.ppf(0.975) * np.std(values[:20_001]) / np.sqrt(20_001)
    assert found.high - found.low == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("values", [[0.5] * 100, [0.1, 0.2, 0.3]])
def test_samples_that_are_all_alike_or_very_few_are_no_certainty(tmp_path: Path, values: list[float]):
    found = with_interval(tmp_path, PastTask("t", {"f1": values}, score={"stderr": 0.01}))
    assert (found.low, found.high, found.interval) == (None, None, "unknown")


@pytest.mark.parametrize("values", [[1e308] * 20, [1e308, -1e308] * 10])
def test_numbers_too_large_to_be_summed_have_no_interval_from_their_samples(values: list[float]):
    large = samples.SampleSet("t", "none", Path("none"), values={"m": array("d", values)})
    assert intervals.of(replace(SCORE, value=0.0, stderr=None), large).interval == ""


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (SCORE, (pytest.approx(0.304, abs=1e-4), pytest.approx(0.696, abs=1e-4), "normal")),
        (replace(SCORE, stderr=None), (None, None, "")),
        (replace(SCORE, stderr=0.0), (None, None, "")),
        (replace(SCORE, value=None), (None, None, "")),
    ],
)
def test_without_samples_the_standard_error_is_all_there_is(score: Score, expected: tuple[object, object, str]):
    found = intervals.of(score)
    assert (found.low, found.high, found.interval) == expected


def test_an_interval_of_the_harness_is_kept():
    own = replace(SCORE, low=0.1, high=0.9, interval="theirs")
    assert intervals.of(own) is own


def test_a_number_that_is_not_the_mean_of_its_samples_gets_none_from_them(tmp_path: Path):
    task = PastTask("t", {"ppl": [1.0, 2.0, 3.0]}, score={"value": 7.5, "stderr": 0.5})
    assert with_interval(tmp_path, task).interval == "normal"


def test_samples_without_a_number_are_never_counted_as_zero(tmp_path: Path):
    task = PastTask("t", {"acc": [1, None, 1, 1]}, score={"stderr": None})
    assert with_interval(tmp_path, task).interval == ""


def test_without_scipy_the_standard_error_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "launcher.results.means", None)
    assert with_interval(tmp_path, PastTask("t", {"acc": [1, 0, 1, 1]})).interval == "normal"


def test_the_field_of_known_tasks_is_known():
    assert clusters.field("belebele_deu_Latn") == "flores_passage"
    assert clusters.field("hellaswag") == ""
