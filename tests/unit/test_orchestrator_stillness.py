"""Tasks on which nothing moves are passed over, and a step is never missed for that."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.orchestrator import run as runs
from launcher.orchestrator.decide import World, decide, time_out
from launcher.orchestrator.journal import Journal
from launcher.orchestrator.state import TaskState
from launcher.orchestrator.stillness import depends_on_itself, seen_of
from launcher.plan.model import TaskPlan
from launcher.platforms.base import Observation, Progress, Resource, ResourceState, RunnerEnd
from tests.fakes.platform import FakePlatform, Script
from tests.unit.test_orchestrator_run import make_plan, run_plan

PLAN = make_plan(Path("/nowhere"), 2)
TASK = PLAN.tasks[0]
assert TASK.endpoint is not None
ENDPOINT, JOB = TASK.endpoint.name, TASK.job.name


def resources(name: str) -> st.SearchStrategy[Resource | None]:
    seen = st.builds(
        Resource,
        name=st.just(name),
        state=st.sampled_from(ResourceState),
        url=st.sampled_from([None, "http://there"]),
        fatal=st.booleans(),
        progress=st.sampled_from([None, Progress(phase="waiting"), Progress(phase="evaluating")]),
        end=st.sampled_from([None, RunnerEnd(reason="completed")]),
    )
    return st.none() | seen


@st.composite
def waiting(draw: st.DrawFn) -> TaskState:
    """A task of its own at any point before its end."""
    task = TaskState(plan=TASK, admitted=draw(st.booleans()))
    if task.admitted:
        task.started_at = draw(st.floats(0, 1e5))
        task.endpoint_wanted = task.endpoint_created = draw(st.booleans())
        task.job_wanted = task.job_submitted = task.endpoint_created and draw(st.booleans())
        task.url = draw(st.sampled_from([None, "http://there"]))
    return task


@given(waiting(), resources(ENDPOINT), resources(JOB), st.floats(0, 1e5), st.floats(0, 1))
def test_a_task_that_waits_has_no_step_before_its_time_out(
    task: TaskState, endpoint: Resource | None, job: Resource | None, now: float, part: float
) -> None:
    if decide(task, World(now=now, endpoint=endpoint, job=job)) is not None:
        return
    later = now + part * (min(time_out(task), 1e9) - now)

    assert decide(task, World(now=later, endpoint=endpoint, job=job)) is None


def look(**jobs: Resource) -> Observation:
    made = Resource(name=ENDPOINT, state=ResourceState.RUNNING, url="http://there")
    return Observation(endpoints={ENDPOINT: made}, jobs={JOB: Resource(name=JOB, state=ResourceState.RUNNING), **jobs})


def test_it_holds_while_the_world_says_the_same_in_other_objects() -> None:
    still = seen_of(TASK, look(), until=100.0)

    assert still.holds(look(), 99.0)
    assert not still.holds(look(), 100.0)
    assert not still.holds(Observation(), 99.0)
    assert not still.holds(look(**{JOB: Resource(name=JOB, state=ResourceState.RUNNING, detail="new")}), 99.0)


def test_what_others_do_is_no_change() -> None:
    still = seen_of(TASK, look(), until=math.inf)

    assert still.holds(look(another=Resource(name="another", state=ResourceState.FAILED)), 0.0)


CHANGES: list[Callable[[TaskState], None]] = [
    lambda task: setattr(task, "admitted", True),
    lambda task: setattr(task, "url", "http://elsewhere"),
    lambda task: task.note_cost(1.0),
    lambda task: task.begin_attempt(2, TASK, 0.0),
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_in_a_task_it_is_looked_at_again(change: Callable[[TaskState], None]) -> None:
    task = TaskState(plan=TASK)
    task.still = seen_of(TASK, look(), until=math.inf)

    change(task)

    assert task.still is None


def with_job(**keys: Any) -> TaskPlan:
    return dataclasses.replace(TASK, job=dataclasses.replace(TASK.job, **keys))


def test_only_tasks_that_depend_on_nothing_else_are_passed_over() -> None:
    assert TASK.endpoint is not None
    shared = dataclasses.replace(TASK, endpoint=dataclasses.replace(TASK.endpoint, is_shared=True))
    helped = dataclasses.replace(TASK, auxiliary={"judge": TASK.target})

    assert depends_on_itself(TASK)
    assert not any(map(depends_on_itself, (shared, helped, with_job(queue_timeout=60.0))))


def test_a_run_decides_little_more_often_than_things_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counted(task: TaskState, world: World) -> Any:
        nonlocal asked
        asked += 1
        return decide(task, world)

    monkeypatch.setattr(runs, "decide", counted)
    scripts = {f"t{number}": Script(boot=300.0 + number, lasts=800.0) for number in range(4)}
    platform = FakePlatform(scripts, poll_interval=1.0)

    outcome = run_plan(make_plan(tmp_path, 4), platform, Journal(tmp_path / "journal.db"))

    assert outcome.exit_code == 0
    assert platform.observed > 1000
    assert asked < 200
