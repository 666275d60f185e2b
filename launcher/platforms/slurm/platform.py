"""Slurm as a platform: the verbs of launcher/platforms/base.py for one invocation."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from launcher.config.execution import Slurm
from launcher.config.fields import Env, Reference
from launcher.errors import NotFound, PlatformError
from launcher.harnesses.spec import variable
from launcher.plan.addressing import with_auxiliary
from launcher.plan.document import API_KEY_ENV
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.plan.slurm.jobs import KEY, WATCHED, storage
from launcher.platforms.base import (
    Capacity,
    Check,
    Leftover,
    LogLine,
    Observation,
    Resource,
    ResourceState,
    RunnerEnd,
)
from launcher.platforms.kept import KeptLogs
from launcher.platforms.progress import ProgressReader
from launcher.platforms.secrets import Secrets
from launcher.platforms.slurm import archive, preflight, queue, scripts, sweeping
from launcher.platforms.slurm.cancelling import Canceller
from launcher.platforms.slurm.jobs import INSIDE, BatchJob, Parts, auxiliary_of, batch_name, parts_of
from launcher.platforms.slurm.shell import Shell
from launcher.platforms.slurm.submitting import Submitter

EVIDENCE_LINES = 1000
"""Lines of a log that are kept."""
SHORTEST_POLL, LONGEST_POLL = 0.5, 15.0
POLL_SHARE = 0.01
"""Of the time since the run began: what has taken an hour can be looked at every half minute."""
LOOK_SHARE = 20.0
"""A look is made at most every so many times what one takes: a busy controller is left in peace."""
PAGE = 1 << 20
"""Most bytes of a log that are read at once."""
FOLLOW_INTERVAL = 0.5
FETCH_TIMEOUT = 900.0


@dataclass
class Session:
    """One opened invocation. `folder` is its folder on the cluster."""

    plan: Plan
    folder: str
    home: str
    secrets: Secrets
    logs: KeptLogs
    begun: float
    squeue: tuple[str, ...]
    submitter: Submitter
    canceller: Canceller
    jobs: dict[str, BatchJob] = field(default_factory=dict)
    looked_at: float = float("-inf")
    look_took: float = 0.0
    stale: bool = True
    """Something was submitted or cancelled since the last look."""


class SlurmPlatform:
    """Runs endpoints and evaluations as batch jobs of one cluster."""

    name = "slurm"
    create_grace = 30.0
    close_ends_all = close_ends_jobs = False

    def __init__(self, execution: Slurm, shell: Shell | None = None) -> None:
        self._execution = execution
        self._shell = shell or Shell(execution.hostname)
        self._session: Session | None = None
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._looking = asyncio.Lock()

    @property
    def poll_interval(self) -> float:
        """Seconds between two looks."""
        session = self._session
        if session is None:
            return SHORTEST_POLL
        elapsed = asyncio.get_running_loop().time() - session.begun
        return min(max(elapsed * POLL_SHARE, session.look_took * LOOK_SHARE, SHORTEST_POLL), LONGEST_POLL)

    async def preflight(self, plan: Plan) -> list[Check]:
        """Reads, never writes. Raises PlatformError if the cluster cannot be reached."""
        return await preflight.check(self._shell, plan, self._execution)

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        """Make the invocation's folder on the cluster. Slurm queues what does not fit: no limit here."""
        home = (await self._shell.ask(scripts.HOME)).text
        version = await self._shell.ask("squeue --version\n")
        in_json = queue.version_of(version.text) >= queue.JSON_FROM
        there = at_home(storage(self._execution, plan.invocation), home)
        await self._shell.ask(scripts.MAKE, there, payload=archive.shared())
        self._session = Session(
            plan=plan,
            folder=there,
            home=home,
            secrets=Secrets(),
            logs=KeptLogs(plan, folder),
            begun=asyncio.get_running_loop().time(),
            squeue=queue.JSON if in_json else queue.TEXT,
            submitter=Submitter(self._shell, there, plan.invocation, arrays=self._execution.arrays),
            canceller=Canceller(self._shell, there),
        )
        return Capacity()

    # --- creation -----------------------------------------------------------------------------------------------------

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        """Idempotent by name. Raises PlatformError if Slurm refuses, or if nobody can say whether it was submitted."""
        parts = Parts(
            spec.name, task.job.name if spec.evaluates else None, auxiliary=auxiliary_of(self._opened().plan, task)
        )
        files = self._server_files(spec)
        if spec.evaluates:
            files |= self._client_files(task, INSIDE)
        elif spec.request and spec.request.get(WATCHED):
            files |= self._watch_files(task)
        return await self._submit(task, spec.name, spec.request, parts, files, "endpoint")

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """Idempotent by name; an evaluation in its endpoint's batch job was submitted with that."""
        if spec.request is None:
            return self._part_of_endpoint(task, spec)
        files = self._client_files(task, url) | {"url": url.encode()}
        if task.endpoint is not None:
            files["endpoint"] = task.endpoint.name.encode()
        return await self._submit(task, spec.name, spec.request, Parts(None, spec.name), files, "job")

    def _part_of_endpoint(self, task: TaskPlan, spec: JobPlan) -> Resource:
        found = self._opened().jobs.get(batch_name(task, spec.name))
        if found is None or found.is_gone:
            raise PlatformError(f"{spec.name}: the batch job of its endpoint is gone")
        return Resource(name=spec.name, state=ResourceState.PENDING, id=found.label)

    async def _submit(
        self,
        task: TaskPlan,
        name: str,
        request: dict[str, object] | None,
        parts: Parts,
        files: dict[str, bytes],
        kind: str,
    ) -> Resource:
        session, now = self._opened(), asyncio.get_running_loop().time()
        assert request is not None
        async with self._locks[name]:
            found = session.jobs.get(name)
            if found is None or found.is_gone:
                options = [at_home(word, session.home) for word in _strings(request["sbatch"])]
                options = after(options, [helper.label for helper in self._helpers(task).values()])
                label = await session.submitter.submit(name, task.key, options, str(request["script"]), files)
                found = session.jobs[name] = made(name, parts, label)
                session.stale = True
            return next(resource for what, resource in found.resources(now) if what == kind)

    def _server_files(self, spec: EndpointPlan) -> dict[str, bytes]:
        return self._secret_file("server.secrets", spec.server.env)

    def _client_files(self, task: TaskPlan, url: str) -> dict[str, bytes]:
        """What an evaluation needs. Where auxiliary endpoints are its batch job finds out: they may move until then."""
        invocation, found = self._opened().plan.invocation, self._helpers(task)
        task = with_auxiliary(task, {name: (f"http://{name}.auxiliary.invalid", None) for name in found})
        lines = "".join(f"{name}:{variable(name, 'API_KEY')}:{job.name}\n" for name, job in found.items())
        return {
            "job.json": archive.job_file(invocation, task, url),
            **({"auxiliary": lines.encode()} if lines else {}),
            **self._secret_file("job.secrets", {**task.job.run.env, **_key(task)}),
        }

    def _watch_files(self, task: TaskPlan) -> dict[str, bytes]:
        """What an endpoint needs that is asked by its own batch job whether it answers."""
        document = archive.watch_file(self._opened().plan.invocation, task, INSIDE)
        return {"watch.json": document, **self._secret_file("job.secrets", _key(task))}

    def _helpers(self, task: TaskPlan) -> dict[str, BatchJob]:
        """Batch jobs of the auxiliary endpoints that a task uses, by their names; the newest of each."""
        jobs = sorted(self._opened().jobs.values(), key=lambda job: job.id)
        return {job.parts.auxiliary: job for job in jobs if job.parts.auxiliary in task.auxiliary}

    def _secret_file(self, file: str, env: Env) -> dict[str, bytes]:
        """A file that exports what references stand for; none where there are none."""
        wanted = {name: value for name, value in env.items() if isinstance(value, Reference) and value.env != KEY}
        if not wanted:
            return {}
        values = self._opened().secrets.resolve_env(dict(wanted))
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
        return {file: "".join([*lines, f"export NV_EVAL_SECRETS='{' '.join(values)}'\n"]).encode()}

    # --- looking ------------------------------------------------------------------------------------------------------

    async def observe(self) -> Observation:
        """The state of everything, from one squeue and the jobs' records; asked for when it is due."""
        session = self._opened()
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if session.stale or now - session.looked_at >= min(self.poll_interval, LONGEST_POLL) * 0.9:
                await self._look(session, now)
        found: dict[str, dict[str, Resource]] = {"endpoint": {}, "job": {}}
        for job in list(session.jobs.values()):
            for kind, resource in job.resources(asyncio.get_running_loop().time()):
                found[kind][resource.name] = resource
        return Observation(endpoints=found["endpoint"], jobs=found["job"])

    async def answers(self, name: str, say: Callable[[str, str], None]) -> RunnerEnd:
        """What its batch job found out of an endpoint; for ever for one that has died."""
        while True:
            await self.observe()
            job = self._holding(name)
            asked = job.asked if job is not None else ProgressReader()
            if asked.end is not None:
                return asked.end
            if asked.progress is not None:
                say(asked.progress.phase, asked.progress.detail)
            await asyncio.sleep(self.poll_interval)

    async def key(self, name: str) -> str | None:
        """The key that the batch job of an endpoint made."""
        return (await self._shell.ask(scripts.KEY, self._opened().folder, name)).text or None

    async def _look(self, session: Session, now: float) -> None:
        begun, known, session.stale = time.monotonic(), set(session.jobs), False
        try:
            text = await self._queue_and_records(session)
        except BaseException:
            session.stale = True
            raise
        listed, _, records = text.partition(scripts.RECORDS)
        files, arrays = archive.records(records), archive.arrays(records, session.plan.invocation)
        parse = queue.parse_json if session.squeue is queue.JSON else queue.parse_text
        jobs = queue.named(queue.ours(parse(listed), session.plan.invocation), arrays)
        newest = queue.newest(jobs)
        for name in {*newest, *files, *known}:
            self._take(session, name, newest.get(name), files.get(name, {}), now)
        session.looked_at, session.look_took = now, time.monotonic() - begun
        await self._ask_accounting(session)

    async def _queue_and_records(self, session: Session) -> str:
        answer = await self._shell.run(scripts.LOOK, session.folder, *session.squeue)
        if answer.code != 0 and session.squeue is queue.JSON and "plugin" in answer.err.lower():
            session.squeue = queue.TEXT  # built without JSON
            answer = await self._shell.run(scripts.LOOK, session.folder, *session.squeue)
        if answer.code != 0:
            raise PlatformError(f"Slurm: {answer.err.strip().splitlines()[-1] if answer.err.strip() else 'no answer'}")
        return answer.text

    def _take(
        self,
        session: Session,
        name: str,
        queued: queue.QueuedJob | None,
        files: dict[str, list[str]],
        now: float,
    ) -> None:
        job = session.jobs.get(name)
        if job is None:
            parts = parts_of(session.plan, name)
            if parts is None or (queued is None and "id" not in files):
                return
            job = session.jobs[name] = BatchJob(name, parts)
        if queued is not None and queued.id < job.id:
            queued = None  # the one before it, under the same name
        job.take(queued, files, now)

    async def _ask_accounting(self, session: Session) -> None:
        """What became of jobs that squeue has forgotten, where the cluster keeps accounts."""
        forgotten = {job.label: job for job in session.jobs.values() if job.is_forgotten and job.label}
        if not forgotten:
            return
        answer = await self._shell.run(scripts.SACCT, ",".join(forgotten))
        for job in forgotten.values():
            job.accounted = ""
        for line in answer.text.splitlines():
            number, _, rest = line.partition("|")
            if number in forgotten:
                forgotten[number].accounted = rest.partition("|")[0].partition(" ")[0]

    # --- the end ------------------------------------------------------------------------------------------------------

    async def delete_endpoint(self, name: str) -> None:
        """Ask for the end of its batch job; `observe` says GONE when Slurm has nothing of it any more."""
        await self._cancel(name)

    async def cancel_job(self, name: str) -> None:
        """Ask for the end of its batch job, which may be its endpoint's, too."""
        await self._cancel(name)

    async def _cancel(self, name: str) -> None:
        session = self._opened()
        batch = next((job.name for job in session.jobs.values() if name in job.parts.names), name)
        async with self._locks[batch]:
            job = session.jobs.get(batch)
            if job is not None and job.is_gone:
                return
            if job is None or not job.leaving or job.is_active:
                await session.canceller.cancel(batch, job.label if job is not None and "_" in job.label else "")
            if job is not None:
                job.leaving = True
            session.stale = True

    # --- logs ---------------------------------------------------------------------------------------------------------

    def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Lines without time stamps. Raises NotFound for a name that was never submitted."""
        job = self._holding(name)
        if job is None:
            raise NotFound(f"no endpoint or job {name} in this invocation")
        return self._lines(job, _log_of(job, name), follow=follow)

    def _holding(self, name: str) -> BatchJob | None:
        return next((job for job in self._opened().jobs.values() if name in job.parts.names), None)

    async def _lines(self, job: BatchJob, log: str, *, follow: bool) -> AsyncIterator[LogLine]:
        session, place, rest = self._opened(), 1, b""
        while True:
            is_over = job.is_over()
            answer = await self._shell.ask(scripts.PAGE, session.folder, job.name, log, str(place), str(PAGE))
            place += len(answer.out)
            *lines, rest = (rest + answer.out).split(b"\n")
            for line in lines:
                yield LogLine(session.secrets.redact(line.decode(errors="replace")))
            if len(answer.out) == PAGE:
                continue
            if is_over or not follow:
                break
            await asyncio.sleep(FOLLOW_INTERVAL)
            await self.observe()
        if rest:
            yield LogLine(session.secrets.redact(rest.decode(errors="replace")))

    async def tail(self, name: str, lines: int) -> list[str]:
        """The last lines of one endpoint's or evaluation's output, or of what Slurm said of it; empty without any."""
        session, job = self._opened(), self._holding(name)
        if job is None:
            return []
        most = str(max(lines, EVIDENCE_LINES))
        answer = await self._shell.ask(scripts.TAIL, session.folder, job.name, _log_of(job, name), most)
        found = [session.secrets.redact(line) for line in answer.text.splitlines()]
        session.logs.keep(name, found)
        return found[-lines:]

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        """Bring a job's results into `folder`: all of them, or PlatformError. Logs come beside them."""
        session = self._opened()
        answer = await self._shell.ask(scripts.FETCH, session.folder, task.key, timeout=FETCH_TIMEOUT)
        await asyncio.to_thread(archive.unpack, answer.out, folder, task.job.run.results)
        await asyncio.to_thread(session.secrets.scrub, folder)
        for name in (task.job.name, task.endpoint.name if task.endpoint else ""):
            with contextlib.suppress(PlatformError):  # whatever is wrong with a log, the scores are home
                await self.tail(name, EVIDENCE_LINES)

    # --- the cluster --------------------------------------------------------------------------------------------------

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        """Batch jobs of this user that carry our mark, and the folders of invocations."""
        return await sweeping.sweep(self._shell, self._execution, invocation)

    async def remove(self, leftover: Leftover) -> None:
        """Ask for its removal."""
        await sweeping.remove(self._shell, self._execution, leftover)

    async def unseen(self) -> list[str]:
        """Nothing: squeue shows all jobs of the user."""
        return []

    async def close(self, *, at_once: bool = False) -> None:  # noqa: ARG002  nothing is waited for
        """Let go of the connection. Batch jobs go on: the orchestrator cancels them, or Slurm's time limit."""
        session, self._session = self._session, None
        if session is not None:
            await session.submitter.close()
            await session.canceller.close()
        await self._shell.close()

    def _opened(self) -> Session:
        if self._session is None:
            raise PlatformError("the slurm platform was used before open() or after close()")
        return self._session


