"""One emulated workspace for one invocation that dies, and what must be true of it in the end."""

from __future__ import annotations

import dataclasses
import json
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from launcher.config.validate import validate
from launcher.emulators.lepton import Item, LeptonEmulator
from launcher.emulators.lepton.job import FINISHED
from launcher.orchestrator.journal import Journal
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.results import read
from tests.chaos import child
from tests.chaos.child import Assignment
from tests.chaos.points import Act, Point
from tests.chaos.scenes import Scene
from tests.e2e.lepton import TOKEN

INVOCATION = "c4a05123"
BYSTANDER = "somebody-elses"
"""An endpoint without our mark: nobody may touch it."""


@dataclass
class World:
    """An emulator, a home for the launcher, and one invocation."""

    folder: Path
    emulator: LeptonEmulator
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
        served = {
            "type": "container",
            "model_id": "m",
            "image": "sim/server",
            "command": ["serve"],
            "start_timeout": 30,
            "health_timeout": 9,
        }
        keys = {"type": "lepton", "node_group": "h100-pool", "resource_shape": "gpu.1xh100", **self.scene.execution}
        config = {
            "execution": {"output_dir": str(self.home / "results"), **keys},
            "deployment": served,
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
            "LEPTON_WORKSPACE_ID": self.emulator.config.workspace,
            "LEPTON_WORKSPACE_TOKEN": TOKEN,
            "LEPTON_WORKSPACE_URL": self.emulator.url,
        }
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

    def ours(self) -> list[Item]:
        """Everything that the invocation ever made."""
        snapshot = self.emulator.state()
        return [item for item in (*snapshot.endpoints, *snapshot.jobs) if INVOCATION in item.name]

    def left(self) -> list[str]:
        """What of it still exists."""
        return [f"{item.kind} {item.name} ({item.state})" for item in self.ours() if not item.gone]

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

    def bystander_lives(self) -> bool:
        """Whether the endpoint of somebody else is untouched."""
        return any(e.name == BYSTANDER and not e.gone for e in self.emulator.state().endpoints)


def _beside(made: list[Item]) -> Iterator[tuple[str, str]]:
    """Two things of one kind for one task, of which the second was made before the end of the first was asked for."""
    for index, first in enumerate(made):
        for second in made[index + 1 :]:
            same = (first.kind, _task(first)) == (second.kind, _task(second))
            if same and second.states[0][0] < _over_since(first):
                yield first.name, second.name


def _task(item: Item) -> str:
    """`container-t1-1r2-ID` and `container-t1-1-ID` are of one task."""
    return item.name.split("-")[1]


def _over_since(item: Item) -> float:
    over = [when for when, state in item.states if state in ("Deleting", *FINISHED)]
    return min(over, default=float("inf"))


@contextmanager
def world(folder: Path, scene: Scene) -> Iterator[World]:
    """An empty workspace but for a bystander."""
    (folder / "home").mkdir(parents=True)
    quiet = dataclasses.replace(scene.config, faults=())
    with LeptonEmulator(quiet, simulations={"sim/*": scene.server, "python*": scene.job}) as emulator:
        _settle_bystander(emulator)
        emulator.inject(*scene.config.faults)
        yield World(folder, emulator, scene)


def _settle_bystander(emulator: LeptonEmulator) -> None:
    shape = {"resource_shape": "gpu.1xh100"}
    spec: dict[str, Any] = {"container": {"image": "sim/server"}, "resource_requirement": shape}
    path = "deployments"
    if emulator.config.new_deployment_api:
        path, spec = "endpoints", {"components": [{"image": "sim/server", **shape}]}
    body = json.dumps({"metadata": {"id": BYSTANDER, "name": BYSTANDER}, "spec": spec}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{emulator.url}/{path}", body, headers)
    urllib.request.urlopen(request, timeout=10).close()
