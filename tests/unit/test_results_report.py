"""What a report shows, whatever its form, and its Markdown and PDF forms."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.errors import ConfigError, NotFound, ResultsError
from launcher.results.compare import Verdict
from launcher.results.report import Form, form_of, pdf, write
from launcher.results.report.charts import Style, forest, gantt
from launcher.results.report.content import Report, endpoint_rows, gather, time_summary
from launcher.results.timeline import Span, Timeline, load
from tests.unit.past_runs import PastTask, write_run
from tests.unit.report_runs import HOSTILE, SpokenTask, add_failures, write_timeline

RIGHT = PastTask("t", {"acc": [1] * 30 + [0] * 10})
WORSE = replace(RIGHT, values={"acc": [0] * 20 + [1] * 10 + [0] * 10})
OTHER = PastTask("u", {"acc": [1, 0] * 10})


def cells(report: Report) -> dict[str, list[str]]:
    return {f"{row.label} {row.metric}": [cell.text for cell in row.cells] for row in report.scores}


def test_every_score_of_every_run_has_its_number_and_its_interval(tmp_path: Path) -> None:
    report = gather([write_run(tmp_path, "aaaa", RIGHT, OTHER), write_run(tmp_path, "bbbb", WORSE)])

    assert cells(report)["t acc ↑"] == ["0.7500", "0.2500"]
    assert cells(report)["u acc ↑"] == ["0.5000", "not in this run"]
    assert re.fullmatch(r"0\.\d{4} to 0\.\d{4}", report.scores[0].cells[0].note)
    assert report.scores[0].cells[0].n == "n = 40" and report.scores[0].scale == (0.0, 1.0)


def test_what_is_no_number_is_shown_as_what_it_is(tmp_path: Path) -> None:
    tasks = [
        replace(RIGHT, name="nan", score={"value": None}),
        replace(RIGHT, name="unsure", score={"stderr": None}),
        PastTask("empty", {"acc": []}, score={"value": 0.0, "n": 0}),
        PastTask("failed", {}),
    ]
    report = gather([write_run(tmp_path, "aaaa", *tasks, complete=False)])

    assert cells(report)["nan acc ↑"] == ["undefined"] and cells(report)["empty acc ↑"] == ["no samples"]
    assert cells(report)["failed -"] == ["failed"] and report.scores[3].cells[0].note == "harness failed"
    assert cells(report)["unsure acc ↑"] == ["0.7500"] and report.scores[1].cells[0].note == "no interval"
    assert all(cell.value is None for row in (*report.scores[:1], *report.scores[2:]) for cell in row.cells)
    assert cells(report)["average over tasks acc ↑"] == ["no average"]


def test_a_metric_in_another_unit_has_a_scale_of_its_own(tmp_path: Path) -> None:
    loss = PastTask("loss", {"perplexity": [3.0, 5.0]}, score={"higher_is_better": False})
    row = gather([write_run(tmp_path, "aaaa", loss)]).scores[0]

    assert row.metric == "perplexity ↓" and row.scale[0] < 4.0 < row.scale[1]


def test_a_run_that_is_broken_is_in_the_report_as_that(tmp_path: Path) -> None:
    good, broken = write_run(tmp_path, "aaaa", RIGHT), write_run(tmp_path, "bbbb", RIGHT)
    (broken / "results.json").write_bytes((broken / "results.json").read_bytes()[:200])
    nothing = tmp_path / "cccc"
    nothing.mkdir()
    report = gather([broken, good, nothing])

    assert [run.mark for run in report.runs] == ["A", "B", "C"] and [run.mark for run in report.readable] == ["B"]
    assert "results.json: broken" in report.runs[0].problem and "no scores have come home" in report.runs[2].problem
    with pytest.raises(ResultsError, match=r"broken(.|\n)*no scores have come home"):
        gather([broken, nothing])
    with pytest.raises(NotFound):
        gather([nothing])


def test_what_cannot_be_compared_is_left_out_with_its_reason_and_the_rest_is_compared(tmp_path: Path) -> None:
    base = write_run(tmp_path, "aaaa", RIGHT, OTHER)
    candidate = write_run(tmp_path, "bbbb", WORSE, replace(OTHER, score={"num_fewshot": 5}))
    comparison = gather([base, candidate]).comparison

    assert comparison is not None and comparison.tests == 1
    (versus,) = comparison.candidates
    assert [(row.label, row.verdict) for row in versus.rows] == [("t", Verdict.WORSE)]
    assert versus.refused == ["u: few-shot examples: 0 in the baseline, 5 in the candidate"]
    forced = gather([base, candidate], force=True).comparison
    assert forced is not None and not forced.candidates[0].refused
    assert [(row.label, bool(row.forced)) for row in forced.candidates[0].rows] == [("t", False), ("u", True)]


def test_a_forest_plot_shows_shares_alone_and_says_what_it_left_out(tmp_path: Path) -> None:
    loss = PastTask("loss", {"perplexity": [3.0, 5.0] * 10})
    report = gather([write_run(tmp_path, "aaaa", RIGHT, loss), write_run(tmp_path, "bbbb", WORSE, loss)])
    assert report.comparison is not None
    chart = forest(report.comparison.candidates[0].rows)

    assert chart is not None and chart.left_out == 1
    assert "t acc: -0.5000" in chart.wide and "loss" not in chart.wide and "1 worse" in chart.summary
    assert forest(report.comparison.candidates[0].rows[1:]) is None


def test_charts_hold_no_colours_of_their_own_but_on_paper(tmp_path: Path) -> None:
    line = write_timeline(write_run(tmp_path, "aaaa", RIGHT))
    themed, fixed = gantt(line), gantt(line, Style(font="Some Serif"))

    assert themed is not None and fixed is not None
    assert not re.search(r"#[0-9a-f]{3,6}|style=|href|<script", themed.wide + themed.narrow)
    assert 'class="f-busy"' in themed.wide and 'fill="#2f7ab8"' in fixed.wide and "Some Serif" in fixed.wide


def test_names_that_no_drawing_can_hold_are_drawn_without_what_is_wrong_with_them() -> None:
    job = Span(kind="job", name="j", task="\x07bell \ud83d <half>", attempt=1, began=1, ready=2, ended=3)
    chart = gantt(Timeline(invocation="i", began=0, ended=4, spans=[job]))

    assert chart is not None and " bell   &lt;half&gt;: job evaluates for 1 s" in chart.wide


def test_the_time_line_tells_idle_time_and_what_it_cost(tmp_path: Path) -> None:
    line = write_timeline(write_run(tmp_path, "aaaa", RIGHT, OTHER), usd_per_hour=3.0)
    rows = endpoint_rows(line)

    for row in rows:
        assert row.starting is not None and row.usd is not None and row.idle_usd is not None
        assert row.seconds == pytest.approx(row.busy + row.idle) and row.idle == pytest.approx(row.starting + 35)
        assert row.idle_usd == pytest.approx(3.0 * row.idle / 3600)
    assert "2 endpoints" in time_summary(rows) and "USD, of it idle" in time_summary(rows)
    unpriced = endpoint_rows(write_timeline(tmp_path / "aaaa", usd_per_hour=None))
    assert "no price is known" in time_summary(unpriced) and unpriced[0].cells[-2] == "-"


def test_a_run_without_a_time_line_and_one_with_a_broken_one_say_so(tmp_path: Path) -> None:
    without, broken = write_run(tmp_path, "aaaa", RIGHT), write_run(tmp_path, "bbbb", RIGHT)
    write_timeline(broken)
    (broken / "timeline.json").write_bytes(b'{"invocation": "bbbb", "spans": [')
    first, second = gather([without, broken]).runs

    assert load(without) is None and "left no timeline.json" in first.no_timeline
    assert "timeline.json: broken" in second.no_timeline


def test_failures_come_with_their_evidence_and_what_to_do(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "aaaa", RIGHT)
    add_failures(folder)
    report = gather([folder])

    died, stopped = report.failures
    assert (died.task, died.reason, died.status) == ("big_benchmark", "endpoint out of memory", "failed")
    assert "larger shape" in died.advice and died.evidence["endpoint"][1].startswith("ERROR torch.OutOfMemoryError")
    assert stopped.evidence == {} and stopped.status == "stopped"
    assert [(one.task, one.status) for one in report.retried] == [("t", "attempt 1, tried again")]


def test_the_record_shows_what_differs_first(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, name, RIGHT) for name in ("aaaa", "bbbb")]
    for folder, version in zip(folders, ("1.0", "1.1"), strict=True):
        path = folder / "provenance.json"
        known = json.loads(path.read_text())
        path.write_text(json.dumps({**known, "python": "3.11.7", "packages": {"lm-eval": version}}))
    runs, task = gather(folders).record

    assert [(fact.name, fact.values, fact.differs) for fact in runs.facts] == [
        ("packages.lm-eval", ["1.0", "1.1"], True),
        ("python", ["3.11.7", "3.11.7"], False),
    ]
    assert ("harness.tasks.t.dataset_fingerprint", ["f1", "f1"]) in [(fact.name, fact.values) for fact in task.facts]


def test_a_record_that_is_missing_or_broken_is_said(tmp_path: Path) -> None:
    missing, broken = write_run(tmp_path, "aaaa", RIGHT), write_run(tmp_path, "bbbb", RIGHT)
    (missing / "provenance.json").unlink()
    (broken / "provenance.json").write_text("[1")

    problems = gather([missing, broken]).record_problems

    assert "aaaa: no provenance.json" in problems[0] and "provenance.json: broken" in problems[1]


def test_suffixes_name_the_form() -> None:
    assert form_of(Path("a.HTML")) is Form.HTML and form_of(Path("a.markdown")) is Form.MARKDOWN
    assert form_of(Path("a.html"), "pdf") is Form.PDF
    with pytest.raises(ConfigError, match=r"a\.docx: the suffix names no form"):
        form_of(Path("a.docx"))


def test_markdown_keeps_texts_of_others_inert(tmp_path: Path) -> None:
    evil = replace(RIGHT, name="# head | <b>x [l](javascript:1)", key="evil", values={"acc": [1] * 10})
    base = write_run(tmp_path, "aaaa", evil)
    add_failures(base)
    record = json.loads((base / "results.json").read_text())
    record["tasks"][1]["evidence"] = {"job": ["```", "# still evidence", "````"]}
    (base / "results.json").write_text(json.dumps(record))
    text = write([base], tmp_path / "r.md").path.read_text()

    assert "<b>" not in text and "[l](" not in text and "&#60;b&#62;" in text
    block = text.split("`````text\n", 1)[1].split("\n`````\n", 1)[0]
    assert block == "```\n# still evidence\n````"
    assert {"## Runs", "## Scores", "## Time line", "## Failures", "## Reproducibility record"} <= set(text.split("\n"))


def test_a_pdf_is_set_from_any_text(tmp_path: Path) -> None:
    text = "".join(HOSTILE) + '#panic("run") $x$ *b* \\ @ref <label>'
    evil = SpokenTask("t", {"acc": [1] * 10}, texts=[text], key="#evil_$x$ *b*")
    base = write_run(tmp_path, "aaaa", evil)
    candidate = write_run(tmp_path, "bbbb", replace(evil, values={"acc": [0] * 10}))
    add_failures(candidate)
    write_timeline(base)

    made = write([base, candidate], tmp_path / "r.pdf")

    content = made.path.read_bytes()
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF") and made.size == len(content)
    shown = pdf._data(gather([base, candidate], flips=2))
    assert shown["differences"][0]["chart"]["svg"].startswith("<svg") and shown["times"][0]["rows"]


def test_a_shared_endpoint_is_idle_between_its_jobs_and_what_still_runs_reaches_to_the_end() -> None:
    shared = Span(kind="endpoint", name="e", task="a", attempt=1, began=10, ready=20, users=["a", "b"], gpus=2)
    jobs = [
        Span(kind="job", name="ja", task="a", attempt=1, began=10, ready=25, ended=35, reason="completed"),
        Span(kind="job", name="jb", task="b", attempt=2, began=30, ready=40),
    ]
    chart = gantt(Timeline(invocation="i", began=0, ended=60, spans=[shared, *jobs]))
    (row,) = endpoint_rows(Timeline(invocation="i", began=0, ended=60, spans=[shared, *jobs]))

    assert chart is not None and row.cells[1:4] == ["a, b", "2", "50 s, not gone"] and (row.busy, row.idle) == (30, 20)
    assert re.findall(r"<title>a: endpoint (.*?)</title>", chart.wide) == [
        "starts for 10 s, from 10 s",
        "idle for 5 s, from 20 s",
        "evaluates for 10 s, from 25 s",
        "idle for 5 s, from 35 s",
        "evaluates for 20 s, from 40 s",
    ]
    assert "b, attempt 2" in chart.wide and "b: job evaluates for 20 s, from 40 s" in chart.wide