def at_home(text: str, home: str) -> str:
    """A path, or an option with one, whose leading ~ is the home on the cluster."""
    head, equals, path = text.rpartition("=") if text.startswith("--") else ("", "", text)
    return f"{head}{equals}{home}{path[1:]}" if path == "~" or path.startswith("~/") else text


def made(name: str, parts: Parts, label: str) -> BatchJob:
    """A batch job that was just submitted."""
    number, _, index = label.partition("_")
    job = BatchJob(name, parts, id=int(number), label=label)
    job.queued = queue.QueuedJob(id=int(number), index=int(index) if index else None, name=name, states=("PENDING",))
    return job


def after(options: list[str], jobs: list[str]) -> list[str]:
    """The options of a batch job that does not begin before those of its auxiliary endpoints have."""
    if not jobs:
        return options
    ours = ",".join(f"after:{number}" for number in jobs)
    asked = [word.partition("=")[2] for word in options if re.match(r"(--dependency|-d)=", word)]
    return [*options, f"--dependency={','.join([*asked[-1:], ours])}"]


def _key(task: TaskPlan) -> Env:
    """The key that calls a task's endpoint, where it is the person's own."""
    key = task.target.api_key
    return {API_KEY_ENV: key} if key is not None and key.env != KEY else {}


def _log_of(job: BatchJob, name: str) -> str:
    return "endpoint.log" if job.parts.endpoint == name else "job.log"


def _strings(value: object) -> list[str]:
    assert isinstance(value, list | tuple)
    return [str(word) for word in value]
