"""What every platform offers to the orchestrator. A contract suite runs all of them through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan


class CheckState(StrEnum):
    """How one preflight check ended."""

    OK = "ok"
    NOTE = "note"
    """Nothing is wrong, and the person should see what was found."""
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One preflight check: what was looked at, how it ended, and one line that says what to do."""

    name: str
    state: CheckState
    message: str = ""


class ResourceState(StrEnum):
    """State of an endpoint or a job as its platform tells it."""

    PENDING = "pending"
    """Accepted, not running yet."""
    RUNNING = "running"
    """Its process or container runs; says nothing about answering."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    GONE = "gone"
    """The platform has confirmed that it does not exist (any more)."""
    UNKNOWN = "unknown"
    """The platform could not be asked."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the runner last said. `phase`: waiting, probing, evaluating, verifying, ended."""

    phase: str
    detail: str = ""
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunnerEnd:
    """How the runner ended: `reason` is a Reason's value, `detail` one line, `data` further facts."""

    reason: str
    detail: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One endpoint or job as observed."""

    name: str
    state: ResourceState
    id: str = ""
    url: str | None = None
    """Base URL without /v1; endpoints only, once the platform has given it."""
    exit_code: int | None = None
    detail: str = ""
    """Why it is in this state, in one line, where the platform says so."""
    fatal: bool = False
    """The platform says that this endpoint can never start."""
    progress: Progress | None = None
    end: RunnerEnd | None = None
    accelerators: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of everything of one invocation at one moment. A name that is missing was never created or is gone."""

    endpoints: dict[str, Resource] = field(default_factory=dict)
    jobs: dict[str, Resource] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What endpoints may use at once; None: the platform does not say, so nothing is queued for it."""

    gpus: int | None = None
    cpus: float | None = None
    memory_gib: float | None = None


@dataclass(frozen=True)
class LogLine:
    """One line of output; `time` in seconds since 1970 where the platform stamps lines."""

    text: str
    time: float | None = None


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something in the account that carries our mark. `age` in seconds, `usd_per_hour` where priced."""

    kind: Literal["endpoint", "job", "storage"]
    name: str
    invocation: str
    id: str = ""
    age: float | None = None
    usd_per_hour: float | None = None


class Platform(Protocol):
    """One place that runs things. All calls but `logs` are coroutines; errors are PlatformError."""

    name: str
    create_grace: float
    """Seconds in which something may still appear whose creation was asked for but not confirmed."""
    close_ends_all: bool
    """Whether `close` ends everything of the invocation and waits for it, as on this machine."""

    @property
    def poll_interval(self) -> float:
        """Seconds between two observations that suit this platform now."""
        ...

    async def preflight(self, plan: Plan) -> list[Check]:
        """Reads, never writes: everything that would keep the plan from running, all at once."""
        ...

    async def open(self, plan: Plan, folder: Path) -> Capacity:
        """Prepare for one invocation whose results go to `folder` on this machine; says what endpoints may use."""
        ...

    async def create_endpoint(self, task: TaskPlan, spec: EndpointPlan) -> Resource:
        """Idempotent by name: an endpoint of this invocation that exists is returned, not made twice."""
        ...

    async def submit_job(self, task: TaskPlan, spec: JobPlan, url: str) -> Resource:
        """Idempotent by name. `url` is the base URL of the endpoint, without /v1."""
        ...

    async def observe(self) -> Observation:
        """The state of everything of this invocation, in a number of requests that does not grow with it."""
        ...

    async def delete_endpoint(self, name: str) -> None:
        """Ask for deletion; `observe` tells when it is true. A name that does not exist is no error."""
        ...

    async def cancel_job(self, name: str) -> None:
        """Ask for the end; `observe` tells when it is true. A name that does not exist is no error."""
        ...

    def logs(self, name: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Lines of one endpoint or job in the order it wrote them, from its first; with `follow` until it has ended."""
        ...

    async def tail(self, name: str, lines: int) -> list[str]:
        """The last lines of one endpoint's or job's output, with secrets removed; empty where there is none."""
        ...

    async def fetch(self, task: TaskPlan, folder: Path) -> None:
        """Bring a job's results into `folder`: all of them, or PlatformError."""
        ...

    async def sweep(self) -> list[Leftover]:
        """Everything that carries our mark, of any invocation."""
        ...

    async def close(self, *, at_once: bool = False) -> None:
        """Let go of connections and folders; with `close_ends_all` also end what is alive of this invocation.

        `at_once`: without the time that servers are given to end by themselves.

        Raises errors.Leftover if something refuses to end.
        """
        ...
