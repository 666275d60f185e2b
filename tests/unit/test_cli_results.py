"""`nv-eval results` as a person types it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from launcher.errors import ResultsError
from launcher.orchestrator.journal import Journal
from launcher.results.model import SCHEMA
from tests.unit.conftest import Desk
from tests.unit.past_runs import PastTask, write_run

TASK = PastTask("t_one", {"acc": [1] * 6 + [0] * 2})
OTHER = PastTask("u", {"acc": [1, 0, 0, 0]})
FAILED = PastTask("gone", {})


@pytest.fixture
def runs(desk: Desk) -> Desk:
    journal = Journal.default()
    for id_, tasks in {"aaaa": (TASK, OTHER), "bbbb": (TASK, FAILED)}.items():
        folder = write_run(desk.cwd, id_, *tasks)
        journal.begin(id_, execution="local", deployment="smollm", folder=str(folder), tasks=["t"], hold=False)
    return desk


def test_each_score_has_its_interval_and_a_task_without_scores_its_reason(runs: Desk):
    code, out, _ = runs.nv_eval("results", "bbbb")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["task", "metric", "filter", "value", "stderr", "95", "%", "n", "shots"]
    assert lines[1][:5] == ["t_one", "acc", "↑", "none", "0.7500"] and "to" in lines[1]
    assert lines[2] == ["gone", "harness", "failed", "-", "-", "-", "-", "-"]


def test_several_invocations_are_one_table_with_run_and_model(runs: Desk):
    _, out, _ = runs.nv_eval("results", "--all")
    assert out.splitlines()[0].split()[:3] == ["run", "model", "task"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["aaaa", "aaaa", "bbbb", "bbbb"]


def test_filters_choose_from_all_invocations(runs: Desk):
    _, out, _ = runs.nv_eval("results", "--task", "u")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["u"]
    code, _, err = runs.nv_eval("results", "--task", "nothing")
    assert code == 6 and "no invocation with a task nothing" in err
    assert runs.nv_eval("results", "--since", "1h")[1].count("t_one") == 2
    assert runs.nv_eval("results", "--since", "2999-01-01") == (0, "No invocations.\n", "")
    assert runs.nv_eval("results", "--since", "2999-01-01", "--json") == (0, "[]\n", "")


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "-5d"])
def test_a_time_that_is_none_is_refused(runs: Desk, text: str):
    code, _, err = runs.nv_eval("results", f"--since={text}")
    assert code == 2 and text in err


def test_parquet_that_cannot_be_written_names_its_file(runs: Desk):
    (runs.cwd / "folder.parquet").mkdir()
    code, _, err = runs.nv_eval("results", "--all", "--format", "parquet", "-o", "folder.parquet")
    assert code == 2 and err.startswith("nv-eval: -o folder.parquet: cannot be written: ")


def test_averages_are_there_when_asked_for_and_say_what_they_are_of(runs: Desk):
    _, out, _ = runs.nv_eval("results", "aaaa", "bbbb", "--macro")
    rows = [line for line in out.splitlines() if "average of" in line]
    assert len(rows) == 1 and "average of 2 tasks" in rows[0] and "0.5000" in rows[0]  # bbbb has one task with scores


def test_csv_json_parquet_and_the_data_frame_agree(runs: Desk):
    rows = list(csv.DictReader(io.StringIO(runs.nv_eval("results", "--all", "--format", "csv")[1])))
    records = json.loads(runs.nv_eval("results", "--all", "--json")[1])
    assert runs.nv_eval("results", "--all", "--format", "parquet", "-o", "all.parquet")[0] == 0
    frame = pd.read_parquet(runs.cwd / "all.parquet")
    assert len(rows) == len(frame) == 4
    assert [row["value"] for row in rows] == ["0.75", "0.25", "0.75", ""]
    assert [record["schema"] for record in records] == [SCHEMA, SCHEMA]
    assert frame["status"].tolist() == ["scored", "scored", "scored", "failed"]
    assert frame["value"].isna().tolist() == [False, False, False, True]


def test_markdown_and_latex_hold_names_as_they_are(runs: Desk):
    evil = replace(TASK, name="a|b_c&d%")
    write_run(runs.cwd, "cccc", evil)
    assert r"| a\|b_c&d% | acc ↑ |" in runs.nv_eval("results", "cccc", "--format", "md")[1]
    latex = runs.nv_eval("results", "cccc", "--format", "latex")[1]
    assert r"a\textbar{}b\_c\&d\% & acc $\uparrow$ & none & 0.7500" in latex
    assert latex.startswith(r"\begin{tabular}{lllrrrrr}") and latex.rstrip().endswith(r"\end{tabular}")


def test_parquet_needs_a_file_and_a_file_that_cannot_be_written_is_one_line(runs: Desk):
    code, _, err = runs.nv_eval("results", "aaaa", "--format", "parquet")
    assert code == 2 and "-o FILE" in err
    for form in ("parquet", "csv"):
        code, _, err = runs.nv_eval("results", "aaaa", "--format", form, "-o", "nowhere/x")
        assert code == 2 and err.count("\n") == 1 and "nowhere/x" in err


def test_the_record_that_reproduces_scores_is_one_option_away(runs: Desk):
    _, out, _ = runs.nv_eval("results", "aaaa", "--show")
    assert "dataset_fingerprint: f1" in out
    (runs.cwd / "aaaa" / "provenance.json").unlink()
    assert "it has left no record" in runs.nv_eval("results", "aaaa", "--show")[1]


def test_one_broken_invocation_hides_no_other_and_fails_the_command(runs: Desk):
    (runs.cwd / "aaaa" / "results.json").write_text('{"invocation": "aaaa", "crea')
    code, out, err = runs.nv_eval("results", "--all")
    assert code == 8
    assert "t_one" in out and "aaaa" not in out
    assert "results.json: broken" in err and err.count("\n") == 1


def test_a_folder_that_was_deleted_is_said_and_is_no_failure(runs: Desk):
    import shutil

    shutil.rmtree(runs.cwd / "aaaa")
    code, out, err = runs.nv_eval("results", "--all")
    assert (code, "t_one" in out) == (0, True)
    assert "no scores have come home of aaaa" in err
    assert runs.nv_eval("results", "aaaa")[0] == 6


def test_a_run_that_was_killed_midway_shows_what_is_home_and_what_is_not(runs: Desk, tmp_path: Path):
    folder = runs.cwd / "dddd"
    (folder / "t_one").mkdir(parents=True)
    plan = {"execution": "local", "deployment": "vllm", "tasks": [planned("t_one"), planned("u")]}
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "t_one" / "scores.json").write_text('[{"task":"t_one","metric":"acc","filter":"none","value":0.5}]')
    _, out, _ = runs.nv_eval("results", "dddd")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["t_one", "acc"], ["u", "unfinished"]]
    (record,) = json.loads(runs.nv_eval("results", "dddd", "--json")[1])
    assert (record["complete"], record["deployment"], record["model"]["served_name"]) == (False, "vllm", "name")


def planned(key: str) -> dict[str, object]:
    server = {"model_id": "org/name", "served_name": "name"}
    return {
        "key": key,
        "name": key,
        "harness": "lm_eval",
        "target": {"model": "name"},
        "endpoint": {"server": server},
        "settings": {"limit": 2, "seed": None},
    }


def test_not_a_number_is_broken_and_never_a_score(runs: Desk):
    path = runs.cwd / "aaaa" / "results.json"
    path.write_text(path.read_text().replace('"value":0.75', '"value":NaN'))
    code, out, err = runs.nv_eval("results", "aaaa")
    assert (code, out) == (8, "") and "broken" in err


def test_what_others_named_cannot_command_the_terminal(runs: Desk):
    write_run(runs.cwd, "eeee", replace(TASK, score={"metric": "\x1b[2Jacc\x07"}))
    assert "\x1b" not in runs.nv_eval("results", "eeee")[1]


@pytest.mark.parametrize(
    "content",
    [b'{"invocation": "\xff"}', b'{"tasks": ' + b"[" * 100_000, b'{"tasks":[{"settings":' + b'{"a":' * 100_000],
)
def test_results_that_are_no_text_or_nested_without_end_are_broken(runs: Desk, content: bytes):
    (runs.cwd / "aaaa" / "results.json").write_bytes(content)
    code, out, err = runs.nv_eval("results", "aaaa")
    assert (code, out) == (8, "") and "results.json: broken" in err


@pytest.mark.parametrize("key", ["../bbbb/t_one", "..", "", "k" * 300])
def test_a_task_whose_folder_would_be_elsewhere_is_broken(runs: Desk, key: str):
    write_run(runs.cwd, "cccc", TASK)
    path = runs.cwd / "cccc" / "results.json"
    path.write_text(path.read_text().replace('"key":"t_one"', f'"key":"{key}"'))
    code, _, err = runs.nv_eval("compare", "bbbb", "cccc", "--flips")
    assert code == 8 and "tasks[0].key" in err


def test_a_record_nested_without_end_is_broken(runs: Desk):
    (runs.cwd / "aaaa" / "provenance.json").write_bytes(b"[" * 100_000)
    code, out, _ = runs.nv_eval("results", "aaaa", "--show")
    assert code == 0 and "broken" in out


def test_a_count_that_parquet_cannot_hold_is_said(runs: Desk):
    write_run(runs.cwd, "cccc", replace(TASK, score={"n": 2**63}))
    code, _, err = runs.nv_eval("results", "cccc", "--format", "parquet", "-o", "all.parquet")
    assert code == ResultsError.exit_code and "internal" not in err


@pytest.mark.parametrize("stderr", [-0.5, 1e308])
def test_a_standard_error_that_is_none_makes_no_interval(runs: Desk, stderr: float):
    write_run(runs.cwd, "cccc", replace(TASK, score={"stderr": stderr}))
    assert " to " not in runs.nv_eval("results", "cccc")[1]


@pytest.mark.parametrize("form", ["csv", "md", "latex"])
def test_no_form_carries_commands_of_terminals_or_of_spreadsheets(runs: Desk, form: str):
    write_run(
        runs.cwd, "cccc", replace(TASK, score={"task": "=1+1\x1b]0;x\x07", "metric": "@f\x1b[2J", "filter": "-g"})
    )
    out = runs.nv_eval("results", "cccc", "--format", form)[1]
    assert "\x1b" not in out and "\x07" not in out
    assert form != "csv" or all(text in out for text in ("'=1+1,", "'@f,'-g,"))


def test_names_are_no_markup_in_markdown(runs: Desk):
    write_run(runs.cwd, "cccc", replace(TASK, score={"task": r"<script>a\|[b](http://c)"}))
    assert r"\<script>a\\\|\[b](http://c)" in runs.nv_eval("results", "cccc", "--format", "md")[1]
