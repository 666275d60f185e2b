"""What a launcher leaves behind when it dies: endpoints and jobs of an account, on a clock that all launchers share.

A `World` outlives launchers; each of them sees it through a `WorldPlatform` of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from launcher.errors import PlatformError
from launcher.orchestrator.state import TaskState
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.platforms.base import (
    Capacity,
    Check,
    Leftover,
    LogLine,
    Observation,
    Progress,
    Resource,
    ResourceState,
    RunnerEnd,
)
from launcher.runner.client import Ending, EndpointProblem
from tests.fakes.clock import VirtualLoop

Kind = Literal["endpoint", "job"]

LONGEST_EFFECT = 20.0
"""Seconds after which a request has had its effect, whatever became of its sender."""
LONGEST_LAG = 8.0
"""Seconds that lists are behind, at most."""
GRACE = LONGEST_EFFECT + LONGEST_LAG + 2.0
START_TIMEOUT = 60.0
SHARED = "shared"
"""Stands for the task of an endpoint that all tasks share."""
NEVER = float("inf")


class Answer(StrEnum):
    """What the sender of a creating request hears."""

    HEARD = "heard"
    LOST = "lost"
    """It takes effect; the answer does not arrive."""
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of one creating request. `effect`: seconds until the thing exists; `lag`: until lists show it."""

    answer: Answer = Answer.HEARD
    effect: float = 0.05
    lag: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Course:
    """How one attempt of a task goes if it is left alone. Times are seconds."""

    boot: float = 1.0
    lasts: float = 10.0
    ends: str = "completed"
    """What the runner says at the end; "silent": the job fails without a word; "hangs": it does not end."""
    dies_after: float = NEVER
    dies_of: Literal["crash", "memory", "preemption", "removal"] = "crash"
    deleting_takes: float = 0.5
    refusals: int = 0
    """Requests to delete the endpoint that are refused."""


@dataclass(kw_only=True, eq=False)
class Thing:
    """One endpoint or job of the account. Times are the world's; `begun` that of its creation."""

    kind: Kind
    name: str
    task: str
    invocation: str
    course: Course
    number: int
    sender: int
    begun: float
    listed: float
    asked: float = 0.0
    """When its creation was asked for."""
    tried: float = NEVER
    """When somebody first asked for its deletion, heard or not."""
    deletion_asked: float = NEVER
    gone_at: float = NEVER
    refusals: int = 0
    endpoint: str = ""
    """Of a job the name of the endpoint whose URL it was given."""
    has_come: bool = False
    """Whether the request that creates it has had its effect, which may be that the name is taken."""

    def exists(self, now: float) -> bool:
        """Whether it is there, in whatever state."""
        return self.begun <= now < self.gone_at


