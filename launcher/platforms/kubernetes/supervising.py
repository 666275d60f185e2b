"""The supervisor of an invocation as a Job of the cluster: what is sent, what it tells, what it has brought.

It tells by a ConfigMap, `nv-eval-ID-status`, that it applies whenever something has changed: `state` (running, ended),
`exit_code`, `error`, and what its journal says. Who wants it to stop says so by an annotation there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import gzip
import hashlib
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from launcher.config.execution import Kubernetes
from launcher.config.fields import Reference
from launcher.decoding import decode
from launcher.errors import PlatformError, PreflightError
from launcher.plan.kubernetes import (
    INVOCATION,
    KIND,
    MANAGED_BY,
    MARK,
    NAME,
    STATE,
    anchor_name,
    reader,
    supervisor,
    supervisor_env,
    supervisor_name,
)
from launcher.plan.model import Plan
from launcher.platforms import home
from launcher.platforms.creation import create_once
from launcher.platforms.http import RequestFailed, patience
from launcher.platforms.kubernetes import anchor, states
from launcher.platforms.kubernetes.anchor import Anchor, Json
from launcher.platforms.kubernetes.client import KubeClient, access, host_of
from launcher.platforms.kubernetes.rbac import RUNS_AS
from launcher.platforms.secrets import Secrets, references

STOP = "nv-eval/stop"
"""Annotation of the status: somebody wants it to end."""
ARCHIVE = "home.zip"
"""What it has brought, in its folder of the volume."""
PIECE = 4 * 2**20
"""Bytes that a pod prints of it: the kubelet keeps 10 MiB of a log."""
MOST_BYTES = 900_000
"""The API server takes no ConfigMap of more than 1 MiB."""
PAUSE = 0.3
READ_TIME = 180.0
"""Seconds that a pod may take that reads from the volume."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the cluster says of a supervisor. `job`: pending, running, ended, dead, or gone."""

    job: str
    detail: str = ""
    """Why it does not run, where it does not."""
    fatal: bool = False
    """Waiting will not help."""
    said: dict[str, str] = field(default_factory=dict)
    """What it tells of itself."""
    facts: bytes | None = None
    """What its journal says."""

    @property
    def has_ended(self) -> bool:
        """Whether it has told how the run ended."""
        return self.said.get("state") == "ended"


def refuse(plan: Plan) -> None:
    """Raises PreflightError for a plan that no supervisor in the cluster can run."""
    config = plan.execution_config()
    if not isinstance(config, Kubernetes):
        raise PreflightError(f"--detach=cluster: execution is {plan.execution}; it is for kubernetes alone")
    if config.storage.claim is None:
        raise PreflightError(
            "--detach=cluster: the supervisor keeps its journal and the results on a volume; "
            "set execution.storage.claim"
        )


def shipped(plan: Plan, namespace: str) -> Plan:
    """The plan as the supervisor gets it, which finds the cluster by its service account."""
    execution = {**plan.config["execution"], "kubeconfig": None, "context": None, "namespace": namespace}
    return replace(plan, config={**plan.config, "execution": execution})


def plan_name(invocation: str) -> str:
    """Name of the ConfigMap with the plan."""
    return f"{anchor_name(invocation)}-plan"


def status_name(invocation: str) -> str:
    """Name of the ConfigMap with what the supervisor tells."""
    return f"{anchor_name(invocation)}-status"


