"""A platform in memory: endpoints boot and jobs last for given times on the loop's clock, faults as asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from launcher.errors import PlatformError
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


@dataclass(kw_only=True)
class Script:
    """What happens to one task. Times are seconds; None: never."""

    boot: float | None = 1.0
    lasts: float | None = 10.0
    endpoint_dies_after: float | None = None
    reason: str = "completed"
    create_fails: bool = False
    created_but_unheard: bool = False
    """The endpoint comes into being, the answer is lost."""
    submit_fails: bool = False
    delete_refusals: int = 0
    deleting_takes: float = 0.5
    results: str = json.dumps({"schema": "nv-eval.scores/1", "scores": [{"metric": "acc", "value": 0.5, "n": 4}]})
    silent_end: bool = False


@dataclass(kw_only=True)
class _Thing:
    task: str
    name: str
    begun: float
    gone_at: float | None = None
    uses: str = ""
    """Of a job the endpoint whose URL it was given."""
    helped_by: list[str] = field(default_factory=list)
    """Of a job the auxiliary endpoints whose URLs it was given."""


@dataclass
class FakePlatform:
    """See the module. `alive` counts what exists; `most_alive` is the most endpoints there ever were at once."""

    scripts: dict[str, Script] = field(default_factory=dict)
    capacity: Capacity = field(default_factory=Capacity)
    name: str = "fake"
    poll_interval: float = 0.1
    create_grace: float = 5.0
    close_ends_all: bool = False
    close_ends_jobs: bool = False
    blind_until: float = 0.0
    """Until then observing fails."""
    endpoints: dict[str, _Thing] = field(default_factory=dict)
    jobs: dict[str, _Thing] = field(default_factory=dict)
    first: dict[str, _Thing] = field(default_factory=dict)
    """The first endpoint of each task."""
    asked: list[str] = field(default_factory=list)
    """Names of the endpoints whose creation was asked for."""
    created: list[tuple[float, str]] = field(default_factory=list)
    deleted: list[tuple[float, str]] = field(default_factory=list)
    submitted: list[tuple[float, str]] = field(default_factory=list)
    most_alive: int = 0
    left: list[str] | None = None
    """What existed when the platform was closed."""
    observed: int = 0
    swept: int = 0
    usd_per_second: float | None = None
    """What its meter counts for an endpoint."""

    def _script(self, thing: _Thing) -> Script:
        """That of a thing's name, as one attempt has it, else that of its task; of a shared endpoint `shared`."""
        return self.scripts.get(thing.name) or self.script(thing.task)

    def script(self, task: str) -> Script:
        return self.scripts.setdefault(task, Script())

    async def identify(self) -> None:
        """For those that have a place."""

    async def preflight(self, plan: Plan) -> list[Check]:
        return []

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        self.folder = folder
        return self.capacity

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        script = self.scripts.get(spec.name) or self.script("shared" if spec.is_shared else task.key)
        await asyncio.sleep(0.01)
        self.asked.append(spec.name)
        if script.create_fails:
            raise PlatformError("no capacity")
        assert spec.name not in self.endpoints, "created twice"
        owner = "shared" if spec.is_shared else task.key
        self.endpoints[spec.name] = _Thing(task=owner, name=spec.name, begun=_now())
        self.created.append((_now(), task.key))
        self.most_alive = max(self.most_alive, len(self._alive()))
        if script.created_but_unheard:
            raise PlatformError("the answer was lost")
        return self._endpoint(self.endpoints[spec.name])

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        await asyncio.sleep(0.01)
        if self.script(task.key).submit_fails:
            raise PlatformError("quota")
        assert spec.name not in self.jobs, "submitted twice"
        helpers = [str(target.url).removeprefix("http://") for target in task.auxiliary.values()]
        uses = url.removeprefix("http://")
        self.jobs[spec.name] = _Thing(
            task=task.key,
            name=spec.name,
            begun=_now(),
            uses=uses,
            helped_by=[h for h in helpers if h in self.endpoints],
        )
        self.submitted.append((_now(), task.key))
        return self._job(self.jobs[spec.name])

    async def observe(self) -> Observation:
        self.observed += 1
        if _now() < self.blind_until:
            raise PlatformError("no answer")
        endpoints = {n: self._endpoint(t) for n, t in self.endpoints.items() if not _over(t)}
        jobs = {n: self._job(t) for n, t in self.jobs.items() if not _over(t)}
        return Observation(endpoints=endpoints, jobs=jobs)

    def _alive(self) -> list[_Thing]:
        return [t for t in self.endpoints.values() if not _over(t)]

    def _endpoint(self, thing: _Thing) -> Resource:
        script, age = self._script(thing), _now() - thing.begun
        url = f"http://{thing.name}"
        usd = None if self.usd_per_second is None else age * self.usd_per_second
        if script.endpoint_dies_after is not None and age >= script.endpoint_dies_after:
            return Resource(name=thing.name, state=ResourceState.FAILED, url=url, exit_code=137, usd=usd)
        return Resource(name=thing.name, state=ResourceState.RUNNING, id=thing.name, url=url, usd=usd)

    def _job(self, thing: _Thing) -> Resource:
        script = self._script(thing)
        ready = self._ready(thing, script)
        over = _plus(ready, script.lasts)
        if ready is None or _now() < ready:
            return Resource(name=thing.name, state=ResourceState.RUNNING, progress=Progress(phase="waiting"))
        if over is None or _now() < over:
            return Resource(name=thing.name, state=ResourceState.RUNNING, progress=Progress(phase="evaluating"))
        if script.silent_end:
            return Resource(name=thing.name, state=ResourceState.FAILED, exit_code=1)
        ok = script.reason == "completed"
        state = ResourceState.SUCCEEDED if ok else ResourceState.FAILED
        end = RunnerEnd(reason=script.reason, detail="" if ok else "as scripted")
        return Resource(name=thing.name, state=state, progress=Progress(phase="ended"), end=end)

    def _ready(self, job: _Thing, script: Script) -> float | None:
        """When its endpoint answers a job, and those do that are auxiliary to it."""
        own = self._own_ready(job, script)
        helpers = [self.endpoints[name] for name in job.helped_by]
        up = [_plus(helper.begun, self._script(helper).boot) for helper in helpers]
        return None if own is None or None in up else max([own, *(at for at in up if at is not None)])

    def _own_ready(self, job: _Thing, script: Script) -> float | None:
        used = self.endpoints.get(job.uses)
        if used is not None and used.task == "shared":
            up = _plus(used.begun, self._script(used).boot)
            return None if up is None else max(up, job.begun)
        endpoint = self.first.get(job.task) or next((e for e in self.endpoints.values() if e.task == job.task), None)
        if endpoint is not None:
            self.first[job.task] = endpoint
        return job.begun if endpoint is None else _plus(endpoint.begun, script.boot)

    async def delete_endpoint(self, name: str) -> None:
        thing = self.endpoints.get(name)
        if thing is None:
            return
        script = self._script(thing)
        if script.delete_refusals > 0:
            script.delete_refusals -= 1
            raise PlatformError("try again")
        if thing.gone_at is None:
            thing.gone_at = _now() + script.deleting_takes
            self.deleted.append((_now(), thing.task))

    async def cancel_job(self, name: str) -> None:
        thing = self.jobs.get(name)
        if thing is not None and thing.gone_at is None:
            thing.gone_at = _now()

    async def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        yield LogLine("a line")

    async def tail(self, name: str, lines: int) -> list[str]:
        return [f"last words of {name}"]

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(self.script(task.key).results)

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        if _now() < self.blind_until:
            raise PlatformError("no answer")
        self.swept += 1
        kinds: dict[Literal["endpoint", "job"], dict[str, _Thing]] = {"endpoint": self.endpoints, "job": self.jobs}
        return [
            Leftover(
                kind=kind,
                name=thing.name,
                invocation=thing.name.rpartition("-")[2],
                id=thing.name,
                state=ResourceState.RUNNING,
                age=_now() - thing.begun,
            )
            for kind, things in kinds.items()
            for thing in things.values()
            if not _over(thing) and thing.begun <= _now() and thing.name.rpartition("-")[2].startswith(invocation)
        ]

    async def remove(self, leftover: Leftover) -> None:
        if leftover.kind == "endpoint":
            await self.delete_endpoint(leftover.name)
        else:
            await self.cancel_job(leftover.name)

    async def unseen(self) -> list[str]:
        return []

    async def close(self, *, at_once: bool = False) -> None:
        self.left = [t.name for t in (*self.endpoints.values(), *self.jobs.values()) if not _over(t)]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _over(thing: _Thing) -> bool:
    return thing.gone_at is not None and _now() >= thing.gone_at


def _plus(begin: float | None, seconds: float | None) -> float | None:
    return None if begin is None or seconds is None else begin + seconds
