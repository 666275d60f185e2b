"""Results of an invocation as they may lie on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import ResultsError
from launcher.results import read
from tests.unit.past_runs import PastTask, write_run

TASK = PastTask("t", {"acc": [1, 0, 1, 1]})


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    folder = write_run(tmp_path, "aaaa", TASK)
    content = json.loads((folder / "results.json").read_text())
    change(content)
    (folder / "results.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", ["../../elsewhere", "..", "", "a/b", "a\0b", "a\\b"])
def test_names_that_lead_elsewhere_are_broken_as_exporters_make_paths_of_them(tmp_path: Path, name: str):
    for place, change in enumerate(
        (lambda content: content.update(invocation=name), lambda content: content["tasks"][0].update(key=name))
    ):
        with pytest.raises(ResultsError, match=r"broken: (invocation|tasks\[0\]\.key): .*cannot be"):
            read.load(changed(tmp_path / str(place), change))


def test_a_task_that_is_there_twice_is_broken_as_one_would_hide_the_other(tmp_path: Path):
    folder = changed(tmp_path, lambda content: content["tasks"].append(content["tasks"][0]))
    with pytest.raises(ResultsError, match=r"tasks\[1\]\.key: 't': is there twice"):
        read.load(folder)


@pytest.mark.parametrize("wrong", [{"n": -1}, {"n": 2**64}, {"stderr": -0.1}, {"num_fewshot": -1}])
def test_numbers_that_cannot_be_are_broken(tmp_path: Path, wrong: dict[str, float]):
    folder = changed(tmp_path, lambda content: content["tasks"][0]["scores"][0].update(wrong))
    with pytest.raises(ResultsError, match=r"broken: tasks\[0\]\.scores: 'acc': a number of it cannot be"):
        read.load(folder)


def test_keys_of_a_later_version_are_no_fault(tmp_path: Path):
    folder = changed(tmp_path, lambda content: content.update(something_new=[1]))
    assert [task.key for task in read.load(folder).tasks] == ["t"]
