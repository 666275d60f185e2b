"""Averages over the tasks of one invocation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.results import read
from launcher.results.macro import averages
from launcher.results.model import Record
from tests.unit.past_runs import PastTask, write_run

A = PastTask("a", {"acc": [1, 0, 1, 1]})
B = PastTask("b", {"acc": [0, 0, 1, 0]})


def run(tmp_path: Path, *tasks: PastTask) -> Record:
    return read.load(write_run(tmp_path, "aaaa", *tasks))


def test_each_task_counts_the_same_and_errors_add_as_those_of_independent_numbers(tmp_path: Path):
    big = PastTask("b", {"acc": [0, 0, 1, 0] * 50})
    (found,) = averages(run(tmp_path, A, big))
    errors = [task.scores()[0].stderr for task in (A, big)]
    assert (found.value, found.n, found.task, found.group) == (pytest.approx(0.5), 2, "average of 2 tasks", True)
    assert found.stderr == pytest.approx(math.hypot(*(error or 0.0 for error in errors)) / 2)
    assert found.interval == "normal"


def test_a_task_without_scores_leaves_no_average_of_the_others(tmp_path: Path):
    (found,) = averages(run(tmp_path, A, B, PastTask("c", {})))
    assert (found.value, found.stderr, found.low) == (None, None, None)


def test_a_task_without_standard_error_leaves_the_average_without_one(tmp_path: Path):
    (found,) = averages(run(tmp_path, A, replace(B, score={"stderr": None})))
    assert (found.value, found.stderr, found.interval) == (0.5, None, "")


def test_a_task_with_clusters_counts_with_the_width_of_its_interval_not_with_an_error_that_knows_none(tmp_path: Path):
    clustered = replace(B, score={"stderr": 0.01, "low": 0.15, "high": 0.35, "interval": "cluster t"})
    unknown = replace(B, score={"stderr": 0.01, "interval": "unknown"})
    (wide,) = averages(run(tmp_path / "wide", A, clustered))
    (none,) = averages(run(tmp_path / "none", A, unknown))
    assert wide.stderr == pytest.approx(math.hypot(A.scores()[0].stderr or 0.0, 0.1 / 1.959964) / 2)
    assert (none.value, none.stderr, none.interval) == (0.5, None, "")


def test_an_undefined_number_is_not_counted_as_anything(tmp_path: Path):
    (found,) = averages(run(tmp_path, A, replace(B, score={"value": None})))
    assert found.value is None


def test_sub_tasks_and_single_tasks_make_no_average(tmp_path: Path):
    assert averages(run(tmp_path, A, PastTask("b", {"f1": [0.5, 0.25]}))) == []


def test_metrics_of_opposite_directions_are_not_averaged(tmp_path: Path):
    (found,) = averages(run(tmp_path, A, replace(B, score={"higher_is_better": False})))
    assert (found.value, found.higher_is_better) == (None, None)
