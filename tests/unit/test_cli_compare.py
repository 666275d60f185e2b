"""`nv-eval compare` as a person types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from launcher.errors import NotComparable
from launcher.results import compare, pairing
from tests.unit.conftest import Desk
from tests.unit.past_runs import PastTask, write_run

TASK = PastTask("t", {"acc": [1] * 30 + [0] * 10})
WORSE = replace(TASK, values={"acc": [0] * 15 + [1] * 15 + [0] * 10}, prompt="Question {id}?")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "compare.md"


def run_python(program: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def runs(desk: Desk) -> Desk:
    write_run(desk.cwd, "aaaa", TASK)
    write_run(desk.cwd, "bbbb", WORSE)
    return desk


def test_it_prints_a_row_for_each_score_and_how_it_was_tested(runs: Desk) -> None:
    code, out, err = runs.nv_eval("compare", "aaaa", "bbbb")

    assert (code, err) == (0, "")
    assert re.search(r"t +acc ↑ +none +40 +0\.7500 +0\.3750 +-0\.3750 .* 0 +15 +exact McNemar .* worse", out)
    assert "Holm for 1 test;" in out and "seed 20240229" in out


def test_flips_are_shown_as_many_as_asked_for(runs: Desk) -> None:
    for asked, shown in ((("--flips",), 10), (("--flips", "3"), 3), ((), 0)):
        assert runs.nv_eval("compare", "aaaa", "bbbb", *asked)[1].count("Question") == shown


def test_what_a_model_wrote_cannot_command_the_terminal(runs: Desk) -> None:
    evil = replace(WORSE, prompt="\x1b[2J[red]{id}[/red]\x07")
    write_run(runs.cwd, "cccc", evil)
    write_run(runs.cwd, "dddd", replace(TASK, prompt=evil.prompt))

    _, out, _ = runs.nv_eval("compare", "dddd", "cccc", "--flips")

    assert "\x1b" not in out and "\x07" not in out and "[red]0[/red]" in out


def test_half_characters_in_ids_and_texts_are_no_defect_in_any_form(runs: Desk) -> None:
    for name, task in (("cccc", TASK), ("dddd", WORSE)):
        (path,) = write_run(runs.cwd, name, task).rglob("samples_*.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        halves = [
            line | {"doc_id": f"q\ud800{line['doc_id']}", "target": "t\ud801t", "filtered_resps": ["a\udc00a"]}
            for line in lines
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in halves))

    found = {
        form: runs.nv_eval("compare", "cccc", "dddd", "--flips", "1", "--format", form)
        for form in ("table", "markdown", "json")
    }

    assert {code for code, _, _ in found.values()} == {0}
    (flip,) = json.loads(found["json"][1])["candidates"][0]["rows"][0]["flips"]
    assert (flip["id"], flip["target"], flip["baseline_answer"]) == (r"q\ud8000", r"t\ud801t", r"a\udc00a")
    assert r"q\ud8000" in found["table"][1]


def test_a_comparison_without_a_single_test_says_so(runs: Desk) -> None:
    bare = replace(TASK, score={"stderr": None}, logged=False)
    for name in ("cccc", "dddd"):
        write_run(runs.cwd, name, bare)

    _, out, _ = runs.nv_eval("compare", "cccc", "dddd")

    assert "0 tests" not in out
    assert out.endswith("Nothing could be tested: no row has samples that pair, or standard errors.\n")


def test_json_has_the_documented_keys(runs: Desk) -> None:
    code, out, _ = runs.nv_eval("compare", "aaaa", "bbbb", "bbbb", "--flips", "--json")

    found = json.loads(out)
    text = PAGE.read_text()
    assert code == 0 and found["schema"] == "nv-eval.compare/1" and found["tests"] == len(found["candidates"]) == 2
    kinds = (compare.Comparison, compare.Versus, compare.RunInfo, compare.Row, compare.Flip, pairing.Difference)
    assert {field.name for kind in kinds for field in fields(kind) if f"`{field.name}`" not in text} == set()
    assert {verdict for verdict in compare.Verdict if f"`{verdict}`" not in text} == set()


def test_markdown_is_one_table_for_each_candidate(runs: Desk) -> None:
    _, out, _ = runs.nv_eval("compare", "aaaa", "bbbb", "aaaa", "--format", "markdown")

    assert out.count("| task | metric |") == out.count("## ") == 2


def test_a_refusal_is_an_error_of_its_own_with_every_difference(runs: Desk) -> None:
    write_run(runs.cwd, "cccc", replace(TASK, score={"num_fewshot": 3}))

    code, _, err = runs.nv_eval("compare", "aaaa", "cccc")
    told = json.loads(runs.nv_eval("compare", "aaaa", "cccc", "--json")[1])

    assert code == NotComparable.exit_code == told["exit_code"] == 8
    assert told["error"] == "NotComparable" and "few-shot examples: 0 in the baseline, 3 in the candidate" in err
    code, out, _ = runs.nv_eval("compare", "aaaa", "cccc", "--force")
    assert code == 0 and "(forced)" in out and "t: forced: few-shot examples: 0 in the baseline" in out


def test_a_run_that_does_not_exist_is_one_line(runs: Desk) -> None:
    code, out, err = runs.nv_eval("compare", "aaaa", "nope")

    assert (code, out) == (6, "") and err.count("\n") == 1


def test_without_the_extra_it_says_how_to_get_it(runs: Desk) -> None:
    program = (
        "import sys; sys.modules['statsmodels'] = sys.modules['statsmodels.stats'] = None\n"
        "from launcher.cli.main import main; sys.exit(main(['compare', 'aaaa', 'bbbb']))"
    )
    done = run_python(program, runs.cwd)

    assert done.returncode == 3 and "pip install 'nv-eval-launcher[stats]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_loads_no_statistics() -> None:
    program = (
        "import sys; from launcher.cli.main import main\n"
        "try: main(['compare', '--help'])\n"
        "except SystemExit: print('LOADED', {'scipy', 'statsmodels', 'pandas', 'numpy'} & set(sys.modules))"
    )
    done = run_python(program, Path.cwd())

    assert "LOADED set()" in done.stdout