@dataclass(kw_only=True)
class Supervised:
    """The supervisor of one invocation, seen from outside or from its pod."""

    config: Kubernetes
    invocation: str
    client: KubeClient

    @property
    def place(self) -> str:
        """Address of the cluster, and the namespace, as the platform calls its place."""
        return f"namespace {self.client.access.namespace} of {host_of(self.client.access.host)}"

    # --- beginning ----------------------------------------------------------------------------------------------------

    async def check(self) -> list[str]:
        """What would keep it from running, as far as this user may look; a line each."""
        name = self.config.supervisor.service_account or "default"
        try:
            found = await self.client.get("serviceaccounts", name)
        except RequestFailed:
            return []
        where = self.client.access.namespace
        if found is not None:
            return []
        makes_it = name == RUNS_AS
        advice = f"make it: nv-eval gc --manifest {where} | kubectl apply -f -" if makes_it else "make it first"
        return [f"Kubernetes: execution.supervisor.service_account: there is no {name} in {where}; {advice}"]

    async def start(self, plan: Plan, *, life: str, yes: bool) -> None:
        """Send the plan and the Job; what an earlier one has left is replaced. Raises PlatformError."""
        content = gzip.compress(msgspec.json.encode(shipped(plan, self.client.access.namespace)), mtime=0)
        if len(content) > MOST_BYTES:
            raise PlatformError(f"the plan takes {len(content) // 1024} KiB packed, and a ConfigMap holds 1024")
        secrets = [*references(plan), *self._own_references()]
        made = await anchor.make(self.client, plan, time.time(), Secrets(), also=secrets)
        for plural, name in (("jobs", supervisor_name(self.invocation)), *self._papers()):
            await self._gone(plural, name)
        named = {one.env: one for one in secrets if one.env is not None}
        job = supervisor(self.config, self.invocation, named.values(), life=life, yes=yes)
        data = {"plan": base64.b64encode(content).decode()}
        await self._create("configmaps", made.owned(self._paper(plan_name(self.invocation), binaryData=data)))
        await self._create("configmaps", made.owned(self._paper(status_name(self.invocation))))
        await self._create("jobs", made.owned(job))

    def _own_references(self) -> list[Reference]:
        return [value for value in supervisor_env(self.config).values() if isinstance(value, Reference)]

    def _papers(self) -> tuple[tuple[str, str], ...]:
        return tuple(("configmaps", make(self.invocation)) for make in (plan_name, status_name))

    async def _gone(self, plural: str, name: str) -> None:
        """Delete something, and wait until it is gone."""
        with patience(60.0):
            await self.client.delete(plural, name)
            while await self.client.get(plural, name) is not None:  # noqa: ASYNC110  the cluster is what changes
                await asyncio.sleep(PAUSE)

    def _paper(self, name: str, **content: Json) -> Json:
        labels = {MANAGED_BY: MARK, INVOCATION: self.invocation, KIND: "paper"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, **content}

    async def _create(self, plural: str, manifest: Json) -> None:
        name = manifest["metadata"]["name"]
        await create_once(
            lambda: self.client.create(plural, manifest),
            lambda: self.client.get(plural, name),
            describe=f"Kubernetes: {plural.removesuffix('s')} {name}",
            is_ours=lambda found: (found["metadata"].get("labels") or {}).get(INVOCATION) == self.invocation,
            is_leaving=states.is_leaving,
        )

    # --- watching -----------------------------------------------------------------------------------------------------

    async def look(self) -> Seen:
        """What there is. Raises PlatformError if the cluster cannot be asked."""
        paper, job = await asyncio.gather(
            self.client.get("configmaps", status_name(self.invocation)),
            self.client.get("jobs", supervisor_name(self.invocation)),
        )
        said = dict((paper or {}).get("data") or {})
        packed = ((paper or {}).get("binaryData") or {}).get("facts")
        facts = base64.b64decode(packed) if packed else None
        seen = Seen(job="gone", said=said, facts=facts)
        if job is None or states.is_leaving(job):
            return seen
        if states.condition(job, "Complete") is not None:
            return replace(seen, job="ended")
        pods = await self.client.every("pods", labels=f"{NAME}={supervisor_name(self.invocation)}")
        pod = states.newest(pods)
        detail, is_fatal = ("waits for a pod", False) if pod is None else await self._of_pod(pod)
        if pod is None:
            detail = await self._refusal(job) or detail
        if (failed := states.condition(job, "Failed")) is not None:
            return replace(seen, job="dead", detail=detail or str(failed.get("message", "")), fatal=True)
        runs = pod is not None and (pod.get("status") or {}).get("phase") == "Running"
        return replace(seen, job="running" if runs else "pending", detail=detail, fatal=is_fatal)

    async def _of_pod(self, pod: Json) -> tuple[str, bool]:
        found = states.of_pod(pod)
        if found.crashed:
            with contextlib.suppress(RequestFailed):
                found = states.with_last_line(found, await self.client.log(pod["metadata"]["name"], tail=20))
        return found.detail.replace("the job", "the supervisor", 1), found.fatal

    async def _refusal(self, job: Json) -> str:
        """Why the Job gets no pod."""
        with contextlib.suppress(RequestFailed):
            fields = f"involvedObject.uid={job['metadata']['uid']},reason=FailedCreate"
            events = await self.client.every("events", fields=fields)
            if events:
                return f"its pod is refused: {states.one_line(str(events[-1].get('message', '')))}"
        return ""

    async def logs(self, names: Collection[str]) -> dict[str, str]:
        """What endpoints and jobs of these names have printed, without secrets, as far as their pods exist."""
        secrets = Secrets()
        kept = await self.client.get("secrets", anchor_name(self.invocation))
        for value in ((kept or {}).get("data") or {}).values():
            secrets.remember(base64.b64decode(value).decode(errors="replace"))
        pods: dict[str, list[Json]] = {}
        for pod in await self.client.every("pods", labels=f"{INVOCATION}={self.invocation},{KIND} in (endpoint,job)"):
            pods.setdefault(pod["metadata"]["labels"].get(NAME, ""), []).append(pod)
        found = {}
        for name in names:
            newest = states.newest(pods.get(name, ()))
            if newest is not None and (newest.get("status") or {}).get("phase") != "Pending":
                with contextlib.suppress(RequestFailed):  # it has just gone
                    lines = await self.client.log(newest["metadata"]["name"])
                    found[name] = "".join(f"{secrets.redact(line)}\n" for line in lines)
        return found

    async def ask_to_stop(self) -> None:
        """Say that it is to end. Raises PlatformError."""
        paper = self._paper(status_name(self.invocation))
        paper["metadata"]["annotations"] = {STOP: str(round(time.time()))}
        await self.client.apply("configmaps", paper, manager="nv-eval-stop")

    async def remove(self) -> None:
        """Delete everything of the invocation, by its anchor."""
        await self.client.delete("configmaps", anchor_name(self.invocation), foreground=False)

    # --- what it has brought ------------------------------------------------------------------------------------------

    async def bring(self) -> dict[str, bytes] | None:
        """Files that it has left on the volume, by path; None if there are none. Raises PlatformError."""
        parts: list[bytes] = []
        while True:
            size, digest, part = await self._piece(len(parts))
            if size is None:
                return None
            parts.append(part)
            if (had := sum(map(len, parts))) >= size:
                break
            if not part:
                raise PlatformError(f"Kubernetes: the volume gave {had} of {size} bytes")
        archive = b"".join(parts)
        if hashlib.sha256(archive).hexdigest() != digest:
            raise PlatformError("Kubernetes: what came from the volume is damaged; try again")
        return await asyncio.to_thread(home.unpack, archive)

    async def _piece(self, number: int) -> tuple[int | None, str, bytes]:
        path = f"{STATE}/{ARCHIVE}"
        command = (
            f'test -f {path} || {{ echo none; exit 0; }}; wc -c < {path}; sha256sum < {path} | cut -d " " -f 1; '
            f"tail -c +{number * PIECE + 1} {path} | head -c {PIECE} | base64"
        )
        pod = reader(self.config, self.invocation, command, number)
        size, *rest = await self._printed(pod)
        if size.strip() == "none":
            return None, "", b""
        try:
            return int(size), rest[0].strip(), base64.b64decode("".join(rest[1:]), validate=True)
        except (ValueError, IndexError, binascii.Error) as error:
            raise PlatformError(f"Kubernetes: the results on the volume cannot be read: {error}") from error

    async def _printed(self, pod: Json) -> list[str]:
        """What a pod prints that lives for a moment."""
        name = pod["metadata"]["name"]
        await self._gone("pods", name)
        held = await self.client.get("configmaps", anchor_name(self.invocation))
        if held is not None:
            uid = held["metadata"]["uid"]
            pod["metadata"]["ownerReferences"] = [
                Anchor(name=anchor_name(self.invocation), uid=uid, owner="").reference()
            ]
        await self.client.create("pods", pod)
        try:
            async with asyncio.timeout(READ_TIME):
                while True:
                    found: Any = await self.client.get("pods", name)
                    phase = ((found or {}).get("status") or {}).get("phase")
                    if phase == "Succeeded":
                        return await self.client.log(name) or ["none"]
                    if phase == "Failed" or found is None:
                        said = await self.client.log(name, tail=3) if found else []
                        raise PlatformError(f"Kubernetes: the volume cannot be read: {' '.join(said)}")
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            raise PlatformError(
                f"Kubernetes: pod {name}, which reads results, did not end in {READ_TIME:.0f} s"
            ) from None
        finally:
            with contextlib.suppress(RequestFailed):
                await self.client.delete("pods", name)

    # --- in the pod ---------------------------------------------------------------------------------------------------

    async def plan(self) -> Plan:
        """The plan that was sent. Raises PlatformError."""
        found = await self.client.get("configmaps", plan_name(self.invocation))
        packed = ((found or {}).get("binaryData") or {}).get("plan")
        if packed is None:
            raise PlatformError(f"Kubernetes: there is no {plan_name(self.invocation)}: the run was removed")
        try:
            return decode(gzip.decompress(base64.b64decode(packed)), Plan)
        except (OSError, EOFError, ValueError) as error:
            raise PlatformError(f"Kubernetes: {plan_name(self.invocation)} is damaged: {error}") from error

    async def tell(self, said: dict[str, str], facts: bytes | None) -> bool:
        """Say how it is; returns whether somebody wants it to end. Raises PlatformError."""
        found = await self.client.get("configmaps", anchor_name(self.invocation))
        if found is None:
            raise PlatformError(f"Kubernetes: {anchor_name(self.invocation)} was deleted: everything goes with it")
        owner = Anchor(name=found["metadata"]["name"], uid=found["metadata"]["uid"], owner=anchor.who())
        content: Json = {"data": said}
        if facts is not None and len(facts) <= MOST_BYTES * 3 // 4:
            content["binaryData"] = {"facts": base64.b64encode(facts).decode()}
        paper = owner.owned(self._paper(status_name(self.invocation), **content))
        told = await self.client.apply("configmaps", paper, manager="nv-eval-supervisor")
        return STOP in (told["metadata"].get("annotations") or {})

    async def is_to_stop(self) -> bool:
        """Whether somebody wants it to end. Raises PlatformError."""
        found = await self.client.get("configmaps", status_name(self.invocation))
        return STOP in (((found or {}).get("metadata") or {}).get("annotations") or {})


@asynccontextmanager
async def opened(config: Kubernetes, invocation: str) -> AsyncIterator[Supervised]:
    """The supervisor of an invocation. Raises PreflightError without a cluster, PlatformError for what it refuses."""
    client = KubeClient(access(config))
    try:
        yield Supervised(config=config, invocation=invocation, client=client)
    finally:
        await client.close()
