"""Kubernetes as a platform: the verbs of launcher/platforms/base.py for one invocation."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import copy
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from launcher.config.execution import Kubernetes
from launcher.errors import NotFound, PlatformError
from launcher.plan.kubernetes import FOLDER, JOB_SCRIPT, KIND, NAME, route, spans_nodes
from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan
from launcher.platforms import home
from launcher.platforms.background import Background
from launcher.platforms.base import Capacity, Check, Leftover, LogLine, Observation, Resource
from launcher.platforms.http import RequestFailed, RetryPolicy, patience
from launcher.platforms.jobscript import ARCHIVE, script
from launcher.platforms.kept import KeptLogs
from launcher.platforms.kubernetes import anchor, preflight, states, sweeping
from launcher.platforms.kubernetes.anchor import Anchor, Json
from launcher.platforms.kubernetes.client import Access, KubeClient, access, host_of
from launcher.platforms.kubernetes.forwarding import Forward
from launcher.platforms.kubernetes.things import Things, owner_of
from launcher.platforms.secrets import Secrets

EVIDENCE_LINES = 1000
SERVER_LOGS = 25
"""Most tasks of a plan whose server logs are kept though all went well: each is one more request."""
SERVER_LOG_TIME = 5.0
FETCH_TIME = 120.0
"""Seconds that the helper pod may take that reads results from the volume."""
RENEW = 600.0
"""Seconds between two moves of the expiry."""
ANCHOR_TIME = 10.0
"""Seconds in which a run that is over gets its anchor removed."""
POLL = 0.2


@dataclass(frozen=True, kw_only=True)
class Session:
    """One opened invocation."""

    plan: Plan
    secrets: Secrets
    anchor: Anchor
    things: Things
    logs: KeptLogs


class KubernetesPlatform:
    """Runs endpoints and jobs in one namespace."""

    name = "kubernetes"
    create_grace = 10.0
    close_ends_all = close_ends_jobs = False
    poll_interval = POLL

    def __init__(
        self, execution: Kubernetes, *, found: Access | None = None, policy: RetryPolicy | None = None
    ) -> None:
        """Prepare the platform; nothing is sent yet. Raises PreflightError without a cluster."""
        self._execution = execution
        self._access = found or access(execution)
        self._client = KubeClient(self._access, policy)
        self._session: Session | None = None
        self._background = Background()
        self._renewed = 0.0
        self._forwards: dict[str, Forward] = {}
        self._addresses: dict[str, str] = {}

    @property
    def place(self) -> str:
        """Address of the cluster, and the namespace."""
        return f"namespace {self._access.namespace} of {host_of(self._access.host)}"

    async def identify(self) -> None:
        """Nothing: the kubeconfig names the cluster."""

    @property
    def requests(self) -> int:
        """Requests sent so far, watches included."""
        watches = self._session.things.watches if self._session is not None else ()
        return self._client.requests + sum(watch.requests for watch in watches)

    async def preflight(self, plan: Plan) -> list[Check]:
        """Reads, never writes: everything that would keep the plan from running, all at once.

        Raises PlatformError if the cluster cannot be asked.
        """
        return await preflight.check(self._client, self._execution, plan, os.environ)

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        """Make the anchor and begin to watch. The cluster queues what does not fit, so the capacity is not limited."""
        secrets = Secrets()
        made = await anchor.make(self._client, plan, time.time(), secrets)
        preflight.remember(plan, secrets, os.environ)
        sets = any(map(spans_nodes, plan.endpoints))
        things = Things(self._client, plan.invocation, asyncio.get_running_loop().time(), secrets.redact, sets=sets)
        self._session = Session(plan=plan, secrets=secrets, anchor=made, things=things, logs=KeptLogs(plan, folder))
        self._renewed = asyncio.get_running_loop().time()
        things.start()
        return Capacity()

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:  # noqa: ARG002  the request has all
        """Idempotent by name. Raises PlatformError if the cluster refuses or cannot say whether it exists."""
        session = self._opened()
        assert spec.request is not None
        deployment, service = spec.request["items"]
        watch = session.things.sets if spans_nodes(spec) else session.things.deployments
        assert watch is not None
        made = await session.things.create(watch, session.anchor.owned(deployment))
        await session.things.serve(made, session.anchor.owned(service))
        if session.plan.expires is not None:
            await self._open_to_people(session, spec, owner_of(made))
        return self._reachable(session.things.endpoint(spec.name))

    async def _open_to_people(self, session: Session, spec: EndpointPlan, owner: Json) -> None:
        """Have an endpoint that a person made to use where that person reaches it."""
        if preflight.is_forwarded(self._execution, self._access):
            self._forward(session.things, spec)
        elif self._execution.access.by == "gateway":
            manifest, url = route(self._execution, spec, session.plan.invocation)
            owned = session.anchor.owned(manifest)
            owned["metadata"]["ownerReferences"] = [owner]
            await session.things.serve_by(owned)
            self._addresses[spec.name] = url

    def _forward(self, things: Things, spec: EndpointPlan) -> None:
        """Have an endpoint that a person made to use at a port of this machine."""
        pod = partial(things.ready_pod, spec.name)
        forward = Forward(self._access, pod, spec.server.port, self._execution.access.port)
        self._forwards.setdefault(spec.name, forward)

    def _reachable(self, endpoint: Resource) -> Resource:
        """An endpoint with the address by which it is reached; none while nobody listens there."""
        if endpoint.name not in self._forwards and endpoint.name not in self._addresses:
            return endpoint
        return replace(endpoint, url=self._addresses.get(endpoint.name) if endpoint.url else None)

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """Idempotent by name. Raises PlatformError if the cluster refuses or cannot say whether it exists."""
        session = self._opened()
        assert spec.request is not None
        folder = FOLDER if self._execution.storage.claim is not None else None
        text = script(session.plan.invocation, task, url=url, folder=folder)
        manifest = session.anchor.owned(spec.request)
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        container["command"] = [text if word == JOB_SCRIPT else word for word in container["command"]]
        session.things.note_job(spec.name)
        await session.things.create(session.things.jobs, manifest)
        return session.things.job(spec.name)

    async def observe(self) -> Observation:
        """The state of everything, from three watches; raises PlatformError while one of them is not up to date."""
        session = self._opened()
        self._background.check()
        await session.things.refresh()
        now = asyncio.get_running_loop().time()
        if now - self._renewed > RENEW:
            self._renewed = now
            self._background.start(self._renew(session.plan))
        endpoints, jobs = session.things.resources()
        for name, forward in self._forwards.items():
            if name in endpoints and endpoints[name].url and name not in self._addresses:
                self._addresses[name] = await forward.open()
        return Observation(endpoints={n: self._reachable(e) for n, e in endpoints.items()}, jobs=jobs)

    async def _renew(self, plan: Plan) -> None:
        with contextlib.suppress(PlatformError):  # what is wrong will be seen where it matters
            await anchor.renew(self._client, plan, time.time())

    async def delete_endpoint(self, name: str) -> None:
        """Ask for deletion; `observe` says GONE when it and its pods are."""
        for watch in self._opened().things.serving:
            await self._delete(watch.items, watch.plural, name)

    async def cancel_job(self, name: str) -> None:
        """Ask for deletion; `observe` says GONE when it and its pod are."""
        await self._delete(self._opened().things.jobs.items, "jobs", name)

    async def _delete(self, known: dict[str, Json], plural: str, name: str) -> None:
        found = known.get(name)
        if found is None or not states.is_leaving(found):
            await self._client.delete(plural, name)

    # --- logs ---------------------------------------------------------------------------------------------------------

    def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Lines with time stamps, of the container that runs or ran last. Raises NotFound for an unknown name."""
        if not self._opened().things.known(name):
            raise NotFound(f"no endpoint or job {name} in this invocation")
        return self._lines(name, follow=follow)

    async def _lines(self, name: str, *, follow: bool) -> AsyncIterator[LogLine]:
        session = self._opened()
        while True:
            pod = states.newest(session.things.pods_of(name))
            if pod is not None and (pod.get("status") or {}).get("phase") != "Pending":
                break
            if not follow or session.things.is_over(name):
                return
            await asyncio.sleep(POLL)
        pod_name = pod["metadata"]["name"]
        if follow:
            async for line in self._client.follow(pod_name):
                yield _stamped(session.secrets.redact(line))
            return
        for line in await self._client.log(pod_name, stamps=True):
            yield _stamped(session.secrets.redact(line))

    async def tail(self, name: str, lines: int) -> list[str]:
        """The last lines of one endpoint's or job's output, without secrets; empty where there is none."""
        session = self._opened()
        try:
            found = await session.things.last_lines(name, max(lines, EVIDENCE_LINES))
        except RequestFailed as error:
            return [f"(its log could not be read: {error})"]
        session.logs.keep(name, found)
        return found[-lines:]

    async def _keep_server_log(self, task: TaskPlan) -> None:
        if task.endpoint is None or len(self._opened().plan.tasks) > SERVER_LOGS:
            return
        with contextlib.suppress(TimeoutError, OSError), patience(SERVER_LOG_TIME):
            async with asyncio.timeout(SERVER_LOG_TIME):
                await self.tail(task.endpoint.name, EVIDENCE_LINES)

    # --- results ------------------------------------------------------------------------------------------------------

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        """Bring a job's results into `folder`: all of them, or PlatformError."""
        session = self._opened()
        things, name = session.things, task.job.name
        if things.known(name):
            session.logs.keep(name, await things.last_lines(name, 10**9))
        found = await self._results(task)
        home.write(found, folder)
        session.secrets.scrub(folder)
        await self._keep_server_log(task)

    async def _results(self, task: TaskPlan) -> dict[str, bytes]:
        things, name, wanted = self._opened().things, task.job.name, task.job.run.results
        why = "it was never submitted"
        if things.known(name):
            try:
                found = things.results(name)
                end = things.job(name).end
                lacking = home.missing(wanted, found)
                if not lacking and not (end and end.data.get("not_printed")):
                    return found
                why = f"no file matches {', '.join(lacking) or 'what the job left out'} in its log"
            except PlatformError as error:
                why = str(error)
        if self._execution.storage.claim is None or not things.known(name):
            raise PlatformError(f"no file matches {', '.join(wanted)} from job {name}: {why}")
        stored = await self._stored(task)
        if lacking := home.missing(wanted, stored):
            raise PlatformError(f"no file matches {', '.join(lacking)} on the volume; its log: {why}")
        return stored

    async def _stored(self, task: TaskPlan) -> dict[str, bytes]:
        """Everything a job wrote, by a short-lived pod that mounts its folder and prints the archive."""
        session = self._opened()
        pod = helper(task)
        name = pod["metadata"]["name"]
        await self._client.delete("pods", name)
        await self._client.create("pods", session.anchor.owned(pod))
        try:
            text = await self._printed(name)
        finally:
            await self._client.delete("pods", name)
        try:
            archive = base64.b64decode("".join(text), validate=True)
        except binascii.Error as error:
            raise PlatformError(f"the results on the volume cannot be read: {error}") from error
        return await asyncio.to_thread(home.unpack, archive)

    async def _printed(self, pod: str) -> list[str]:
        try:
            async with asyncio.timeout(FETCH_TIME):
                while True:
                    found = await self._client.get("pods", pod)
                    phase = (found or {}).get("status", {}).get("phase")
                    if phase == "Succeeded":
                        return await self._client.log(pod)
                    if phase == "Failed" or found is None:
                        said = await self._client.log(pod, tail=3) if found else []
                        raise PlatformError(f"the results on the volume cannot be read: {' '.join(said)}")
                    await asyncio.sleep(1.0)
        except TimeoutError:
            raise PlatformError(f"pod {pod}, which reads results, did not end in {FETCH_TIME:.0f} s") from None

    # --- the namespace ------------------------------------------------------------------------------------------------

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        """Everything of ours in the namespace; an anchor only where it has nothing left to own."""
        return await sweeping.sweep(self._client, invocation)

    async def remove(self, leftover: Leftover) -> None:
        """Ask for its removal, and for that of its anchor with the last thing."""
        await sweeping.remove(self._client, leftover)

    async def unseen(self) -> list[str]:
        """The volume of results, where there is one: nothing but a pod can look into it."""
        config = self._execution.storage
        if config.claim is None:
            return []
        return [f"storage: results stay in {config.folder}/ID on claim {config.claim}, where a pod can remove them"]

    async def close(self, *, at_once: bool = False) -> None:
        """Let go of the watches; the anchor goes if nothing is left that it owns."""
        session, self._session = self._session, None
        await asyncio.gather(*(forward.close() for forward in self._forwards.values()))
        if session is not None:
            await session.things.close()
            if not at_once:
                await self._remove_anchor(session.plan.invocation)
        await self._background.close()
        await self._client.close()

    async def _remove_anchor(self, invocation: str) -> None:
        """Ask until it is heard: the Secret with the run's tokens goes with it."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + ANCHOR_TIME
        while clock.time() < deadline:
            with contextlib.suppress(RequestFailed), patience(ANCHOR_TIME):
                await sweeping.remove_anchor(self._client, invocation)
                return
            await asyncio.sleep(POLL)

    def _opened(self) -> Session:
        if self._session is None:
            raise PlatformError("the kubernetes platform was used before open() or after close()")
        return self._session


def helper(task: TaskPlan) -> Json:
    """The pod that prints what a job kept on its volume."""
    assert task.job.request is not None
    template = copy.deepcopy(task.job.request["spec"]["template"])
    (container,) = template["spec"]["containers"]
    container.pop("env", None)
    container["command"] = ["/bin/sh", "-c", f"base64 {FOLDER}/{ARCHIVE}"]
    name = f"fetch-{task.job.name}"
    labels = {**template["metadata"]["labels"], NAME: name, KIND: "fetch"}
    spec = {**template["spec"], "activeDeadlineSeconds": int(FETCH_TIME)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def _stamped(line: str) -> LogLine:
    stamp, _, text = line.partition(" ")
    try:
        when = datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00").timestamp()
    except ValueError:
        return LogLine(line)
    return LogLine(text, when)
