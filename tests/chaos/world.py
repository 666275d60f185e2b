"""Emulated clouds for one invocation that dies, and what must be true of them in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from launcher.config.validate import validate
from launcher.orchestrator.journal import Journal
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.results import read
from tests.chaos import child
from tests.chaos.child import Assignment
from tests.chaos.clouds import INVOCATION, Cloud, Thing, clouds
from tests.chaos.points import Act, Point
from tests.chaos.scenes import SECRET, Scene


@dataclass
class World:
    """Clouds, a home for the launcher, and one invocation."""

    folder: Path
    clouds: tuple[Cloud, ...]
    scene: Scene
    _children: int = 0

    @property
    def home(self) -> Path:
        """Where the launcher lives."""
        return self.folder / "home"

    @property
    def state(self) -> Path:
        """Its journal's folder."""
        return self.home / "state"

    def journal(self) -> Journal:
        """Its journal."""
        return Journal(self.state / "journal.db")

    def plan(self) -> Plan:
        """What is run."""
        config = {
            "execution": {"output_dir": str(self.home / "results"), **self.scene.place},
            "deployment": {**self.scene.deployment, "start_timeout": 30, "health_timeout": 9},
            "auxiliary": dict(self.scene.auxiliary),
            "evaluation": {
                "harness": "command",
                "command": ["true"],
                "timeout": 30,
                "tasks": [{"name": f"t{number}"} for number in range(self.scene.tasks)],
            },
            "limits": dict(self.scene.limits),
        }
        return build(validate(config), INVOCATION)

    def run(self, awaited: Point | None = None, act: Act = Act.KILL) -> Assignment:
        """An assignment: run the plan; at a point something happens."""
        plan = msgspec.json.encode(self.plan())
        return self._assignment("run", {}, plan=plan, awaited=awaited, act=act)

    def nv_eval(
        self,
        *arguments: str,
        awaited: Point | None = None,
        act: Act = Act.KILL,
        elsewhere: bool = False,
        knobs: Mapping[str, Any] | None = None,
    ) -> Assignment:
        """An assignment: a command, on the launcher's machine or on one that has only the credentials."""
        state = self.folder / f"elsewhere{self._children}" if elsewhere else self.state
        return self._assignment(arguments[0], knobs or {}, arguments=arguments, awaited=awaited, act=act, state=state)

    def _assignment(self, word: str, knobs: Mapping[str, Any], *, state: Path | None = None, **keys: Any) -> Assignment:
        self._children += 1
        environment = {
            "HOME": str(self.home),
            "NV_EVAL_HOME": str(state or self.state),
            "CHAOS_TOKEN": SECRET,
        }
        for cloud in self.clouds:
            environment |= cloud.environment
        output = self.folder / f"{self._children}-{word}.txt"
        return Assignment(
            home=self.home,
            invocation=INVOCATION,
            output=output,
            environment=environment,
            knobs={**self.scene.knobs, **knobs},
            **keys,
        )

    def do(self, assignment: Assignment) -> int:
        """The exit code of a child that does it."""
        return child.finish(child.start(assignment))

    # --- what is true of it -------------------------------------------------------------------------------------------

    def ours(self) -> list[Thing]:
        """Everything that the invocation ever made, wherever."""
        return [thing for cloud in self.clouds for thing in cloud.made()]

    def left(self) -> list[str]:
        """What of it still exists."""
        left = [f"{thing.kind} {thing.name} ({thing.state})" for thing in self.ours() if not thing.gone]
        return left + [text for cloud in self.clouds for text in cloud.also_left()]

    def changes(self) -> list[str]:
        """Requests that made or changed something."""
        return [change for cloud in self.clouds for change in cloud.changes()]

    def made_twice(self) -> list[str]:
        """Names that were made more than once."""
        counts = Counter((item.kind, item.name) for item in self.ours())
        return [f"{kind} {name}" for (kind, name), number in counts.items() if number > 1]

    def side_by_side(self) -> list[str]:
        """Two endpoints or two jobs that existed at the same time for one task."""
        return [f"{one} beside {other}" for one, other in _beside(self.ours())]

    def scores(self) -> dict[str, float]:
        """The scores that came home, by task."""
        record = read.load(self.home / "results" / INVOCATION)
        return {task.key: task.scores[0].value or 0.0 for task in record.tasks if task.scores}

    def secrets_told(self) -> list[str]:
        """Files of the launcher in which the secret stands."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".secrets"]
        return [path.name for path in files if SECRET.encode() in path.read_bytes()]

    def others_live(self) -> bool:
        """Whether what belongs to others is untouched."""
        return all(cloud.others_live() for cloud in self.clouds)


def _beside(made: list[Thing]) -> Iterator[tuple[str, str]]:
    """Two things of one kind for one task, of which the second was made before the end of the first was asked for."""
    for index, first in enumerate(made):
        for second in made[index + 1 :]:
            if (first.kind, first.task) == (second.kind, second.task) and second.made < first.over:
                yield first.name, second.name


@contextmanager
def world(folder: Path, scene: Scene) -> Iterator[World]:
    """Clouds that are empty but for what others have, and a home."""
    (folder / "home").mkdir(parents=True)
    with clouds(scene, folder) as running:
        yield World(folder, running, scene)