@dataclass
class World:
    """Everything of the account, in the order of the requests. `now` is the true time in seconds."""

    courses: dict[str, list[Course]] = field(default_factory=dict)
    """For each task those of its attempts, the last for all further ones."""
    fates: list[Fate] = field(default_factory=lambda: [Fate()])
    """Of creating requests, in turn."""
    lag: float = 0.0
    """Seconds that lists are behind when something has gone."""
    ends_with_launcher: bool = False
    """Everything dies with the launcher, as on this machine, where nothing comes late either."""
    intended: Callable[[Kind, str], bool] = lambda _kind, _name: True
    """Whether the journal has the intent to create such a thing."""
    now: float = 1000.0
    blind: bool = False
    things: list[Thing] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    requests: Iterator[int] = field(default_factory=itertools.count)
    healthy: bool = False
    """From now on every request is heard at once."""

    # --- what exists --------------------------------------------------------------------------------------------------

    def alive(self, kind: Kind | None = None) -> list[Thing]:
        """All that exists now."""
        self._settle()
        return [t for t in self.things if t.exists(self.now) and kind in (None, t.kind)]

    def named(self, kind: Kind, name: str) -> list[Thing]:
        """What exists now under a name."""
        return [thing for thing in self.alive(kind) if thing.name == name]

    def listing(self, kind: Kind) -> list[Thing]:
        """What a list shows: late what is new, and for a while still what is gone."""
        self._settle()
        lag = 0.0 if self.ends_with_launcher else self.lag
        return [t for t in self.things if t.kind == kind and t.has_come and t.listed <= self.now < t.gone_at + lag]

    def _settle(self) -> None:
        """Let requests have their effect whose time has come; a second endpoint of a name is refused."""
        due = [thing for thing in self.things if not thing.has_come and thing.begun <= self.now]
        for thing in sorted(due, key=lambda thing: thing.begun):
            thing.has_come = True
            there = [t for t in self.things if t.has_come and t is not thing and t.exists(thing.begun)]
            if thing.kind == "endpoint" and any(t.kind == "endpoint" and t.name == thing.name for t in there):
                thing.gone_at = thing.listed = thing.begun
            elif thing.gone_at > thing.begun:
                self._look_for_twins(thing, there)

    def _look_for_twins(self, thing: Thing, there: list[Thing]) -> None:
        for other in there:
            is_late = self._comes_after_its_end(thing) or self._comes_after_its_end(other)
            if (other.kind, other.task) == (thing.kind, thing.task) and not is_late:
                self.violations.append(f"{thing.name} was created while {other.name} was alive")

    def _comes_after_its_end(self, thing: Thing) -> bool:
        """Whether one of its name was made and removed before it came: its launcher died, and nobody can wait for it.

        It is a stray, which has to go.
        """
        others = (t for t in self.things if t is not thing and (t.kind, t.name) == (thing.kind, thing.name))
        return any(other.has_come and other.gone_at <= thing.begun for other in others)

    # --- requests -----------------------------------------------------------------------------------------------------

    def fate(self) -> Fate:
        """What becomes of the next creating request."""
        if self.healthy:
            return Fate()
        fate = self.fates[next(self.requests) % len(self.fates)]
        return Fate(answer=fate.answer) if self.ends_with_launcher else fate

    def course(self, task: str, name: str) -> Course:
        """How the attempt of a task to which a name belongs goes."""
        courses = self.courses.get(task) or [Course()]
        attempt = int(_place(name).partition("r")[2] or 1)
        return courses[min(attempt, len(courses)) - 1]

    def create(self, kind: Kind, name: str, task: str, invocation: str, fate: Fate, sender: int) -> Thing:
        """A request that creates something when its time has come."""
        if not self.intended(kind, name):
            self.violations.append(f"{kind} {name} was asked for without an intent in the journal")
        course, begun = self.course(task, name), self.now + fate.effect
        thing = Thing(
            kind=kind,
            name=name,
            task=task,
            invocation=invocation,
            course=course,
            number=len(self.things) + 1,
            sender=sender,
            asked=self.now,
            begun=begun,
            listed=begun + fate.lag,
            refusals=course.refusals,
        )
        if kind == "endpoint" and course.dies_of == "removal":
            thing.gone_at = begun + course.dies_after
        self.things.append(thing)
        return thing

    def delete(self, thing: Thing) -> None:
        """A request to delete one thing, which takes its time. Raises PlatformError if it is refused."""
        if thing.refusals > 0 and not self.healthy:
            thing.refusals -= 1
            raise PlatformError("try again")
        thing.deletion_asked = min(thing.deletion_asked, self.now)
        takes = thing.course.deleting_takes if thing.kind == "endpoint" else 0.2
        thing.gone_at = min(thing.gone_at, self.now + takes)

    def end_all(self, sender: int, after: float = 0.0) -> None:
        """Everything that one launcher asked for ends with it."""
        for thing in self.things:
            if thing.sender == sender:
                thing.gone_at = min(thing.gone_at, max(thing.begun, self.now + after))

    # --- how things go ------------------------------------------------------------------------------------------------

    def endpoint(self, thing: Thing) -> Resource:
        """An endpoint as its platform shows it."""
        course, dead = thing.course, self.now >= self.down(thing)
        if not thing.exists(self.now):
            return Resource(name=thing.name, state=ResourceState.GONE)
        if not dead or course.dies_of == "removal":
            url = f"http://{thing.name}"
            return Resource(name=thing.name, state=ResourceState.RUNNING, id=f"e{thing.number}", url=url)
        preempted = course.dies_of == "preemption"
        return Resource(name=thing.name, state=ResourceState.FAILED, exit_code=137, preempted=preempted)

    @staticmethod
    def down(endpoint: Thing) -> float:
        """When an endpoint stops to serve."""
        return min(endpoint.begun + endpoint.course.dies_after, endpoint.gone_at)

    def job(self, thing: Thing) -> Resource:
        """A job as its platform shows it."""
        if not thing.exists(self.now):
            return Resource(name=thing.name, state=ResourceState.GONE)
        ready, over, said = self._job_course(thing)
        if self.now < over:
            progress = Progress(phase="evaluating" if self.now >= ready else "waiting")
            return Resource(name=thing.name, state=ResourceState.RUNNING, id=f"j{thing.number}", progress=progress)
        if said == "silent":
            return Resource(name=thing.name, state=ResourceState.FAILED, exit_code=1)
        state = ResourceState.SUCCEEDED if said == "completed" else ResourceState.FAILED
        end = RunnerEnd(reason=said, detail="" if said == "completed" else "as it went")
        return Resource(name=thing.name, state=state, progress=Progress(phase="ended"), end=end)

    def _job_course(self, job: Thing) -> tuple[float, float, str]:
        """When a job is ready to evaluate, when it is over, and what it says then."""
        mine = [t for t in self.things if t.kind == "endpoint" and t.name == job.endpoint and t.begun <= self.now]
        endpoint = next((t for t in mine if t.gone_at > t.begun), None)
        if endpoint is None:
            return NEVER, job.begun + START_TIMEOUT, "endpoint_start_timeout"
        up, down = endpoint.begun + endpoint.course.boot, self.down(endpoint)
        if up >= down:
            return NEVER, max(job.begun + START_TIMEOUT, down), "endpoint_start_timeout"
        ready = max(job.begun, up)
        over = NEVER if job.course.ends == "hangs" else ready + job.course.lasts
        if down < over:
            return ready, max(down, job.begun) + 2.0, "endpoint_died"
        return ready, over, job.course.ends

    def score(self, job: Thing) -> float:
        """The score that a job brings: no two jobs the same."""
        return job.number / 1000


