"""A launcher on this machine, killed: its servers and jobs die with it, and resume brings the scores all the same."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from launcher.config.validate import validate
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.plan.names import new_invocation_id
from launcher.results import read
from tests.chaos import child
from tests.chaos.child import Assignment
from tests.chaos.points import Point
from tests.chaos.trial import KILLED, SUSPICIOUS
from tests.e2e.cli import ROOT, assert_nothing_left, processes_of
from tests.e2e.scenario import BENCHMARK, serve

pytestmark = pytest.mark.e2e
POINTS = [
    Point("fact intend_create_endpoint after", 2),
    Point("fact endpoint_created before", 1),
    Point("fact job_submitted after", 1),
    Point("fact task_evaluating after", 1),
    Point("fact task_collected before", 1),
    Point("fact task_collected after", 2),
    Point("fact intend_delete_endpoint after", 1),
    Point("fact run_ended before", 1),
]


class Machine:
    """This machine, as one invocation sees it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.plan = make_plan(folder)
        self.assigned: list[Assignment] = []

    def run(self, awaited: Point | None = None) -> int:
        return self._do(awaited, plan=msgspec.json.encode(self.plan))

    def resume(self, awaited: Point | None = None) -> int:
        return self._do(awaited, arguments=("resume", self.plan.invocation, "--json"))

    def _do(self, awaited: Point | None, *, plan: bytes = b"", arguments: tuple[str, ...] = ()) -> int:
        assignment = Assignment(
            home=self.home,
            invocation=self.plan.invocation,
            output=self.home / f"{len(self.assigned)}.txt",
            plan=plan,
            arguments=arguments,
            environment={"HOME": str(self.home), "NV_EVAL_HOME": str(self.home / "state"), "PYTHONPATH": str(ROOT)},
            awaited=awaited,
        )
        self.assigned.append(assignment)
        return child.finish(child.start(assignment))

    def scores(self) -> dict[str, float | None]:
        record = read.load(self.home / "results" / self.plan.invocation)
        return {task.key: task.scores[0].value for task in record.tasks if task.scores}


def make_plan(folder: Path) -> Plan:
    program = folder / "bench.py"
    program.write_text(BENCHMARK)
    command = [sys.executable, str(program), "works", "0.3"]
    config = {
        "execution": {"type": "local", "output_dir": str(folder / "results"), "stop_grace": 2, "gpus": []},
        "deployment": serve(),
        "evaluation": {"harness": "command", "tasks": [{"name": name, "command": command} for name in ("a", "b")]},
    }
    return build(validate(config), new_invocation_id())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "a home with 'quotes'"
    folder.mkdir()
    made = Machine(folder)
    yield made
    assert_nothing_left(str(folder))
    for assignment in made.assigned:
        said = assignment.output.read_text()
        assert not [word for word in SUSPICIOUS if word in said], said


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_and_resumed(machine: Machine, point: Point) -> None:
    assert machine.run(point) == KILLED
    assert_nothing_left(str(machine.home), within=2)

    assert machine.resume() == 0

    assert machine.scores() == {"a": 0.5, "b": 0.5}
    assert processes_of(machine.plan.invocation) == []


@pytest.mark.parametrize("seed", range(2))
def test_killed_again_and_again(machine: Machine, seed: int) -> None:
    dice = random.Random(seed)
    assert machine.run(Point("", dice.randint(25, 45))) == KILLED
    for _ in range(2):
        assert machine.resume(Point("", dice.randint(5, 40))) in (KILLED, 0)
        assert_nothing_left(str(machine.home), within=2)

    assert machine.resume() == 0

    assert machine.scores() == {"a": 0.5, "b": 0.5}
