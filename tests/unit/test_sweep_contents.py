"""Files that decide scores: edited in place they make another measurement, untouched ones are skipped."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launcher.config.validate import validate
from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import Journal
from launcher.plan.build import build
from launcher.sweep import contents
from launcher.sweep.build import skip_done
from launcher.sweep.contents import SMALL, Contents
from launcher.sweep.model import PlannedPoint, SweepPlan
from launcher.sweep.resume import decide
from tests.unit.test_sweep_run import Bench


@dataclass
class Files:
    """A program, a folder of tasks and a checkpoint, and a sweep of one point that uses all three."""

    folder: Path
    bench: Bench

    @property
    def program(self) -> Path:
        return self.folder / "bench.py"

    @property
    def tasks(self) -> Path:
        return self.folder / "tasks"

    @property
    def weights(self) -> Path:
        return self.folder / "checkpoint" / "model.safetensors"

    def point(self, **evaluation: Any) -> PlannedPoint:
        tree = {
            "execution": {"type": "local", "output_dir": str(self.folder / "runs")},
            "deployment": {"type": "container", "model_id": str(self.weights.parent), "command": "serve {port}"},
            "evaluation": {
                "harness": "command",
                "command": ["python3", str(self.program), "--out", "{output_dir}/x"],
                "include_path": str(self.tasks),
                "tasks": [{"name": "t0", "expected_duration": 5.0}],
                **evaluation,
            },
        }
        plan = build(validate(tree))
        return PlannedPoint(number=1, words="x=1", identity=Contents().identity(plan), plan=plan)

    def swept(self) -> SweepPlan:
        plan = self.bench.plan([self.point()])
        assert self.bench.run(plan).exit_code == 0
        return plan


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path, Bench(tmp_path, Journal(tmp_path / "state" / "journal.db")))
    made.tasks.mkdir()
    made.weights.parent.mkdir()
    made.program.write_text("print(1)")
    (made.tasks / "own.yaml").write_text("task: own")
    (made.weights.parent / "config.json").write_text("{}")
    with made.weights.open("wb") as file:
        file.truncate(SMALL + 1)
    return made


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


EDITS: dict[str, tuple[str, Callable[[Files], object]]] = {
    "the program": ("evaluation.command", lambda f: f.program.write_text("print(2)")),
    "a task": ("evaluation.include_path", lambda f: (f.tasks / "own.yaml").write_text("task: 0wn")),
    "one more task": ("evaluation.include_path", lambda f: (f.tasks / "more.yaml").write_text("task: more")),
    "small file of a checkpoint": (
        "deployment.model_id",
        lambda f: (f.weights.parent / "config.json").write_text("[]"),
    ),
    "weights, by their time": ("deployment.model_id", lambda f: touch(f.weights)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_runs_a_point_again_and_says_which(files: Files, edit: str) -> None:
    plan = files.swept()
    key, change = EDITS[edit]
    change(files)
    going_on = decide(plan, files.bench.journal)
    assert going_on.done == frozenset()
    assert going_on.why[1].startswith(f"runs again: changed on disk: {key} {files.folder}")
    assert going_on.plan.points[0].plan.invocation != plan.points[0].plan.invocation
    assert sweeps.completed(files.bench.journal, files.point().identity) is None, "a new sweep runs it, too"


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda f: touch(f.program),
        lambda f: (f.tasks / "__pycache__").mkdir(),
        lambda f: (f.tasks / "circle").symlink_to(f.tasks),
    ],
    ids=["nothing", "written as it was", "a cache of Python", "a link in a circle"],
)
def test_what_nobody_has_edited_is_skipped_with_its_reason(files: Files, change: Callable[[Files], object]) -> None:
    plan = files.swept()
    change(files)
    going_on = decide(plan, files.bench.journal)
    assert going_on.done == frozenset({1})
    assert going_on.why[1] == f"has all its scores ({plan.points[0].plan.invocation})"
    again = skip_done(files.point(), lambda identity: sweeps.completed(files.bench.journal, identity))
    assert (again.is_skipped, again.note) == (True, f"has all its scores in {plan.points[0].plan.invocation}")


def test_a_checkpoint_that_is_gone_runs_nothing_again(files: Files) -> None:
    plan = files.swept()
    shutil.rmtree(files.weights.parent)
    assert decide(plan, files.bench.journal).done == frozenset({1})


def test_of_a_sweep_of_an_older_version_it_is_said_why_it_runs_again(files: Files) -> None:
    older = files.bench.plan([dataclasses.replace(files.point(), identity="1:0a1b2c3d")])
    assert "planned by another version of nv-eval" in decide(older, files.bench.journal).why[1]


def test_a_model_that_is_no_folder_here_is_what_its_name_says(files: Files) -> None:
    plan = files.point().plan
    config = {**plan.config, "deployment": {**plan.config["deployment"], "model_id": "org/model"}}
    found = Contents().of(dataclasses.replace(plan, config=config))
    assert not any(name.startswith("deployment.") for name in found)


def test_reading_is_bounded(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder larger than that the further files count by size and time, and are not read."""
    for number in range(4):
        (files.tasks / f"{number}.txt").write_bytes(b"x" * 1000)
    opened: list[Path] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path), read(path))[1])
    monkeypatch.setattr(contents, "MOST_BYTES", 2500)
    before = Contents().of(files.point().plan)
    assert [path.name for path in opened if path.suffix == ".txt"][:2] == ["0.txt", "1.txt"]
    assert "3.txt" not in {path.name for path in opened}
    touch(files.tasks / "3.txt")
    assert Contents().of(files.point().plan) != before