@dataclass(eq=False)
class WorldPlatform:
    """One launcher's view of the world. What it has made or seen it asks for by name; the rest it knows from lists."""

    world: World
    sender: int
    point: Callable[[], None] = lambda: None
    """Called before and after each request, where its launcher may die."""
    poll_interval: float = 1.0
    name: str = "world"
    create_grace: float = GRACE
    known: dict[tuple[Kind, str], set[int]] = field(default_factory=dict)
    """Numbers of the things known under a name."""

    def __post_init__(self) -> None:
        self.close_ends_all = self.close_ends_jobs = self.world.ends_with_launcher
        self.invocation = ""

    async def _request(self) -> None:
        self.point()
        await asyncio.sleep(0.01)
        self.point()
        if self.world.blind:
            raise PlatformError("no answer")

    async def preflight(self, plan: Plan) -> list[Check]:
        await self._request()
        return []

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        self.invocation = plan.invocation
        await asyncio.sleep(0.1)
        return Capacity()

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        await self._request()
        found = self.world.named("endpoint", spec.name)
        if found and found[0].deletion_asked < NEVER:
            raise PlatformError(f"{spec.name} is being deleted")
        thing = found[0] if found else await self._create("endpoint", spec.name, SHARED if spec.is_shared else task.key)
        self._know(thing)
        return self.world.endpoint(thing)

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        await self._request()
        found = [thing for thing in self._mine("job") if thing.name == spec.name and thing.exists(self.world.now)]
        thing = found[0] if found else await self._create("job", spec.name, task.key, url.removeprefix("http://"))
        self._know(thing)
        return self.world.job(thing)

    async def _create(self, kind: Kind, name: str, task: str, endpoint: str = "") -> Thing:
        """Names of jobs are not unique: what lists do not show yet is made again."""
        fate = self.world.fate()
        if fate.answer is Answer.REFUSED:
            raise PlatformError("no capacity")
        thing = self.world.create(kind, name, task, self.invocation, fate, self.sender)
        thing.endpoint = endpoint
        self.point()
        if fate.answer is Answer.LOST:
            await asyncio.sleep(1.0)
            raise PlatformError("the answer was lost")
        await asyncio.sleep(fate.effect + 0.01)
        self.point()
        there = self.world.named(kind, name)
        return thing if thing in there or not there else there[0]

    def _know(self, thing: Thing) -> None:
        self.known.setdefault((thing.kind, thing.name), set()).add(thing.number)

    def _mine(self, kind: Kind) -> list[Thing]:
        """What this launcher has made or seen, and what a list shows."""
        for thing in self.world.listing(kind):
            if thing.invocation == self.invocation:
                self._know(thing)
        numbers = {number for (k, _), known in self.known.items() if k == kind for number in known}
        return [thing for thing in self.world.things if thing.number in numbers]

    async def observe(self) -> Observation:
        await self._request()
        seen = Observation()
        for things, shown, say in (
            (self._mine("endpoint"), seen.endpoints, self.world.endpoint),
            (self._mine("job"), seen.jobs, self.world.job),
        ):
            for thing in sorted(things, key=lambda thing: thing.exists(self.world.now)):
                shown[thing.name] = say(thing)
        return seen

    async def delete_endpoint(self, name: str) -> None:
        for thing in self.world.named("endpoint", name):
            thing.tried = min(thing.tried, self.world.now)
        await self._request()
        for thing in self.world.named("endpoint", name):
            self._know(thing)
            self.world.delete(thing)
        self.point()

    async def cancel_job(self, name: str) -> None:
        await self._request()
        for thing in self._mine("job"):
            if thing.name == name and thing.exists(self.world.now):
                self.world.delete(thing)
        self.point()

    async def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        yield LogLine("a line")

    async def tail(self, name: str, lines: int) -> list[str]:
        await self._request()
        ended = [t for t in self.world.things if t.name == name and self.world.now >= self.world.down(t)]
        if any(thing.kind == "endpoint" and thing.course.dies_of == "memory" for thing in ended):
            return ["torch.OutOfMemoryError: CUDA out of memory"]
        return [f"last words of {name}"]

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        await self._request()
        jobs = [job for job in self._mine("job") if job.name == task.job.name and job.exists(self.world.now)]
        done = [job for job in jobs if self.world.job(job).state is ResourceState.SUCCEEDED]
        if not done:
            raise PlatformError(f"no results of {task.job.name}")
        folder.mkdir(parents=True, exist_ok=True)
        scores = [{"metric": "acc", "value": self.world.score(done[0]), "n": 4}]
        (folder / "results.json").write_text(json.dumps({"schema": "nv-eval.scores/1", "scores": scores}))

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        await self._request()
        found = [*self.world.listing("endpoint"), *self.world.listing("job")]
        return [
            Leftover(kind=thing.kind, name=thing.name, invocation=thing.invocation, id=str(thing.number))
            for thing in found
            if thing.invocation.startswith(invocation)
        ]

    async def remove(self, leftover: Leftover) -> None:
        await self._request()
        thing = self.world.things[int(leftover.id) - 1]
        if self.world.ends_with_launcher:
            thing.gone_at = min(thing.gone_at, self.world.now)
        elif thing.exists(self.world.now):
            self.world.delete(thing)

    async def unseen(self) -> list[str]:
        return []

    async def close(self, *, at_once: bool = False) -> None:
        await asyncio.sleep(0.05)
        self.point()
        if self.world.ends_with_launcher:
            self.world.end_all(self.sender)


