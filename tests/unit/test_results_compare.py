"""Runs compared from their folders: pairs, refusals, what is said of what cannot be told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from launcher.errors import NotComparable, NotFound, ResultsError
from launcher.harnesses.spec import Score
from launcher.results.compare import Comparison, Row, Verdict, compare
from launcher.results.compare_text import markdown
from launcher.results.statistics import Method, Shares
from tests.unit.past_runs import PastTask, write_run

RNG = np.random.default_rng(0)
RIGHT = [int(value) for value in RNG.random(100) < 0.7]
WORSE = [value and int(chance > 0.3) for value, chance in zip(RIGHT, RNG.random(100), strict=True)]
TASK = PastTask("t", {"acc": RIGHT})


def compared(root: Path, first: list[PastTask], second: list[PastTask], **options: Any) -> Comparison:
    return compare([write_run(root, "aaaa", *first), write_run(root, "bbbb", *second)], **options)


def only_row(found: Comparison) -> Row:
    (row,) = found.candidates[0].rows
    return row


def test_samples_are_paired_by_id_whatever_their_order(tmp_path: Path) -> None:
    order = [int(place) for place in RNG.permutation(100)]
    shuffled = replace(TASK, values={"acc": [WORSE[place] for place in order]}, ids=order)

    row = only_row(compared(tmp_path, [TASK], [shuffled]))

    fell = sum(old > new for old, new in zip(RIGHT, WORSE, strict=True))
    assert (row.n, row.rose, row.fell, row.method) == (100, 0, fell, Method.MCNEMAR)
    assert row.p == row.p_holm == mcnemar([[0, fell], [0, 0]], exact=True).pvalue
    assert row.difference == pytest.approx(np.mean(WORSE) - np.mean(RIGHT))
    assert row.low is not None and row.high is not None and row.low < row.difference < row.high < 0
    assert row.verdict is Verdict.WORSE


def test_a_run_compared_with_itself_differs_in_nothing(tmp_path: Path) -> None:
    group = Score(task="all", metric="acc", filter="none", value=0.5, stderr=0.05, n=100, group=True)
    f1 = PastTask("f", {"f1": [0.25, 0.5, 1.0] * 10})
    folder = write_run(tmp_path, "aaaa", replace(TASK, group=group), f1)

    rows = compare([folder, folder]).candidates[0].rows

    assert [row.method for row in rows] == [Method.STDERR, Method.MCNEMAR, Method.PERMUTATION]
    assert {(row.difference, row.p, row.p_holm, row.verdict) for row in rows} == {(0.0, 1.0, 1.0, Verdict.NOT_SHOWN)}


def test_holm_is_over_all_rows_of_all_candidates(tmp_path: Path) -> None:
    other = PastTask("u", {"f1": [0.1, 0.9] * 20})
    first = write_run(tmp_path, "aaaa", TASK, other)
    better = replace(other, values={"f1": [0.15, 0.92] * 20})
    folders = [first, write_run(tmp_path, "bbbb", replace(TASK, values={"acc": WORSE}), other)]

    found = compare([*folders, write_run(tmp_path, "cccc", TASK, better)])

    rows = [row for versus in found.candidates for row in versus.rows]
    assert found.tests == 4
    assert [row.p_holm for row in rows] == pytest.approx(multipletests([row.p for row in rows], method="holm")[1])
    assert rows[3].verdict is Verdict.BETTER
    alone = [compare([folders[0], tmp_path / name], tasks=["t"]).candidates[0].rows[0] for name in ("bbbb", "cccc")]
    assert rows[0].detectable == Shares(100, 0, rows[0].fell or 0).detectable(0.05 / 4)
    assert (rows[0].detectable or 0.0) > (alone[0].detectable or 1.0), "more tests show less"
    assert "with 80% power at 0.05 / 4;" in markdown(found)


@pytest.mark.parametrize(
    ("higher", "verdict"), [(True, Verdict.WORSE), (False, Verdict.BETTER), (None, Verdict.DIFFERENT)]
)
def test_the_direction_of_the_metric_is_honoured(tmp_path: Path, higher: bool | None, verdict: Verdict) -> None:
    task = replace(TASK, score={"higher_is_better": higher})

    found = compared(tmp_path, [task], [replace(task, values={"acc": WORSE})])

    assert only_row(found).verdict is verdict
    assert ("acc ?" in markdown(found)) == (higher is None)


REFUSALS = [
    (replace(TASK, score={"version": "2.0"}), "version of the task: 1.0 in the baseline, 2.0 in the candidate"),
    (replace(TASK, score={"num_fewshot": 5}), "few-shot examples: 0 in the baseline, 5 in the candidate"),
    (replace(TASK, score={"higher_is_better": False}), "higher is better: True in the baseline, False"),
    (replace(TASK, prompt="Please: {id}?"), "prompts (100 of 100 differ; digest of 0)"),
    (replace(TASK, document="other {id}"), "documents (100 of 100 differ"),
    (replace(TASK, fingerprint="f2"), "dataset fingerprint: f1 in the baseline, f2 in the candidate"),
    (replace(TASK, values={"acc": RIGHT[:60]}), "samples: 100 in the baseline, 60 in the candidate"),
    (replace(TASK, values={"acc": RIGHT, "f1": RIGHT}), "metrics: acc (none) in the baseline, acc (none), f1 (none)"),
    (replace(TASK, ids=range(50, 150)), "sample ids: 0 and 49 more"),
]


@pytest.mark.parametrize(("other", "said"), REFUSALS, ids=[said[:12] for _, said in REFUSALS])
def test_what_cannot_be_compared_is_refused_with_both_values(tmp_path: Path, other: PastTask, said: str) -> None:
    with pytest.raises(NotComparable) as refused:
        compared(tmp_path, [TASK], [other])

    assert said in str(refused.value) and "--force" in str(refused.value)
    forced = compare([tmp_path / "aaaa", tmp_path / "bbbb"], force=True)
    assert any(said in str(one) for one in only_row(forced).forced)
    assert "(forced)" in markdown(forced)


def test_forced_rows_are_of_the_common_samples_only(tmp_path: Path) -> None:
    found = compared(tmp_path, [TASK], [replace(TASK, values={"acc": WORSE[:60]})], force=True)

    row = only_row(found)
    assert row.n == 60 and row.baseline_value == pytest.approx(np.mean(RIGHT[:60]))
    assert "values are those of the 60 common samples" in row.notes


def test_forced_rows_pair_no_samples_of_other_documents(tmp_path: Path) -> None:
    row = only_row(compared(tmp_path, [TASK], [replace(TASK, document="other {id}")], force=True))

    assert row.n is None and row.method is Method.STDERR
    assert "not paired: the runs have no sample in common" in row.notes


def test_the_tasks_that_can_be_compared_are_with_a_pattern(tmp_path: Path) -> None:
    other = PastTask("other", {"acc": RIGHT})
    changed = replace(other, score={"version": "2.0"})

    found = compared(tmp_path, [TASK, other], [TASK, changed], tasks=["t*"])

    assert only_row(found).task == "t"
    with pytest.raises(NotFound, match="did you mean other"):
        compare([tmp_path / "aaaa", tmp_path / "bbbb"], tasks=["othr"])


def test_a_pattern_chooses_among_the_sub_tasks_of_a_group(tmp_path: Path) -> None:
    group = Score(task="all", metric="acc", filter="none", value=0.5, stderr=0.03, group=True)
    task = replace(TASK, key="all", group=group)

    rows = compared(tmp_path, [task], [task], tasks=["t"]).candidates[0].rows

    assert [row.label for row in rows] == ["all / t"]
    assert len(compare([tmp_path / "aaaa", tmp_path / "bbbb"], tasks=["al*"]).candidates[0].rows) == 2


def test_an_aggregate_is_compared_by_its_standard_error_and_says_so(tmp_path: Path) -> None:
    group = Score(task="all", metric="acc", filter="none", value=0.5, stderr=0.03, group=True, higher_is_better=True)
    second = replace(TASK, group=replace(group, value=0.6, stderr=0.04))

    found = compared(tmp_path, [replace(TASK, group=group)], [second])

    row = found.candidates[0].rows[0]
    assert row.p == pytest.approx(0.0455, abs=1e-4) and row.group
    assert row.notes == ["not paired: an aggregate has no samples of its own"]


def test_a_difference_below_an_aggregate_is_said_of_it(tmp_path: Path) -> None:
    group = Score(task="all", metric="acc", filter="none", value=0.5, stderr=0.03, group=True)
    first = replace(TASK, group=group)

    rows = compared(tmp_path, [first], [replace(first, prompt="New {id}")], force=True).candidates[0].rows

    assert [str(one).startswith("t: prompts") for one in rows[0].forced] == [True]


def test_runs_without_a_metric_in_common_are_refused_and_forced_ones_listed(tmp_path: Path) -> None:
    with pytest.raises(NotComparable, match="t: no metric of both runs is the same"):
        compared(tmp_path, [TASK], [replace(TASK, values={"f1": RIGHT})])

    versus = compare([tmp_path / "aaaa", tmp_path / "bbbb"], force=True).candidates[0]
    assert (versus.rows, versus.only_baseline, versus.only_candidate) == ([], ["t acc none"], ["t f1 none"])


def test_an_aggregate_of_another_version_is_refused_though_its_parts_are_the_same(tmp_path: Path) -> None:
    group = Score(task="all", metric="acc", filter="none", value=0.5, stderr=0.03, group=True, version="1")
    second = replace(TASK, group=replace(group, version="2"))

    with pytest.raises(NotComparable, match="version of the task: 1 in the baseline, 2 in the candidate"):
        compared(tmp_path, [replace(TASK, group=group)], [second])


def test_nan_and_null_are_left_out_and_never_count_as_zero(tmp_path: Path) -> None:
    odd: list[Any] = [math.nan, None, *RIGHT[2:]]
    task = PastTask("t", {"acc": odd}, score={"value": float(np.mean(RIGHT[2:]))})

    row = only_row(compared(tmp_path, [TASK], [task]))

    assert row.n == 98 and row.difference == 0.0
    assert row.baseline_value == row.candidate_value == pytest.approx(np.mean(RIGHT[2:]))
    assert "2 common samples have no value in one run and are left out" in row.notes


def test_a_score_without_value_is_shown_as_that(tmp_path: Path) -> None:
    row = only_row(compared(tmp_path, [TASK], [replace(TASK, score={"value": None, "stderr": None})]))

    assert (row.candidate_value, row.difference, row.p, row.verdict) == (None, None, None, Verdict.NO_VALUE)
    assert row.notes == ["no value in bbbb: the metric is undefined there"]


def test_without_samples_and_standard_error_there_is_no_test(tmp_path: Path) -> None:
    task = replace(TASK, logged=False, score={"stderr": None})

    row = only_row(compared(tmp_path, [TASK], [replace(task, values={"acc": WORSE})]))

    assert row.difference is not None and (row.p, row.low, row.verdict) == (None, None, Verdict.NOT_TESTED)
    assert row.notes == ["not paired: no samples in bbbb", "not tested: no standard error, or one of 0"]


def test_a_metric_that_is_not_the_mean_of_its_samples_is_not_paired(tmp_path: Path) -> None:
    task = PastTask("t", {"mcc": RIGHT}, score={"value": 0.123, "stderr": 0.05})

    row = only_row(compared(tmp_path, [task], [task]))

    assert row.notes == ["not paired: mcc is not the mean of its samples"]


def test_metrics_of_several_numbers_for_a_sample_are_not_paired(tmp_path: Path) -> None:
    task = PastTask("t", {"perplexity": [[-3.5, 4]] * 5}, score={"value": 8.0, "stderr": 0.5})

    assert only_row(compared(tmp_path, [task], [task])).notes == [
        "not paired: samples have no single number for perplexity"
    ]


def test_flips_are_the_samples_that_changed_with_both_answers(tmp_path: Path) -> None:
    row = only_row(compared(tmp_path, [TASK], [replace(TASK, values={"acc": WORSE})], flips=2))

    changed = [key for key in range(100) if RIGHT[key] != WORSE[key]][:2]
    assert [flip.id for flip in row.flips] == changed
    first = row.flips[0]
    assert (first.prompt, first.target) == (f"Question {changed[0]}?", f"target {changed[0]}")
    assert (first.baseline_answer, first.candidate_answer) == ("answer 1", "answer 0")


def test_markup_in_answers_is_inert_in_markdown(tmp_path: Path) -> None:
    task = replace(TASK, prompt="<script>alert(1)</script>|`x`\n# {id}")

    found = compared(tmp_path, [task], [replace(task, values={"acc": WORSE})], flips=1)

    assert "<script>" not in markdown(found) and "&#60;script&#62;" in markdown(found)


def test_tasks_of_one_run_only_and_incomplete_runs_are_said(tmp_path: Path) -> None:
    failed = PastTask("gone", {})

    write_run(tmp_path, "aaaa", TASK, PastTask("gone", {"acc": [1]}), PastTask("old", {"acc": [1]}))
    write_run(tmp_path, "bbbb", TASK, failed, PastTask("new", {"acc": [1]}), complete=False)
    found = compare([tmp_path / "aaaa", tmp_path / "bbbb"])

    versus = found.candidates[0]
    assert versus.only_baseline == ["gone: harness failed in bbbb", "old"] and versus.only_candidate == ["new"]
    assert "not complete" in markdown(found)


def test_nothing_in_common_is_an_error_that_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no scored task in common: t in the one, u in the other"):
        compared(tmp_path, [TASK], [PastTask("u", {"acc": [1]})])


def test_settings_that_show_in_no_digest_are_said(tmp_path: Path) -> None:
    cold, warm = ({"generation": {"temperature": heat}, "concurrency": 4} for heat in (0, 1))

    row = only_row(compared(tmp_path, [replace(TASK, settings=cold)], [replace(TASK, settings=warm)]))

    assert row.notes == ["settings differ: generation.temperature: 0 -> 1"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results.json", '{"invocation": "bbbb", "cre', "broken"),
        ("results.json", None, "nv-eval.results/0"),
        ("provenance.json", "{", "broken"),
    ],
)
def test_broken_files_of_a_run_are_one_line(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    first, second = write_run(tmp_path, "aaaa", TASK), write_run(tmp_path, "bbbb", TASK)
    path = second / name
    older = json.dumps({**json.loads(path.read_text()), "schema": "nv-eval.results/0"})
    path.write_text(older if content is None else content)

    with pytest.raises(ResultsError, match=said) as caught:
        compare([first, second])

    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("left", [90, 0])
def test_samples_cut_off_between_two_lines_are_noticed(tmp_path: Path, left: int) -> None:
    first, second = write_run(tmp_path, "aaaa", TASK), write_run(tmp_path, "bbbb", TASK)
    path = next((second / "t" / "output").glob("*.jsonl"))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:left]))

    with pytest.raises(ResultsError, match=f"{left} samples of filter none, but 100 were scored"):
        compare([first, second])


def test_a_task_of_zero_samples_has_no_value(tmp_path: Path) -> None:
    row = only_row(compared(tmp_path, [PastTask("t", {"acc": []})], [PastTask("t", {"acc": []})]))

    assert (row.n, row.difference, row.verdict) == (None, None, Verdict.NO_VALUE)
    assert row.notes == ["no value in aaaa and bbbb: the metric is undefined there"]


def test_samples_of_one_document_are_compared_in_clusters_where_the_settings_say_what_they_share(
    tmp_path: Path,
) -> None:
    values = [1, 0] * 30
    settings = {"cluster_by": "text"}
    task = PastTask("t", {"acc": values}, settings=settings)
    worse = PastTask("t", {"acc": [0, 0] * 30}, settings=settings)
    runs = [write_run(tmp_path, name, one) for name, one in (("aaaa", task), ("bbbb", worse))]
    for folder in runs:  # two questions about each document
        path = next(folder.rglob("samples_*.jsonl"))
        lines = [
            json.loads(line) | {"doc": {"text": number // 2}}
            for number, line in enumerate(path.read_text().splitlines())
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    (row,) = compare(runs).candidates[0].rows

    assert (row.method, row.n, row.rose, row.fell) == ("cluster permutation", 60, 0, 30)
    assert row.low is not None and row.high is not None and row.low <= -0.5 <= row.high


def test_a_partial_comparison_leaves_out_what_differs_or_is_broken_and_corrects_for_the_rest(tmp_path: Path) -> None:
    tasks = [replace(TASK, name=name) for name in ("good", "other_shots", "cut_off")]
    shots = replace(TASK, name="other_shots", score={"num_fewshot": 5})
    base = write_run(tmp_path, "aaaa", *tasks)
    candidate = write_run(tmp_path, "bbbb", replace(TASK, name="good", values={"acc": WORSE}), shots, tasks[2])
    path = next((candidate / "cut_off" / "output").glob("samples_*"))
    path.write_bytes(path.read_bytes()[:-30])

    found = compare([base, candidate], partial=True)

    assert found.tests == 1 and [row.label for row in found.candidates[0].rows] == ["good"]
    shots_line, broken_line = found.candidates[0].refused
    assert shots_line == "other_shots: few-shot examples: 0 in the baseline, 5 in the candidate"
    assert str(path) in broken_line
