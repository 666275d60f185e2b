"""Runs with a judge: another judge measures something else, the same one served otherwise is worth a note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import NotComparable
from launcher.results.compare import compare
from tests.unit.past_runs import PastTask, write_run

TASK = PastTask("t", {"acc": [1, 0, 1, 1] * 10})


def judged(root: Path, invocation: str, **judge: Any) -> Path:
    """A run whose judge `provenance.json` tells of."""
    folder = write_run(root, invocation, TASK)
    known = json.loads((folder / "provenance.json").read_text())
    known["tasks"]["t"]["auxiliary"] = {"judge": judge}
    (folder / "provenance.json").write_text(json.dumps(known))
    return folder


WISE: dict[str, Any] = {
    "model": {"id": "wise", "served_name": "j", "revision": None},
    "endpoint": {"type": "vllm", "image": "vllm:1"},
    "server": {"data": [{"id": "j", "revision": "r1"}]},
}


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({**WISE, "model": {**WISE["model"], "id": "wiser"}}, "auxiliary judge: wise in the baseline, wiser in the"),
        (
            {**WISE, "server": {"data": [{"revision": "r2"}]}},
            "revision of auxiliary judge: r1 in the baseline, r2 in the",
        ),
    ],
)
def test_runs_that_another_judge_judged_are_not_compared(tmp_path: Path, other: dict[str, Any], line: str) -> None:
    with pytest.raises(NotComparable, match=line):
        compare([judged(tmp_path, "aaaa", **WISE), judged(tmp_path, "bbbb", **other)])


def test_a_run_without_a_judge_is_not_compared_with_one_that_has_one(tmp_path: Path) -> None:
    with pytest.raises(NotComparable, match="auxiliary judge: none in the baseline, wise in the candidate"):
        compare([write_run(tmp_path, "aaaa", TASK), judged(tmp_path, "bbbb", **WISE)])


def test_the_same_judge_served_otherwise_is_noted(tmp_path: Path) -> None:
    newer = {**WISE, "endpoint": {"type": "vllm", "image": "vllm:2"}}

    found = compare([judged(tmp_path, "aaaa", **WISE), judged(tmp_path, "bbbb", **newer)])
    (row,) = found.candidates[0].rows

    assert "settings differ: auxiliary.judge.endpoint.image: vllm:1 -> vllm:2" in row.notes