def _place(name: str) -> str:
    """What the endpoint and the job of one attempt share: `0`, in a further attempt `0r2`."""
    return name.split("-")[-2]


@dataclass
class WorldProbes:
    """Stands in for orchestrator.probing.Probes: an endpoint of the world answers once it has booted."""

    world: World
    stops: dict[str, asyncio.Event] = field(default_factory=dict)

    async def answers(self, task: TaskState) -> None:
        """Wait until a task's endpoint answers, or `stop` is called. Raises EndpointProblem."""
        assert task.plan.endpoint is not None
        clock = asyncio.get_running_loop()
        deadline = clock.time() + task.plan.target.start_timeout
        stop = self.stops[task.plan.key] = asyncio.Event()
        while not stop.is_set():
            for thing in self.world.named("endpoint", task.plan.endpoint.name):
                if thing.begun + thing.course.boot <= self.world.now < World.down(thing):
                    return
            if clock.time() > deadline:
                raise EndpointProblem(Ending.ENDPOINT_START_TIMEOUT, "it never answered")
            await asyncio.sleep(0.5)

    def stop(self, key: str) -> None:
        if key in self.stops:
            self.stops[key].set()

    def stop_all(self) -> None:
        for key in self.stops:
            self.stop(key)


class WorldLoop(VirtualLoop):
    """An event loop of one launcher: while it waits, the world's time passes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._elapsed = 0.0
        super().__init__()
        self._elapsed = world.now

    @property
    def elapsed(self) -> float:  # type: ignore[override]
        """The launcher's own clock, which stands still while it is frozen."""
        return self._elapsed

    @elapsed.setter
    def elapsed(self, value: float) -> None:
        self.world.now += max(0.0, value - self._elapsed)
        self._elapsed = value
