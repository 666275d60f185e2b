"""Results, comparison and report of a sweep that left a point out because its scores were there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import Fact, Journal
from launcher.orchestrator.sweeps import Point
from tests.unit.conftest import Desk
from tests.unit.past_runs import PastTask, write_run

TASK = PastTask("t", {"acc": [1] * 30 + [0] * 10})
WORSE = replace(TASK, values={"acc": [0] * 15 + [1] * 15 + [0] * 10})


@pytest.fixture
def swept(desk: Desk) -> Desk:
    """The run aaaa, and a sweep of which the first point took it over and the second is the run bbbb."""
    journal = Journal.default()
    for id_, task in {"aaaa": TASK, "bbbb": WORSE}.items():
        folder = write_run(desk.cwd, id_, task)
        journal.begin(id_, execution="local", deployment="smollm", folder=str(folder), tasks=["t"], hold=False)
        journal.record(id_, Fact.RUN_ENDED, exit_code=0)
    known = Point(number=1, invocation="aaaa", identity="same", words="evaluation.limit=5")
    points = [
        replace(known, invocation="abcd", note="has all its scores in aaaa", is_skipped=True),
        Point(number=2, invocation="bbbb", identity="other", words="evaluation.limit=10"),
    ]
    for sweep, members in {"s1111111": [known], "s2222222": points}.items():
        begun = sweeps.Sweep(id=sweep, created=1.0, folder=str(desk.cwd / sweep))
        sweeps.begin(journal, begun, [(point, b"{}") for point in members])
    return desk


def test_the_table_shows_the_scores_that_were_taken_over_and_says_so(swept: Desk) -> None:
    code, out, _ = swept.nv_eval("results", "s2222222")

    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["aaaa", "bbbb"]
    assert out.splitlines()[-2:] == ["aaaa: evaluation.limit=5, taken over", "bbbb: evaluation.limit=10"]


def test_other_forms_of_the_table_have_them_too_and_the_mark_beside_them(swept: Desk) -> None:
    code, out, err = swept.nv_eval("results", "s2222222", "--json")

    assert code == 0
    assert [record["invocation"] for record in json.loads(out)] == ["aaaa", "bbbb"]
    assert err == "nv-eval: aaaa: taken over as point 1 (evaluation.limit=5)\n"


def test_a_run_of_ones_own_is_not_marked(swept: Desk) -> None:
    _, out, _ = swept.nv_eval("results", "s1111111")

    assert out.splitlines()[-1] == "aaaa: evaluation.limit=5"


def test_the_first_point_is_the_baseline_also_where_it_was_taken_over(swept: Desk) -> None:
    _, out, _ = swept.nv_eval("compare", "s2222222")

    assert out.startswith("bbbb (small, smollm) against aaaa (small, smollm), taken over\n")


def test_a_report_has_them_and_says_so(swept: Desk) -> None:
    code, _, _ = swept.nv_eval("report", "s2222222", "-o", "report.md")

    text = (swept.cwd / "report.md").read_text()
    assert code == 0
    assert [line.count("taken over") for line in text.splitlines() if line.startswith("- **")] == [1, 0]


def test_where_the_results_are_gone_those_of_another_run_of_the_same_are_shown_or_none(swept: Desk) -> None:
    (swept.cwd / "aaaa" / "results.json").unlink()

    _, out, _ = swept.nv_eval("results", "s2222222")

    assert "taken over" not in out and "bbbb: evaluation.limit=10" in out


def test_what_ends_a_sweep_does_not_touch_the_run_that_was_taken_over(swept: Desk) -> None:
    assert sweeps.expand(Journal.default(), ["s2222222"], endpoints=True) == ["bbbb"]
