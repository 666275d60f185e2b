"""Files of finished runs (written by lm-eval 0.4.13, trimmed) -> scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.config.evaluation import Settings
from launcher.errors import ResultsError
from launcher.harnesses import load_harness
from launcher.harnesses.spec import Score

LM_EVAL = load_harness("lm_eval")
DATA = Path(__file__).parent / "data" / "lm_eval"
STAMP = "2026-01-02T03-04-05.678901"


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(DATA / name, tmp_path / name))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def results_file(folder: Path) -> Path:
    return folder / f"results_{STAMP}.json"


def test_every_metric_of_a_task_becomes_a_score() -> None:
    accuracy, normalised = LM_EVAL.parse(DATA / "multiple_choice", "hellaswag_100", Settings(limit=4.0))
    assert (accuracy.metric, normalised.metric) == ("acc", "acc_norm")
    assert accuracy.stderr is not None
    assert accuracy == Score(
        task="hellaswag_100",
        metric="acc",
        filter="none",
        value=accuracy.value,
        stderr=accuracy.stderr,
        n=4,
        higher_is_better=True,
        num_fewshot=0,
        version="1.0",
    )


def test_every_filter_of_a_metric_is_a_score_of_its_own() -> None:
    scores = LM_EVAL.parse(DATA / "generation", "gsm8k_100", Settings(limit=2.0))
    assert {score.filter: score.value for score in scores} == {"strict-match": 0.0, "flexible-extract": 0.5}
    assert {score.n for score in scores} == {2}


def test_a_group_gives_its_aggregate_and_its_sub_tasks() -> None:
    scores = LM_EVAL.parse(DATA / "group", "colours", Settings(limit=2.0))
    assert [(score.task, score.group, score.n, score.version) for score in scores] == [
        ("colours", True, 4, None),
        ("colours_warm", False, 2, "2"),
        ("colours_cold", False, 2, "2"),
    ]


def test_a_tag_is_known_by_the_record_of_the_driver(copy: Callable[[str], Path]) -> None:
    folder = copy("tag")
    assert {score.task for score in LM_EVAL.parse(folder, "colour_tag", Settings())} == {"colours_warm", "colours_cold"}
    (folder / "provenance.json").unlink()
    with pytest.raises(ResultsError, match="holds colours_cold, colours_warm, not colour_tag"):
        LM_EVAL.parse(folder, "colour_tag", Settings())


def test_the_newest_results_win_and_may_lie_one_level_down(copy: Callable[[str], Path]) -> None:
    folder = copy("multiple_choice")
    below = folder / "org__model"
    below.mkdir()
    newer = STAMP.replace("2026", "2027")
    for path in (results_file(folder), folder / f"samples_hellaswag_100_{STAMP}.jsonl"):
        shutil.copy(path, below / path.name.replace(STAMP, newer))
    edit(below / f"results_{newer}.json", lambda run: run["results"]["hellaswag_100"].update({"acc,none": 0.123}))
    assert LM_EVAL.parse(folder, "hellaswag_100", Settings(limit=4.0))[0].value == 0.123


@pytest.mark.parametrize(
    ("written", "value"), [(float("nan"), None), (float("inf"), None), ("N/A", None), ([1], None), (1, 1.0)]
)
def test_a_value_that_is_no_finite_number_is_kept_as_missing(
    copy: Callable[[str], Path], written: Any, value: float | None
) -> None:
    folder = copy("multiple_choice")
    edit(
        results_file(folder),
        lambda run: run["results"]["hellaswag_100"].update({"acc,none": written, "acc_stderr,none": "N/A"}),
    )
    score = LM_EVAL.parse(folder, "hellaswag_100", Settings(limit=4.0))[0]
    assert (score.value, score.stderr) == (value, None)


def _drop_metrics(run: dict[str, Any]) -> None:
    run["results"]["hellaswag_100"] = {"alias": "hellaswag_100", "name": "hellaswag_100", "sample_len": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run.pop("results"), "has no results"),
        (lambda run: run.pop("n-samples"), "has no n-samples"),
        (
            lambda run: run["n-samples"]["hellaswag_100"].pop("effective"),
            "does not say how many samples of hellaswag_100",
        ),
        (lambda run: run["n-samples"]["hellaswag_100"].update(effective=3), "hellaswag_100 has 3 of 4 samples"),
        (
            lambda run: run["n-samples"]["hellaswag_100"].update(effective=5),
            "4 samples of filter none, but 5 were scored",
        ),
        (_drop_metrics, "holds no scores of hellaswag_100"),
    ],
)
def test_incomplete_results_are_refused(
    copy: Callable[[str], Path], change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    folder = copy("multiple_choice")
    edit(results_file(folder), change)
    with pytest.raises(ResultsError, match=message):
        LM_EVAL.parse(folder, "hellaswag_100", Settings(limit=4.0))


@pytest.mark.parametrize(("limit", "enough"), [(None, False), (5.0, False), (0.05, False), (0.04, True), (3.0, True)])
def test_the_samples_asked_for_must_be_there(limit: float | None, enough: bool) -> None:
    settings = Settings(limit=limit)
    if enough:
        assert LM_EVAL.parse(DATA / "multiple_choice", "hellaswag_100", settings)
        return
    with pytest.raises(ResultsError, match=r"hellaswag_100 has 4 of (100|5) samples"):
        LM_EVAL.parse(DATA / "multiple_choice", "hellaswag_100", settings)


def test_a_missing_or_cut_file_of_samples_is_refused_unless_none_were_asked_for(copy: Callable[[str], Path]) -> None:
    folder = copy("generation")
    samples = folder / f"samples_gsm8k_100_{STAMP}.jsonl"
    lines = samples.read_text().splitlines(keepends=True)
    assert len(lines) == 4, "two samples through two filters"

    for content, message in (
        ("".join(lines[:-1]), "1 samples of filter flexible-extract, but 2 were scored"),
        ("".join(lines)[:-20], "has a broken line"),
        ("", "no samples, but 2 were scored"),
        (None, "cannot be read: No such file"),
    ):
        samples.unlink() if content is None else samples.write_text(content)
        with pytest.raises(ResultsError, match=message):
            LM_EVAL.parse(folder, "gsm8k_100", Settings(limit=2.0))
    assert LM_EVAL.parse(folder, "gsm8k_100", Settings(limit=2.0, log_samples=False))


def test_results_of_another_task_are_refused() -> None:
    with pytest.raises(ResultsError, match="holds hellaswag_100, not gsm8k_100"):
        LM_EVAL.parse(DATA / "multiple_choice", "gsm8k_100", Settings(limit=4.0))


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_missing_or_broken_files_are_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "provenance.json").write_text(content)
        results_file(tmp_path).write_text(content)
    with pytest.raises(ResultsError, match=r"wrote no results_\*|cannot be read|is not a JSON object"):
        LM_EVAL.parse(tmp_path, "gsm8k", Settings())
    with pytest.raises(ResultsError, match=r"wrote no provenance|cannot be read|is not a JSON object"):
        LM_EVAL.provenance(tmp_path)


def test_provenance_says_what_was_run() -> None:
    record = LM_EVAL.provenance(DATA / "group")
    assert record["requested"] == "colours"
    assert record["packages"]["lm_eval"] == "0.4.13"
    assert record["tasks"]["colours_warm"]["dataset_path"] == "json"
    assert len(record["include_path"]["git_revision"]) == 40


TASK = "hellaswag_100"


@pytest.mark.parametrize("written", [float("nan"), float("inf"), "N/A", None, [1], 10**400])
def test_a_task_without_one_finite_value_is_not_scored(copy: Callable[[str], Path], written: Any) -> None:
    folder = copy("multiple_choice")
    edit(results_file(folder), lambda run: run["results"][TASK].update({"acc,none": written, "acc_norm,none": written}))
    with pytest.raises(ResultsError, match=f"no metric of {TASK} is a finite number"):
        LM_EVAL.parse(folder, TASK, Settings(limit=4.0))


@pytest.mark.parametrize("limit", [None, 4.0])
def test_a_task_without_samples_is_not_scored(copy: Callable[[str], Path], limit: float | None) -> None:
    folder = copy("multiple_choice")
    edit(results_file(folder), lambda run: run["n-samples"].update({TASK: {"original": 0, "effective": 0}}))
    (folder / f"samples_{TASK}_{STAMP}.jsonl").write_text("")
    with pytest.raises(ResultsError, match=f"{TASK} has no samples"):
        LM_EVAL.parse(folder, TASK, Settings(limit=limit))


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("results", {TASK: [1]}, "results of hellaswag_100 is no object"),
        ("n-samples", {TASK: 5}, "n-samples of hellaswag_100 is no object"),
        ("n-samples", {TASK: {"original": "x", "effective": 4}}, "does not say how many samples hellaswag_100 has"),
        ("n-samples", {TASK: {"original": 100, "effective": True}}, "does not say how many samples of hellaswag_100"),
        ("groups", [1], "has no groups"),
        ("groups", {"g": 1}, "groups of g is no object"),
        ("higher_is_better", {TASK: "yes"}, "higher_is_better of hellaswag_100 is no object"),
        ("n-shot", 3, "has no n-shot"),
    ],
)
def test_malformed_sections_are_refused(copy: Callable[[str], Path], section: str, value: Any, message: str) -> None:
    folder = copy("multiple_choice")
    edit(results_file(folder), lambda run: run.update({section: value}))
    with pytest.raises(ResultsError, match=message):
        LM_EVAL.parse(folder, TASK, Settings(limit=4.0))
