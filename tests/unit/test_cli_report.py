"""`nv-eval report` as a person types it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.conftest import Desk
from tests.unit.past_runs import PastTask, write_run

TASK = PastTask("t", {"acc": [1, 0, 1, 1]})


@pytest.fixture
def runs(desk: Desk) -> Desk:
    write_run(desk.cwd, "aaaa", TASK)
    write_run(desk.cwd, "bbbb", TASK)
    return desk


def run_python(program: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("name", "start"), [("r.html", b"<!doctype html>"), ("r.md", b"# small"), ("r.pdf", b"%PDF-")])
def test_it_writes_the_form_that_the_suffix_names_and_says_where(runs: Desk, name: str, start: bytes) -> None:
    code, out, err = runs.nv_eval("report", "aaaa", "bbbb", "-o", name)

    assert (code, err) == (0, "") and re.fullmatch(rf"{name}: \d+\.\d kB\n", out)
    assert (runs.cwd / name).read_bytes().startswith(start)


def test_a_format_counts_more_than_a_suffix(runs: Desk) -> None:
    assert runs.nv_eval("report", "aaaa", "-o", "report.txt", "--format", "md")[0] == 0
    assert (runs.cwd / "report.txt").read_text().startswith("# small")


def test_a_broken_run_among_others_is_said_and_is_in_the_report(runs: Desk) -> None:
    (runs.cwd / "bbbb" / "results.json").write_text('{"invocation": ')
    code, _, err = runs.nv_eval("report", "aaaa", "bbbb", "-o", "r.html")

    assert code == 0 and err.count("\n") == 1 and "results.json: broken" in err
    assert "results.json: broken" in (runs.cwd / "r.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("aaaa", "-o", "r.docx"), 2, "the suffix names no form of a report; take .html, .md, .pdf"),
        (("aaaa", "-o", "nowhere/r.html"), 2, "there is no folder nowhere"),
        (("aaaa", "-o", "aaaa", "--format", "md"), 2, "cannot be written"),
        (("aaaa", "-o", "r.html", "--max-mb", "0"), 2, "expected a number of MB"),
        (("aaaa", "-o", "r.html", "--max-text", "none"), 2, "expected a whole number"),
        (("aaaa",), 2, "-o/--output"),
        (("nope", "-o", "r.html"), 6, "nope"),
        (("-o", "r.html"), 6, "no invocation yet"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    runs: Desk, arguments: tuple[str, ...], code: int, said: str
) -> None:
    before = runs.files().keys()
    got, out, err = runs.nv_eval("report", *arguments)

    assert (got, out) == (code, "") and said in err and err.count("\n") == 1
    assert {name for name in runs.files().keys() - before if name.startswith("cwd")} == set()


@pytest.mark.parametrize("module", ["jinja2", "scipy"])
def test_without_the_extra_it_says_how_to_get_it(runs: Desk, module: str) -> None:
    program = (
        f"import sys; sys.modules['{module}'] = None\n"
        "from launcher.cli.main import main; sys.exit(main(['report', 'aaaa', '-o', 'r.html']))"
    )
    done = run_python(program, runs.cwd)

    assert done.returncode == 3 and "pip install 'nv-eval-launcher[report]'" in done.stderr
    assert done.stderr.count("\n") == 1 and module in done.stderr


def test_help_loads_nothing_that_a_report_needs() -> None:
    program = (
        "import sys; from launcher.cli.main import main\n"
        "try: main(['report', '--help'])\n"
        "except SystemExit: print('LOADED', {'scipy', 'jinja2', 'vl_convert', 'typst', 'numpy'} & set(sys.modules))"
    )
    assert "LOADED set()" in run_python(program, Path.cwd()).stdout
