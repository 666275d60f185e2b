"""The endpoints and jobs of one invocation, as the watches show them, in the launcher's words."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.errors import PlatformError
from launcher.plan.groups import API as LEADER_API
from launcher.plan.kubernetes import INVOCATION, KIND, NAME, SUPERVISOR, WORKER, service, service_name
from launcher.platforms.background import Background
from launcher.platforms.base import Progress, Resource, ResourceState, RunnerEnd
from launcher.platforms.creation import create_once
from launcher.platforms.http import RequestFailed, patience
from launcher.platforms.kubernetes import states
from launcher.platforms.kubernetes.client import KubeClient
from launcher.platforms.kubernetes.states import Diagnosis, Json
from launcher.platforms.kubernetes.watching import Watched
from launcher.platforms.pace import EXTRAS, Pace, share_of
from launcher.platforms.progress import ProgressReader, results_from_log

PROGRESS_LINES = 100
LOG_PATIENCE = 10.0
"""Seconds that the log of an ended job may lack its end, or not answer, before it is believed to have none."""
LOG_OUTAGE = 600.0
"""Seconds that nobody may answer for it."""
QUIET = 5.0
"""Seconds that a job may have no pod before its events are asked for."""
WAIT = 0.3
COMPLETED = "completed"
_GROUP = "leaderWorkerTemplate"


@dataclass
class Entry:
    """What is known of one endpoint or job beside what is watched. Times are seconds of the loop's clock."""

    begun: float
    url: str | None = None
    was_ready: bool = False
    last_pod: Json | None = None
    lost: Diagnosis | None = None
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    explained: Any = None
    """Which crash the last line of the log was read for."""
    is_busy: bool = False
    ended_at: float | None = None
    progress: Progress | None = None
    read_at: float = -math.inf
    end: RunnerEnd | None = None
    lines: list[str] = field(default_factory=list)
    log_is_read: bool = False


