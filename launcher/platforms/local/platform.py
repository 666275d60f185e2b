"""The local platform: folders, GPUs and states of one invocation; a runtime starts and stops things for it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from launcher import errors
from launcher.config.execution import Local
from launcher.errors import MissingExtra, NotFound, PlatformError
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.platforms.base import Capacity, Check, Leftover, LogLine, Observation, Resource, ResourceState
from launcher.platforms.local import logfiles, machine, preflight, sweeping
from launcher.platforms.local.gpulocks import GpuLocks
from launcher.platforms.local.invocation import Invocation
from launcher.platforms.local.machine import Gpu, GpuPool
from launcher.platforms.local.process import ProcessRuntime
from launcher.platforms.local.unit import Ending, Unit
from launcher.platforms.progress import ProgressReader
from launcher.platforms.secrets import Secrets, search, unsearched

CLOSE_POLL = 0.02
GPU_POLL = 0.2
"""Seconds between two tries to reserve GPUs that others have."""
_ROOM = 2**20
"""Bytes."""
_NO_ROOM = "; the disk that holds its folder is full"
KILL_TIME = 10.0
"""Seconds that the kernel or the engine has to end what was told to end at once."""


class Runtime(Protocol):
    """How servers and jobs are run: as processes or as containers."""

    async def prepare(self) -> None:
        """What has to happen once before the first server starts."""
        ...

    async def start_endpoint(
        self, task: TaskPlan, spec: EndpointPlan, gpus: tuple[Gpu, ...]
    ) -> tuple[Unit, str | None]:
        """Start a server; returns it and its base URL, None if it ended too early to have one."""
        ...

    async def start_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Unit:
        """Start a job."""
        ...

    async def refresh(self) -> None:
        """Ask for the state of everything at once, where that has to be asked for."""
        ...

    async def close(self) -> None:
        """Remove what belongs to the invocation as a whole."""
        ...


@dataclass
class _Entry:
    """One endpoint or job of this invocation."""

    kind: Literal["endpoint", "job"]
    name: str
    unit: Unit
    log: Path
    url: str | None = None
    gpus: tuple[Gpu, ...] = ()
    leaving: bool = False
    output: logfiles.Follower = field(init=False)
    reader: ProgressReader = field(default_factory=ProgressReader)

    def __post_init__(self) -> None:
        self.output = logfiles.Follower(self.log)

    @property
    def is_gone(self) -> bool:
        return self.leaving and self.unit.is_over

    def resource(self) -> Resource:
        ending = self.unit.look()
        if self.kind == "job":
            self.reader.feed(self.output.read_text())
        return Resource(
            name=self.name,
            state=self._state(ending),
            id=self.unit.id,
            url=self.url,
            exit_code=ending.exit_code if ending else None,
            detail=self._detail(ending),
            progress=self.reader.progress,
            end=self.reader.end,
            accelerators=tuple(gpu.number for gpu in self.gpus),
        )

    def _state(self, ending: Ending | None) -> ResourceState:
        if self.is_gone:
            return ResourceState.GONE
        if ending is None or self.leaving:
            return ResourceState.RUNNING
        succeeded = self.kind == "job" and ending.exit_code == 0
        return ResourceState.SUCCEEDED if succeeded else ResourceState.FAILED

    def _detail(self, ending: Ending | None) -> str:
        if ending is not None:
            return ending.detail + (_NO_ROOM if ending.exit_code and _is_full(self.log.parent) else "")
        return "ending" if self.leaving else ""


def _is_full(folder: Path) -> bool:
    """Whether so little room is left that what runs there may have failed of it."""
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:
        return False


class LocalPlatform:
    """Runs servers and jobs on this machine."""

    name = "local"
    poll_interval = 0.1
    create_grace = 0.0
    close_ends_all = close_ends_jobs = True

    def __init__(self, execution: Local) -> None:
        self._execution = execution
        self._entries: dict[str, _Entry] = {}
        self._unsearched: set[Path] = set()
        """Folders that jobs have written to and that have not been searched for secrets."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._pool = GpuPool(())
        self._gpu_locks: GpuLocks | None = None
        self._say: Callable[[str], None] = lambda _: None
        self._creates = True
        self._opened: tuple[Invocation, Runtime] | None = None

    def attend(self, say: Callable[[str], None], *, creates: bool) -> None:
        """`say` is told which GPUs `open` waits for; without `creates` it reserves none."""
        self._say, self._creates = say, creates

    async def preflight(self, plan: Plan) -> list[Check]:
        """Reads, never writes: everything that would keep the plan from running, all at once."""
        return await preflight.check(plan, self._execution)

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        """Reserve GPUs, make the folders, run what servers need first, and say what endpoints may use.

        Waits while fewer GPUs are free than the largest endpoint needs.
        """
        cores, memory = machine.cores(self._execution), machine.memory_gib(self._execution)
        locks = self._gpu_locks = GpuLocks(plan.invocation)
        self._pool = GpuPool(await self._reserve(locks, plan, memory) if self._creates else ())
        at_once = machine.most_at_once(plan, gpus=len(self._pool.gpus), memory_gib=memory)
        invocation = Invocation(
            plan=plan,
            folder=folder,
            execution=self._execution,
            secrets=Secrets(),
            threads=max(1, cores // at_once),
            gpu_locks=locks,
        )
        self._unsearched.update(unsearched(plan, folder))
        invocation.make_folders()
        runtime = _make_runtime(invocation)
        self._opened = (invocation, runtime)
        await runtime.prepare()
        return Capacity(gpus=len(self._pool.gpus), cpus=float(cores), memory_gib=memory)

    async def _reserve(self, locks: GpuLocks, plan: Plan, memory: float | None) -> tuple[Gpu, ...]:
        """As many free GPUs as the plan can use at once; what one waits for is said once."""
        gpus = machine.gpus(self._execution)
        most = machine.most_gpus(plan, gpus=len(gpus), memory_gib=memory)
        least = min(machine.largest(plan), most)
        if most == 0:
            return ()
        told = False
        try:
            while len((attempt := locks.take(gpus, least=least, most=most)).taken) < least:
                if attempt.holders and not told:
                    told = True
                    self._say(
                        f"Waiting for {least} free GPU{'s' if least > 1 else ''} (Ctrl-C ends it): {attempt.who}."
                    )
                await asyncio.sleep(GPU_POLL)
        except OSError as error:
            self._say(f"GPUs cannot be reserved, so another run may use the same: {error.filename}: {error.strerror}.")
            return gpus
        return attempt.taken

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        """Idempotent by name. Raises PlatformError if it cannot be started or too few GPUs are free."""
        invocation, runtime = self._session()
        async with self._locks[spec.name]:
            entry = self._entries.get(spec.name)
            if entry is None or entry.is_gone:
                entry = await self._start_endpoint(invocation, runtime, task, spec)
            return entry.resource()

    async def _start_endpoint(
        self, invocation: Invocation, runtime: Runtime, task: TaskPlan, spec: EndpointPlan
    ) -> _Entry:
        gpus = self._pool.take(spec.name, spec.server.gpus)
        try:
            unit, url = await runtime.start_endpoint(task, spec, gpus)
        except BaseException:
            self._pool.give_back(spec.name)
            raise
        log = invocation.endpoint_log(task)
        self._entries[spec.name] = _Entry("endpoint", spec.name, unit, log, url=url, gpus=gpus)
        return self._entries[spec.name]

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """Idempotent by name. Raises PlatformError if it cannot be started."""
        invocation, runtime = self._session()
        async with self._locks[spec.name]:
            entry = self._entries.get(spec.name)
            if entry is None or entry.is_gone:
                invocation.show_shared_log(task)
                self._unsearched.add(invocation.output(task))
                unit = await runtime.start_job(task, spec, url)
                entry = self._entries[spec.name] = _Entry("job", spec.name, unit, invocation.job_log(task))
            return entry.resource()

    async def observe(self) -> Observation:
        """The state of everything of this invocation."""
        _, runtime = self._session()
        await runtime.refresh()
        found = {"endpoint": dict[str, Resource](), "job": dict[str, Resource]()}
        for entry in list(self._entries.values()):
            found[entry.kind][entry.name] = entry.resource()
            if entry.is_gone:
                self._pool.give_back(entry.name)
        return Observation(endpoints=found["endpoint"], jobs=found["job"])

    async def delete_endpoint(self, name: str) -> None:
        """Ask for a polite end; `observe` says GONE when nothing of the server's process tree is left."""
        await self._leave(name)

    async def cancel_job(self, name: str) -> None:
        """Ask for a polite end; `observe` says GONE when nothing of the job's process tree is left."""
        await self._leave(name)

    async def _leave(self, name: str) -> None:
        async with self._locks[name]:
            entry = self._entries.get(name)
            if entry is not None and not entry.is_gone:
                entry.leaving = True
                entry.unit.stop()

    def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Lines without time stamps. Raises NotFound for a name that was never created."""
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(f"no endpoint or job {name} on this machine")
        return logfiles.lines(entry.log, lambda: entry.unit.is_silent, follow=follow)

    async def tail(self, name: str, lines: int) -> list[str]:
        """The last lines of one endpoint's or job's output; empty where there is none."""
        entry = self._entries.get(name)
        return [] if entry is None else logfiles.tail(entry.log, lines)

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        """The results are on this machine already: check that they are there, and take secrets out of them."""
        invocation, _ = self._session()
        output = invocation.output(task)
        missing = [pattern for pattern in task.job.run.results if next(output.glob(pattern), None) is None]
        if missing:
            raise PlatformError(f"no file matches {', '.join(missing)} in {output}")
        await asyncio.to_thread(_bring_home, invocation.secrets, output, folder)
        self._unsearched.discard(output)

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        """Everything of this user on this machine that carries our mark; containers where an engine answers."""
        return await sweeping.sweep(self._execution, invocation)

    async def remove(self, leftover: Leftover) -> None:
        """Ask for its end; what an engine holds is removed by force."""
        await sweeping.remove(self._execution, leftover)

    async def unseen(self) -> list[str]:
        """Containers, if an engine should be there and does not answer."""
        return await sweeping.unseen(self._execution)

    async def close(self, *, at_once: bool = False) -> None:
        """End everything of this invocation and wait for it. Raises errors.Leftover if something refuses to end."""
        try:
            if self._opened is not None:
                await self._end_all(at_once=at_once)
        finally:
            if self._gpu_locks is not None:
                self._gpu_locks.release()

    async def _end_all(self, *, at_once: bool) -> None:
        for name in list(self._entries):
            await self._leave(name)
        if not await self._wait_for_all(0.0 if at_once else self._execution.stop_grace + 1):
            for entry in self._entries.values():
                entry.unit.kill()
            await self._wait_for_all(KILL_TIME)
        invocation, runtime = self._session()
        try:
            await runtime.close()
            await asyncio.to_thread(search, invocation.secrets, invocation.plan, self._unsearched)
            left = [entry.name for entry in self._entries.values() if not entry.is_gone]
        finally:
            self._opened = None
            for entry in self._entries.values():
                await asyncio.to_thread(entry.unit.close)
        if left:
            raise errors.Leftover(f"still running on this machine: {', '.join(left)}")

    async def _wait_for_all(self, seconds: float) -> bool:
        """Whether everything is gone within this time. An engine that does not answer counts as not gone."""
        _, runtime = self._session()
        deadline = time.monotonic() + seconds
        while not all(entry.is_gone for entry in self._entries.values()):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(CLOSE_POLL)
            with contextlib.suppress(PlatformError):
                await runtime.refresh()
        return True

    def _session(self) -> tuple[Invocation, Runtime]:
        if self._opened is None:
            raise PlatformError("the local platform was used before open() or after close()")
        return self._opened


def _make_runtime(invocation: Invocation) -> Runtime:
    if invocation.execution.runtime == "process":
        return ProcessRuntime(invocation)
    try:
        from launcher.platforms.local.docker.runtime import DockerRuntime
    except ModuleNotFoundError as error:
        raise MissingExtra("the docker client", "docker") from error
    return DockerRuntime(invocation)


def _bring_home(secrets: Secrets, output: Path, folder: Path) -> None:
    secrets.scrub(output)
    if folder.resolve() != output.resolve():
        shutil.copytree(output, folder, dirs_exist_ok=True)
