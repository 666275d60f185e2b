"""One death and what comes after it: the story, and what was wrong in the end."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from launcher.errors import NotFound
from launcher.orchestrator.journal import RunState
from tests.chaos.child import Assignment
from tests.chaos.clouds import INVOCATION
from tests.chaos.points import Point, read_trace
from tests.chaos.scenes import LEGACY, Scene
from tests.chaos.world import World, world

KILLED = -9
NOT_FOUND = NotFound.exit_code
WEEKEND = 3 * 86_400.0
"""Seconds that `gc` comes later, so that what was rented has expired."""
SUSPICIOUS = ("Traceback", "internal error", "launcher_error", "was never awaited")


class After(StrEnum):
    """What is done after the death."""

    RESUME = "resume"
    CLEANUP = "cleanup"
    """From a machine that has the credentials and nothing else."""
    CLEANUP_HERE = "cleanup_here"
    """From the machine with the journal."""
    GC = "gc"
    """After the weekend, from a machine that has only the credentials."""
    GC_HERE = "gc_here"
    """At once, from the machine with the journal."""
    STOP = "stop"
    """Then resume, as a person would who wants the scores after all."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """A run that dies at `point`, and what follows. `deaths`: how often that dies as well, at points by `seed`."""

    point: Point
    after: After
    scene: Scene = LEGACY
    deaths: int = 0
    seed: int = 0
    resumes: bool = True
    """Whether the invocation is resumed after a cleanup or a stop."""

    def __str__(self) -> str:
        also = f", which dies {self.deaths} times (seed {self.seed})" if self.deaths else ""
        return f"{self.scene.name}, killed at {self.point}, then {self.after}{also}"


@dataclass
class Verdict:
    """What came of a story. `kills` that really happened; `attempts` beyond the first of each task."""

    story: Story
    kills: int = 0
    children: int = 0
    extra_attempts: int = 0
    problems: list[str] = field(default_factory=list)
    folder: Path = Path()

    def __str__(self) -> str:
        return "\n  ".join([f"{self.story} ({self.folder})", *self.problems])


def tell(story: Story, folder: Path) -> Verdict:
    """Let a story happen in a folder."""
    with world(folder, story.scene) as place:
        teller = Teller(story, place, Verdict(story, folder=folder), random.Random(story.seed))
        try:
            teller.tell()
        except AssertionError as error:
            teller.verdict.problems.append(str(error))
        return teller.verdict


@dataclass
class Teller:
    """A story that is happening."""

    story: Story
    world: World
    verdict: Verdict
    dice: random.Random
    _outputs: list[Path] = field(default_factory=list)

    def tell(self) -> None:
        """From the beginning to the judgement."""
        code = self._do(self.world.run(self.story.point))
        self._expect(code in (KILLED, 0), f"the run ended with {code}")
        if self.story.after is After.RESUME:
            self._resume()
        elif self.story.after is After.STOP:
            self._stop()
        else:
            self._clean()
        self._judge()

    def _do(self, assignment: Assignment) -> int:
        self._outputs.append(assignment.output)
        self.verdict.children += 1
        code = self.world.do(assignment)
        self.verdict.kills += code == KILLED
        return code

    def _until_done(self, make: Callable[[Point | None], Assignment]) -> int:
        """Do something that dies as often as the story says, at a random moment each time, and then no more."""
        for _ in range(self.story.deaths):
            code = self._do(make(Point("", self.dice.randint(1, 60))))
            if code != KILLED:
                return code
        return self._do(make(None))

    # --- what follows -------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        code = self._until_done(lambda point: self.world.nv_eval("resume", INVOCATION, "--json", awaited=point))
        if code == NOT_FOUND:  # it died before it had written down that it exists
            self._expect(not self.world.ours(), "things were made for an invocation that the journal does not know")
            return
        self._expect(code == 0, f"resume ended with {code}")
        if code == 0:
            scores, wanted = self.world.scores(), self.story.scene.scores
            self._expect(scores == wanted, f"scores {scores} instead of {wanted}")
            journal = self.world.journal()
            with contextlib.closing(journal):
                state = journal.state(journal.find(INVOCATION))
            self._expect(state is RunState.FINISHED, f"the journal says {state}")

    def _stop(self) -> None:
        code = self._until_done(lambda point: self.world.nv_eval("stop", INVOCATION, awaited=point))
        self._expect(code in (0, NOT_FOUND), f"stop ended with {code}")
        self._expect(not self.world.left(), f"left after stop: {self.world.left()}")
        if self.story.resumes:
            self._resume()

    def _clean(self) -> None:
        code = self._until_done(self._cleaning)
        if self._may_miss() and self.world.left():
            code = self._do(self._cleaning(None))
        self._expect(code == 0, f"{self.story.after} ended with {code}")
        self._expect(not self.world.left(), f"left after {self.story.after}: {self.world.left()}")
        if self.story.resumes:
            self._resume()

    def _may_miss(self) -> bool:
        """Whether what is left can have appeared after the last look: who saw nothing at all had no reason to wait."""
        if self.story.after is After.CLEANUP:
            return self.story.scene.is_late and '"outcome": "nothing_left"' in self._outputs[-1].read_text()
        return self.story.scene.is_late and self.story.after in (After.GC, After.GC_HERE)

    def _cleaning(self, awaited: Point | None) -> Assignment:
        after, elsewhere = self.story.after, self.story.after in (After.CLEANUP, After.GC)
        words = ("gc", *(f"--place={place}" for place in self.story.scene.places), "--yes", "--older-than=0")
        if after in (After.CLEANUP, After.CLEANUP_HERE):
            words = ("cleanup", INVOCATION)
        knobs = {"time:time": after_the_weekend} if after is After.GC else {}
        options = ("--json", "--timeout", "20")
        return self.world.nv_eval(*words, *options, awaited=awaited, elsewhere=elsewhere, knobs=knobs)

    # --- the judgement ------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        world = self.world
        self._expect(not world.left(), f"left: {world.left()}")
        self._expect(world.others_live(), "something of somebody else's was removed")
        self._expect(not world.side_by_side(), f"at the same time: {world.side_by_side()}")
        if self.story.after is After.RESUME:  # what is gone may be made again under its name, once that is certain
            self._expect(not world.made_twice(), f"made twice: {world.made_twice()}")
        for path in self._outputs:
            text = path.read_text()
            for word in SUSPICIOUS:
                self._expect(word not in text, f"{path.name} says {word!r}")
        self._expect(not world.secrets_told(), f"the secret stands in {world.secrets_told()}")
        endpoints = sum(item.kind == "endpoint" for item in world.ours())
        self.verdict.extra_attempts = max(0, endpoints - self.story.scene.endpoints)

    def _expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.verdict.problems.append(problem)


def after_the_weekend() -> float:
    """The time as a machine has it days later."""
    return time.time_ns() / 1e9 + WEEKEND


def points(folder: Path, scene: Scene) -> list[Point]:
    """All points of an undisturbed run, in their order."""
    with world(folder, scene) as place:
        assignment = place.run()
        code = place.do(assignment)
        assert code == 0, assignment.output.read_text()
        assert not (left := place.left()), left
        assert not place.made_twice()
        return read_trace(assignment.trace)
