"""A launcher whose batch jobs run on a Slurm cluster, killed: resume brings the scores, and nothing is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.config.validate import validate
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.plan.names import new_invocation_id
from tests.chaos.points import Point
from tests.chaos.test_local_kills import Machine
from tests.chaos.trial import KILLED, SUSPICIOUS
from tests.e2e.cli import ROOT
from tests.e2e.scenario import BENCHMARK, serve
from tests.engines.slurm.cluster import Cluster, cluster

pytestmark = [pytest.mark.e2e, pytest.mark.engine]
POINTS = [
    Point("fact intend_create_endpoint after", 2),
    Point("fact job_submitted after", 1),
    Point("fact task_evaluating after", 1),
    Point("fact task_collected after", 2),
]


def make_plan(folder: Path) -> Plan:
    program = folder / "bench.py"
    program.write_text(BENCHMARK)
    hold = ["sh", "-c", 'while [ -e "$0" ]; do sleep 0.1; done; exec "$@"', str(folder / "held")]
    command = [*hold, sys.executable, str(program), "works", "0.3"]
    config = {
        "execution": {
            "type": "slurm",
            "output_dir": str(folder / "results"),
            "work_dir": str(folder / "shared"),
            "python": sys.executable,
        },
        "deployment": serve(envs={"PYTHONPATH": str(ROOT)}, start_timeout=60, health_timeout=60),
        "evaluation": {
            "harness": "command",
            "timeout": 600,
            "tasks": [{"name": name, "command": command} for name in ("a", "b")],
        },
    }
    return build(validate(config), new_invocation_id())


@pytest.fixture
def slurm() -> Cluster:
    return cluster()


@pytest.fixture
def machine(slurm: Cluster, tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "a home with 'quotes'"
    folder.mkdir()
    made = Machine(folder)
    made.plan = make_plan(folder)
    yield made
    slurm.wait(lambda: slurm.queue() == [], "nothing is left in the queue")
    for assignment in made.assigned:
        said = assignment.output.read_text()
        assert not [word for word in SUSPICIOUS if word in said], said


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_and_resumed(machine: Machine, slurm: Cluster, point: Point) -> None:
    held = machine.home / "held"
    if point.label == "fact task_evaluating after":
        held.touch()  # on a busy machine a look at the cluster may come seconds after the one before
    assert machine.run(point) == KILLED
    held.unlink(missing_ok=True)

    assert machine.resume() == 0

    assert machine.scores() == {"a": 0.5, "b": 0.5}
    made = [path.name for path in (machine.home / "shared" / machine.plan.invocation / "jobs").iterdir()]
    assert sorted(made) == sorted(task.endpoint.name for task in machine.plan.tasks if task.endpoint), "each only once"
