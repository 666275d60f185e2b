"""inspect_ai reads the logs back, samples and all."""

from __future__ import annotations

from pathlib import Path

from launcher.results.exporters.sending import State
from tests.exporters.runs import change, mended
from tests.exporters.sent import send


def logs(folder: Path):
    from inspect_ai.log import list_eval_logs, read_eval_log

    found = [read_eval_log(info) for info in list_eval_logs(str(folder / "exports" / "inspect"))]
    return {log.eval.task: log for log in found}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "exports" / "inspect").iterdir()}


def test_inspect_reads_scores_samples_and_failures(folder: Path) -> None:
    assert send(folder, "inspect") is State.EXPORTED

    found = logs(folder)
    assert set(found) == {"hellaswag", "gsm8k", "broken"}
    good = found["hellaswag"]
    assert good.status == "success" and good.eval.model == "small"
    (score,) = good.results.scores
    assert score.metrics["acc"].value == 0.75 and score.metrics["acc_stderr"].value == 0.25
    assert "odd" not in score.metrics
    assert good.stats.model_usage["small"].input_tokens == 800
    assert [sample.scores["score"].value["acc"] for sample in good.samples] == [1.0, 0.0, 1.0, 1.0]
    assert good.samples[2].input == "Question 2?" and good.samples[2].target == "target 2"
    assert good.samples[2].output.completion == "answer 1.0"
    bad = found["broken"]
    assert bad.status == "error" and bad.error.message == "harness_failed: no space left" and bad.results is None


def test_a_log_that_says_the_same_is_not_touched(folder: Path) -> None:
    send(folder, "inspect")
    before = contents(folder)
    assert send(folder, "inspect", again=True) is State.EXPORTED
    assert contents(folder) == before

    change(folder, mended)
    send(folder, "inspect")
    assert contents(folder).keys() == before.keys()
    assert logs(folder)["broken"].status == "success"


def test_without_samples_a_log_has_none(folder: Path) -> None:
    send(folder, "inspect", samples=False)

    assert all(not log.samples for log in logs(folder).values())
