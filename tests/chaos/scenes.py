"""What is run before it is killed: a kind of plan in a kind of cloud."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher.emulators.lepton import (
    After,
    Config,
    DelayLogs,
    HoldName,
    LateEffect,
    LateListing,
    LoseAnswer,
    Refuse,
    Script,
    SlowDelete,
)
from launcher.emulators.lepton.container import Command
from launcher.runner.client import Ending
from tests.e2e.lepton import job_output

BOOTS, LASTS = 0.1, 0.3
"""Seconds that a server takes to start and a job to end."""
KNOBS: dict[str, Any] = {
    "launcher.platforms.lepton.platform:LeptonPlatform.create_grace": 0.8,
    "launcher.platforms.lepton.platform:SHORTEST_POLL": 0.05,
    "launcher.platforms.lepton.creation:GRACE": (0.1, 0.2, 0.4),
    "launcher.platforms.lepton.pace:Pace.__init__.__kwdefaults__": {"shortest": 0.1},
    "launcher.orchestrator.removal:FIRST_PAUSE": 0.05,
    "launcher.orchestrator.retry:FIRST_DELAY": 0.1,
}
"""The launcher's patience, for a cloud as quick as the emulator, which makes things at once."""
LATE = 1.0
"""Seconds by which a slow cloud is late."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One kind of run. `execution` and `limits` are keys of the config, `knobs` values inside the launcher."""

    name: str
    config: Config = field(default_factory=Config)
    tasks: int = 2
    execution: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    knobs: Mapping[str, Any] = field(default_factory=lambda: dict(KNOBS))
    first_attempt: Ending = Ending.COMPLETED
    """How the first attempt of the first task ends."""

    def server(self, _: Command) -> Script:
        """What an endpoint does."""
        return Script(output="the server says hello\n", opens_after=BOOTS, application=_answer)

    def job(self, command: Command) -> Script:
        """What a job does."""
        _, task, number, *_ = command.env["LEPTON_JOB_NAME"].split("-")
        ending = self.first_attempt if number == "0" else Ending.COMPLETED
        results = {"schema": "nv-eval.scores/1", "scores": [{"metric": "acc", "value": score(task), "n": 4}]}
        output = job_output(ending, json.dumps(results))
        return Script(output=output, seconds=LASTS, exit_code=ending.exit_code)

    @property
    def scores(self) -> dict[str, float]:
        """What comes home from an undisturbed run."""
        return {f"t{number}": score(f"t{number}") for number in range(self.tasks)}


def score(task: str) -> float:
    """What a task scores: each another value, so that no score can pass for another's."""
    return 0.1 + int(task.removeprefix("t")) / 10


async def _answer(scope: Any, _receive: Any, send: Any) -> None:
    """As much of a model server as the launcher asks before it calls an endpoint ready."""
    said = {"object": "list", "data": [{"id": "m", "object": "model"}]}
    if scope["path"].endswith("completions"):
        choice = {"index": 0, "text": "x", "message": {"role": "assistant", "content": "x"}, "finish_reason": "length"}
        said = {"id": "1", "object": "text_completion", "model": "m", "choices": [choice]}
    head = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


LEGACY = Scene(name="legacy")
NEW = Scene(name="new", config=Config(new_deployment_api=True))
RETRIED = Scene(name="retried", first_attempt=Ending.ENDPOINT_DIED)
"""The first task needs a second attempt."""
QUEUED = Scene(name="queued", tasks=3, limits={"max_parallel_endpoints": 1})
ALL_READY = Scene(name="all_ready", execution={"start_jobs": "all_ready"})
SLOW = Scene(
    name="slow",
    config=Config(
        faults=(
            LateEffect(route="POST *", probability=0.5, seconds=LATE),
            LateListing(probability=0.5, seconds=LATE),
            DelayLogs(probability=0.5, seconds=LATE),
            SlowDelete(probability=0.5, after=After(seconds=LATE)),
        )
    ),
    knobs={**KNOBS, "launcher.platforms.lepton.platform:LeptonPlatform.create_grace": 3 * LATE},
)
"""Everything comes late: effects when their launcher is dead, lists when nobody asks any more."""
UNLUCKY = Scene(
    name="unlucky",
    config=Config(
        new_deployment_api=True,
        faults=(
            LoseAnswer(route="POST *", probability=0.3),
            LoseAnswer(probability=0.05),
            Refuse(probability=0.1),
            Refuse(probability=0.05, status=429),
            HoldName(probability=0.3, seconds=0.5),
            SlowDelete(probability=0.3, after=After(reads=3)),
        ),
    ),
)
"""Answers get lost, requests are turned away."""

SCENES = {scene.name: scene for scene in (LEGACY, NEW, RETRIED, QUEUED, ALL_READY, SLOW, UNLUCKY)}


def with_seed(scene: Scene, seed: int) -> Scene:
    """The same scene, in which other requests meet the faults."""
    return dataclasses.replace(scene, config=dataclasses.replace(scene.config, seed=seed))
