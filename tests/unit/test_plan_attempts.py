"""A further attempt is the same task under names of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.plan.attempts import attempt
from launcher.plan.model import TaskPlan
from launcher.plan.names import MAX_LENGTH
from tests.unit.test_orchestrator_run import make_plan

INVOCATION = "a1234567"


@pytest.fixture
def task(tmp_path: Path) -> TaskPlan:
    return make_plan(tmp_path, 1).tasks[0]


def test_the_first_attempt_is_the_plan_s_own(task: TaskPlan):
    assert attempt(task, 1, INVOCATION) is task


def test_a_further_attempt_differs_in_nothing_but_its_names(task: TaskPlan):
    again = attempt(task, 2, INVOCATION)
    assert task.endpoint is not None and again.endpoint is not None
    assert again.endpoint.name == "container-t0-0r2-a1234567"
    assert again.job.name == "eval-t0-0r2-a1234567"
    assert replace(again, job=task.job, endpoint=task.endpoint) == task
    assert replace(again.job, name=task.job.name) == task.job
    assert replace(again.endpoint, name=task.endpoint.name) == task.endpoint


def test_no_two_attempts_share_a_name_and_every_name_fits(task: TaskPlan):
    long = replace(task, name="leaderboard_math_counting_and_prob_hard")
    made = [attempt(long, number, INVOCATION) for number in range(2, 120)]
    names = [plan.job.name for plan in made] + [plan.endpoint.name for plan in made if plan.endpoint]
    assert len(set(names)) == len(names) == 2 * 118
    assert max(map(len, names)) <= MAX_LENGTH


def test_the_requests_carry_the_new_names_and_the_plan_s_stay_as_they_are(task: TaskPlan):
    assert task.endpoint is not None
    request = {"metadata": {"id": "old", "name": "old", "visibility": "private"}, "spec": {"name": "kept"}}
    planned = replace(
        task, endpoint=replace(task.endpoint, request=request), job=replace(task.job, request={"metadata": {}})
    )
    again = attempt(planned, 3, INVOCATION)
    assert again.endpoint is not None and again.endpoint.request == {
        "metadata": {"id": again.endpoint.name, "name": again.endpoint.name, "visibility": "private"},
        "spec": {"name": "kept"},
    }
    assert request["metadata"]["name"] == "old"


def test_a_task_against_an_existing_endpoint_gets_a_new_job_only(task: TaskPlan):
    again = attempt(replace(task, endpoint=None), 2, INVOCATION)
    assert again.endpoint is None and again.job.name == "eval-t0-0r2-a1234567"