class Things:
    """All endpoints and jobs of one invocation."""

    def __init__(
        self, client: KubeClient, invocation: str, now: float, redact: Callable[[str], str], *, sets: bool = False
    ) -> None:
        """`redact` takes secrets out of what servers and jobs print; `sets`: some endpoints have several nodes.

        Watches begin with `start`.
        """
        self._client = client
        self._invocation = invocation
        self._redact = redact
        self._entries: dict[str, Entry] = {}
        self._submitted: set[str] = set()
        self._background = Background()
        self._progress_pace = Pace(now, EXTRAS)
        self._why_pace = Pace(now, EXTRAS)
        labels = f"{INVOCATION}={invocation},{KIND}!={SUPERVISOR}"
        self.deployments = Watched(client, "deployments", labels, self._see)
        self.sets = Watched(client, "leaderworkersets", labels, self._see) if sets else None
        self.jobs = Watched(client, "jobs", labels, self._see)
        self.pods = Watched(client, "pods", labels, self._see_pod)

    @property
    def watches(self) -> tuple[Watched, ...]:
        """All watches."""
        return (*self.serving, self.jobs, self.pods)

    @property
    def serving(self) -> tuple[Watched, ...]:
        """Watches of what endpoints are."""
        return (self.deployments,) if self.sets is None else (self.deployments, self.sets)

    def server(self, name: str) -> Json | None:
        """What an endpoint is, if it exists."""
        return next((watch.items[name] for watch in self.serving if name in watch.items), None)

    def start(self) -> None:
        """Begin to watch."""
        for watch in self.watches:
            watch.start()

    async def close(self) -> None:
        """Watch no more."""
        for watch in self.watches:
            watch.stop()
        await self._background.close()

    # --- what is seen -------------------------------------------------------------------------------------------------

    def _see(self, thing: Json) -> None:
        self._entry(thing["metadata"]["name"])

    def _see_pod(self, pod: Json) -> None:
        labels = pod["metadata"].get("labels") or {}
        name = labels.get(NAME)
        if name is None or labels.get(KIND) not in ("endpoint", "job", WORKER):
            return
        entry = self._entry(name)
        known = entry.last_pod
        if labels[KIND] != WORKER and (
            known is None or known["metadata"]["creationTimestamp"] <= pod["metadata"]["creationTimestamp"]
        ):
            entry.last_pod = pod
        found = states.of_pod(pod)
        if found.preempted:
            entry.lost = replace(found, detail=self._redact(found.detail))
        if labels[KIND] == "endpoint" and states.is_ready(pod):
            entry.was_ready = True

    def _entry(self, name: str) -> Entry:
        return self._entries.setdefault(name, Entry(_now()))

    def ready_pod(self, name: str) -> str | None:
        """Name of a pod of an endpoint that answers."""
        pods = (pod for pod in self.pods_of(name) if states.is_ready(pod) and not _is_worker(pod))
        return next((str(pod["metadata"]["name"]) for pod in pods), None)

    def known(self, name: str) -> bool:
        """Whether there is, or was, something of this name."""
        return name in self._entries

    def pods_of(self, name: str) -> list[Json]:
        """Pods that exist of an endpoint or job."""
        return [pod for pod in self.pods.items.values() if (pod["metadata"].get("labels") or {}).get(NAME) == name]

    async def refresh(self) -> None:
        """Make sure that what is watched is up to date. Raises PlatformError if nobody can say."""
        self._background.check()
        await asyncio.gather(*(watch.synced() for watch in self.watches))
        for name, entry in self._entries.items():
            if self.server(name) is not None:
                self._tend_endpoint(name, entry)
            elif name in self.jobs.items:
                self._tend_job(name, entry)
        self._read_progress()

    # --- creation -----------------------------------------------------------------------------------------------------

    async def create(self, watch: Watched, manifest: Json) -> Json:
        """Create a Deployment or a Job, once. Raises PlatformError."""
        name = manifest["metadata"]["name"]
        self._entries.pop(name, None) if name not in watch.items and not self.pods_of(name) else None
        made = await self._once(watch.plural, manifest)
        self._entry(name)
        watch.put(made)
        return made

    async def _once(self, plural: str, manifest: Json) -> Json:
        name = manifest["metadata"]["name"]
        return await create_once(
            lambda: self._client.create(plural, manifest),
            lambda: self._client.get(plural, name),
            describe=f"Kubernetes: {plural.removesuffix('s')} {name}",
            is_ours=lambda found: (found["metadata"].get("labels") or {}).get(INVOCATION) == self._invocation,
            is_leaving=states.is_leaving,
        )

    async def serve(self, deployment: Json, manifest: Json) -> None:
        """Make the Service of a Deployment, once, and note its address. Raises PlatformError."""
        name = deployment["metadata"]["name"]
        owned = {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner_of(deployment)]}}
        self._note_address(name, await self._once("services", owned))

    async def serve_by(self, manifest: Json) -> None:
        """Make a route to an endpoint, once. Raises PlatformError."""
        await self._once("httproutes", manifest)

    async def find_service(self, name: str) -> None:
        """Note the address of a Service that an earlier launcher made; one that died before it could gets it now."""
        wanted = service_name(name, 1 if name in self.deployments.items else 2)
        found, server = await self._client.get("services", wanted), self.server(name)
        if found is not None:
            self._note_address(name, found)
        elif server is not None and not states.is_leaving(server):
            (container,) = _template(server)["spec"]["containers"]
            port = container["ports"][0]["containerPort"]
            with contextlib.suppress(PlatformError):  # it is tried again
                await self.serve(server, service(wanted, server["metadata"]["labels"], port))

    def _note_address(self, name: str, found: Json) -> None:
        host, port = found["spec"]["clusterIP"], found["spec"]["ports"][0]["port"]
        self._entry(name).url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    # --- endpoints ----------------------------------------------------------------------------------------------------

    def _tend_endpoint(self, name: str, entry: Entry) -> None:
        deployment, pods = self.server(name) or {}, self.pods_of(name)
        pod = _telling(pods)
        failure = states.condition(deployment, "ReplicaFailure")
        if pod is not None and not states.is_leaving(pod):
            found = states.of_pod(pod)
        elif failure is not None:
            found = states.refused_pods(str(failure.get("message", "")))
        else:
            found = Diagnosis()
        known = entry.diagnosis
        if not (known.crashed and found.crashed and known.exit_code == found.exit_code):
            entry.diagnosis = replace(found, detail=self._redact(found.detail))
        if found.crashed and pod is not None and entry.explained is None and not entry.is_busy:
            entry.is_busy = True
            self._background.start(self._explain(name, entry, found))
        if entry.was_ready and entry.url is None and not entry.is_busy:
            entry.is_busy = True
            self._background.start(self._find_address(name, entry))

    async def _explain(self, name: str, entry: Entry, found: Diagnosis) -> None:
        try:
            with patience(10.0):
                lines = await self.last_lines(name, 20)
            entry.diagnosis = states.with_last_line(found, lines)
        except RequestFailed:
            pass
        finally:
            entry.explained, entry.is_busy = True, False

    async def _find_address(self, name: str, entry: Entry) -> None:
        try:
            with patience(10.0):
                await self.find_service(name)
        except RequestFailed:
            return
        finally:
            entry.is_busy = False

    def endpoint(self, name: str) -> Resource:
        """An endpoint in the launcher's words."""
        entry, deployment = self._entries[name], self.server(name)
        pods = self.pods_of(name)
        if deployment is None:
            gone = not pods
            state = ResourceState.GONE if gone else ResourceState.RUNNING
            return Resource(name=name, state=state, detail="" if gone else "its pods are ending")
        found = entry.lost or entry.diagnosis
        leaving = states.is_leaving(deployment)
        is_told = not found.crashed or entry.explained  # with the last line of the log
        fatal = found.fatal and is_told and (found.preempted or not entry.was_ready) and not leaving
        is_ready = self.ready_pod(name) is not None
        state = ResourceState.RUNNING if leaving or entry.was_ready else ResourceState.PENDING
        if fatal:
            state = ResourceState.FAILED
        detail = "" if is_ready and not found.preempted else found.detail or _progress_of(pods)
        return Resource(
            name=name,
            state=state,
            id=deployment["metadata"]["uid"],
            url=entry.url if entry.was_ready else None,
            exit_code=found.exit_code if fatal else None,
            detail=detail,
            fatal=fatal,
            preempted=found.preempted,
        )

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _tend_job(self, name: str, entry: Entry) -> None:
        job, now = self.jobs.items[name], _now()
        pod = states.newest(self.pods_of(name)) or entry.last_pod
        found = states.of_pod(pod) if pod is not None else Diagnosis()
        if pod is not None:
            entry.diagnosis = replace(found, detail=self._redact(found.detail))
        if _has_ended(job):
            entry.ended_at = entry.ended_at or now
            if not entry.log_is_read and not entry.is_busy:
                entry.is_busy = True
                self._background.start(self._read_end(name, entry))
        elif pod is None and now - entry.begun > QUIET and not entry.is_busy and self._why_pace.is_due(now):
            self._why_pace.asked(now)
            entry.is_busy = True
            self._background.start(self._ask_events(job, entry))

    async def _ask_events(self, job: Json, entry: Entry) -> None:
        """Why a job has no pod, which only events tell."""
        try:
            with patience(10.0):
                fields = f"involvedObject.uid={job['metadata']['uid']},reason=FailedCreate"
                events = await self._client.every("events", fields=fields)
            if events and entry.last_pod is None:
                entry.diagnosis = states.refused_pods(str(events[-1].get("message", "")))
        except RequestFailed:
            return
        finally:
            entry.is_busy = False

    async def _read_end(self, name: str, entry: Entry) -> None:
        try:
            with patience(30.0):
                while not await self._took_end(name, entry):  # noqa: ASYNC110  the log is what changes
                    await asyncio.sleep(WAIT)
        finally:
            entry.is_busy = False

    async def _took_end(self, name: str, entry: Entry) -> bool:
        waited = _now() - (entry.ended_at or _now())
        try:
            lines = await self._log(name)
        except RequestFailed as error:
            there = error.status is not None and error.status < 500
            entry.log_is_read = waited > (LOG_PATIENCE if there else LOG_OUTAGE)
            return entry.log_is_read
        if lines is None:  # its pod is gone, and the log with it
            entry.log_is_read = True
            return True
        entry.lines = [self._redact(line) for line in lines]
        reader = ProgressReader()
        reader.feed("".join(f"{line}\n" for line in lines))
        entry.progress = self._without_secrets(reader.progress) or entry.progress
        if (reader.end is not None and _is_whole(lines)) or waited > LOG_PATIENCE:
            entry.end = reader.end and replace(reader.end, detail=self._redact(reader.end.detail))
            if entry.end is None and states.condition(self.jobs.items.get(name) or {}, "Complete"):
                entry.end = RunnerEnd(reason=COMPLETED)
            entry.log_is_read = True
        return entry.log_is_read

    async def _log(self, name: str, *, tail: int | None = None) -> list[str] | None:
        """A job's log; None if it has no pod any more. Raises RequestFailed."""
        pod = states.newest(self.pods_of(name)) or self._entries[name].last_pod
        if pod is None:
            return None
        try:
            return await self._client.log(pod["metadata"]["name"], tail=tail)
        except RequestFailed as error:
            if error.status == 404:
                return None
            raise

    def _read_progress(self) -> None:
        now = _now()
        running = [
            (name, entry)
            for name, entry in self._entries.items()
            if name in self.jobs.items and not _has_ended(self.jobs.items[name]) and _runs(entry.last_pod)
        ]
        idle = [(name, entry) for name, entry in running if not entry.is_busy]
        number, slower = share_of(len(running))
        if not idle or not self._progress_pace.is_due(now, slower=slower):
            return
        self._progress_pace.asked(now)
        for name, entry in sorted(idle, key=lambda pair: pair[1].read_at)[:number]:
            entry.read_at, entry.is_busy = now, True
            self._background.start(self._take_progress(name, entry))

    async def _take_progress(self, name: str, entry: Entry) -> None:
        try:
            with patience(10.0):
                lines = await self._log(name, tail=PROGRESS_LINES) or []
        except RequestFailed:
            return  # progress is shown, nothing depends on it
        finally:
            entry.is_busy = False
        reader = ProgressReader()
        reader.feed("".join(f"{line}\n" for line in lines))
        found = self._without_secrets(reader.progress)
        if found is not None and found.phase == "waiting" and found.done is not None:
            found = replace(found, phase="evaluating")  # it counts, though the word may lie before these lines
        entry.progress = found or entry.progress

    def _without_secrets(self, progress: Progress | None) -> Progress | None:
        return None if progress is None else replace(progress, detail=self._redact(progress.detail))

    def job(self, name: str) -> Resource:
        """A job in the launcher's words. An ended one counts as running until its log is read."""
        entry, job = self._entries[name], self.jobs.items.get(name)
        pods = self.pods_of(name)
        if job is None:
            gone = not pods
            return Resource(name=name, state=ResourceState.GONE if gone else ResourceState.RUNNING)
        found = entry.lost or entry.diagnosis
        state = self._job_state(job, entry, found)
        failed = states.condition(job, "Failed")
        why = found.detail or _progress_of(pods)
        if failed is not None and failed.get("reason") == "DeadlineExceeded":
            why = "the cluster ended it: it was active for longer than its deadline"
        elif failed is not None and not why:
            why = f"{failed.get('reason', '')}: {states.one_line(str(failed.get('message', '')))}"
        return Resource(
            name=name,
            state=state,
            id=job["metadata"]["uid"],
            exit_code=0 if state is ResourceState.SUCCEEDED else found.exit_code,
            detail=why if state is not ResourceState.SUCCEEDED else "",
            preempted=found.preempted,
            progress=entry.progress,
            end=entry.end if entry.log_is_read else None,
        )

    def _job_state(self, job: Json, entry: Entry, found: Diagnosis) -> ResourceState:
        if states.is_leaving(job):
            return ResourceState.RUNNING
        if _has_ended(job):
            if not entry.log_is_read:
                return ResourceState.RUNNING
            succeeded = states.condition(job, "Complete") is not None
            return ResourceState.SUCCEEDED if succeeded else ResourceState.FAILED
        if found.fatal and not found.crashed and not found.preempted:
            return ResourceState.FAILED
        return ResourceState.RUNNING if _runs(entry.last_pod) else ResourceState.PENDING

    # --- both ---------------------------------------------------------------------------------------------------------

    def resources(self) -> tuple[dict[str, Resource], dict[str, Resource]]:
        """Endpoints and jobs that exist or leave something."""
        endpoints, jobs = {}, {}
        for name in self._entries:
            if self._is_job(name):
                jobs[name] = self.job(name)
            else:
                endpoints[name] = self.endpoint(name)
        return endpoints, jobs

    def _is_job(self, name: str) -> bool:
        pod = self._entries[name].last_pod
        kind = (pod["metadata"].get("labels") or {}).get(KIND) if pod is not None else None
        return name in self.jobs.items or kind == "job" or name in self._submitted

    def note_job(self, name: str) -> None:
        """A name is that of a job."""
        self._submitted.add(name)

    def is_over(self, name: str) -> bool:
        """Whether its log will not grow any more."""
        if self._is_job(name):
            return self._entries[name].log_is_read or name not in self.jobs.items
        return self.server(name) is None and not self.pods_of(name)

    async def last_lines(self, name: str, lines: int) -> list[str]:
        """The last lines of an endpoint's or a job's output, of its last run that printed. Raises RequestFailed."""
        entry = self._entries.get(name)
        if entry is None:
            return []
        if entry.lines:
            return entry.lines[-lines:]
        pod = _telling(self.pods_of(name)) or entry.last_pod
        if pod is None:
            return []
        found = await self._tail(pod, lines, previous=states.of_pod(pod).crashed and _restarts(pod))
        return [self._redact(line) for line in found]

    async def _tail(self, pod: Json, lines: int, *, previous: bool) -> list[str]:
        try:
            found = await self._client.log(pod["metadata"]["name"], tail=lines)
        except RequestFailed as error:
            if error.status in (400, 404) and not previous:
                return []
            if error.status not in (400, 404):
                raise
            found = []
        if found or not previous:
            return found
        try:
            return await self._client.log(pod["metadata"]["name"], tail=lines, previous=True)
        except RequestFailed:
            return []

    def results(self, name: str) -> dict[str, bytes]:
        """What the runner printed, by path. Raises PlatformError if something of it is missing or damaged."""
        entry = self._entries.get(name)
        if entry is None or not entry.lines:
            raise PlatformError(f"job {name} has no log")
        return results_from_log("\n".join(entry.lines))


