"""What a fleet's size would make dear: words said again of what has not changed, names looked for one by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.plan.attempts import attempt
from launcher.platforms.base import Resource, ResourceState
from launcher.platforms.kept import KeptLogs
from launcher.platforms.pace import FEW_PLACES, LISTS, in_the_tail
from launcher.platforms.remembering import Remembers
from tests.unit.test_orchestrator_run import make_plan


@dataclass
class Thing(Remembers):
    """Something that is told of."""

    name: str
    state: ResourceState = ResourceState.UNKNOWN
    times: int = 0

    def _say(self) -> Resource:
        self.__dict__["times"] += 1
        return Resource(name=self.name, state=self.state)


def test_what_has_not_changed_is_not_told_anew() -> None:
    thing = Thing("a")

    assert thing.resource() is thing.resource()
    assert thing.times == 1


def test_what_has_changed_is_told_anew() -> None:
    thing = Thing("a")
    before = thing.resource()
    thing.state = ResourceState.RUNNING

    assert (before.state, thing.resource().state) == (ResourceState.UNKNOWN, ResourceState.RUNNING)


def test_the_same_value_makes_no_other_words() -> None:
    thing = Thing("a")
    before = thing.resource()
    thing.state = ResourceState.UNKNOWN

    assert thing.resource() == before


@pytest.mark.parametrize(
    ("left", "planned", "slower"),
    [(100, 100, 1.0), (11, 100, 1.0), (10, 100, 0.5), (1, 10, 0.5), (1, 9, 1.0), (0, 100, 1.0)],
)
def test_the_last_tenth_of_a_fleet_is_asked_about_more_often(left: int, planned: int, slower: float) -> None:
    assert in_the_tail(left, planned) == slower


def test_logs_are_kept_by_the_names_of_each_attempt(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, 2)
    logs = KeptLogs(plan, tmp_path)
    job = plan.tasks[1].job.name
    again = attempt(plan.tasks[1], 2, plan.invocation).job.name

    logs.keep(job, ["first"])
    assert (tmp_path / plan.tasks[1].key / "job.log").read_text() == "first\n"

    logs.keep(again, ["second"])
    logs.keep("somebody-elses", ["third"])

    assert [path.read_text() for path in tmp_path.rglob("*.log")] == ["second\n"]


def test_where_places_are_few_the_lists_come_sooner_and_as_rarely_in_the_end() -> None:
    assert FEW_PLACES.interval(0) == LISTS.interval(0)
    assert FEW_PLACES.interval(60) < LISTS.interval(60)
    assert FEW_PLACES.interval(36_000) == LISTS.interval(36_000)