def _is_worker(pod: Json) -> bool:
    return (pod["metadata"].get("labels") or {}).get(KIND) == WORKER


def _telling(pods: list[Json]) -> Json | None:
    """The pod that tells most of an endpoint: of a group the first with which something is wrong, else the leader."""
    here = [pod for pod in pods if not states.is_leaving(pod)]
    ordered = sorted(here, key=_is_worker)
    troubled = (pod for pod in ordered if len(here) > 1 and states.of_pod(pod).detail)
    leaders = [pod for pod in pods if not _is_worker(pod)]
    return next(troubled, None) or states.newest(leaders or pods)


def owner_of(server: Json) -> Json:
    """A Deployment or a LeaderWorkerSet as the owner of what goes with it. Items of a list do not tell their kind."""
    api, kind = (LEADER_API, "LeaderWorkerSet") if _GROUP in server["spec"] else ("apps/v1", "Deployment")
    return {"apiVersion": api, "kind": kind, "name": server["metadata"]["name"], "uid": server["metadata"]["uid"]}


def _template(server: Json) -> Json:
    """The pod that answers requests."""
    spec = server["spec"]
    found: Json = spec[_GROUP]["leaderTemplate"] if _GROUP in spec else spec["template"]
    return found


def _restarts(pod: Json) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any(status.get("restartCount", 0) for status in statuses)


def _has_ended(job: Json) -> bool:
    return states.condition(job, "Complete") is not None or states.condition(job, "Failed") is not None


def _runs(pod: Json | None) -> bool:
    return pod is not None and (pod.get("status") or {}).get("phase") in ("Running", "Succeeded", "Failed")


def _progress_of(pods: list[Json]) -> str:
    """How far a pod is that nothing is wrong with."""
    pod = states.newest(pods)
    if pod is None:
        return "waits for a pod"
    phase = (pod.get("status") or {}).get("phase", "Pending")
    if phase == "Running":
        return "the container runs and is not ready yet"
    return "the image is pulled, the container made" if pod["spec"].get("nodeName") else "waits for a node"


def _is_whole(lines: list[str]) -> bool:
    try:
        results_from_log("\n".join(lines))
    except PlatformError:
        return False
    return True


def _now() -> float:
    return asyncio.get_running_loop().time()


def age(thing: Json) -> float | None:
    """Seconds since its creation by this machine's clock."""
    from datetime import datetime

    stamp = thing["metadata"].get("creationTimestamp")
    if not stamp:
        return None
    return max(0.0, time.time() - datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp())
