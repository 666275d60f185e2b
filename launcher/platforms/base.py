"""What every platform offers to the orchestrator. A contract suite runs all of them through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from launcher.plan.model import EndpointPlan, JobPlan, Plan, TaskPlan


class CheckState(StrEnum):
    """How one preflight check ended."""

    OK = "ok"
    NOTE = "note"
    """Nothing is wrong, and the person should see what was found."""
    PROBLEM = "problem"
    SKIPPED = "skipped"


BUDGET = "budget"
"""Name of checks of what a plan may cost: a person may run it all the same."""

QUOTA = "quota"
"""Name of checks of what is left of a quota: runs of one sweep use it together, and wait for each other."""


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
    model: str | None = None
    """Name that requests to it give as model, where the plan could not know it."""
    usd: float | None = None
    """What it has cost so far by the platform's own meter; kept in what is told of it when it is gone."""
    ran: float | None = None
    """Seconds for which it has had its place so far, waiting left out, where the platform itself counts them."""
    exit_code: int | None = None
    detail: str = ""
    """Why it is in this state, in one line, where the platform says so."""
    fatal: bool = False
    """The platform says that this endpoint can never start."""
    preempted: bool = False
    """It ended because the platform gave its place to something else."""
    progress: Progress | None = None
    end: RunnerEnd | None = None
    accelerators: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The state of everything of one invocation at one moment. A name that is missing was never created or is gone."""

    endpoints: dict[str, Resource] = field(default_factory=dict)
    jobs: dict[str, Resource] = field(default_factory=dict)
    endpoints_unknown: str = ""
    """Why endpoints could not be asked for while jobs could: then that one is missing says nothing."""


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
    """Something that carries our mark. Times are seconds; what the platform does not tell is None or empty."""

    kind: Literal["endpoint", "job", "network", "storage"]
    name: str
    invocation: str
    id: str = ""
    """How `remove` finds it."""
    state: ResourceState = ResourceState.UNKNOWN
    said: str = ""
    """Its state in the platform's own word."""
    age: float | None = None
    expires_in: float | None = None
    """Time until the platform ends it by itself, as it stands now; with `expiry_is_ours`, until gc may."""
    expiry_is_ours: bool = False
    """It carries its expiry, and nothing but gc ends it then: until then it is wanted, whoever made it."""
    usd_per_hour: float | None = None
    """What it costs now; 0 where it stands still."""
    usd: float | None = None
    """What it has cost so far, where the platform has a meter."""
    owner: str = ""
    """Whose it is, in the platform's words."""
    launcher_alive: bool | None = None
    """Whether the launcher that made it runs on this machine; None where nothing says which that is."""
    launcher: str = ""
    """Which process that is, where the platform knows."""
    is_record: bool = False
    """Only the memory of something that has ended: it costs nothing, cannot run again, and may never vanish."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What a platform counts of one endpoint over a time; None: it does not count it."""

    requests: int | None = None
    errors: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: float | None = None
    """Mean time of a request."""
    latency_p95_ms: float | None = None
    first_token_ms: float | None = None
    """Mean time to the first token."""
    usd: float | None = None
    """What it has cost in all."""


class Platform(Protocol):
    """One place that runs things. All calls but `logs` are coroutines; errors are PlatformError."""

    name: str
    create_grace: float
    """Seconds in which something may still appear whose creation was asked for but not confirmed."""
    close_ends_all: bool
    """Whether `close` ends everything of the invocation and waits for it, as on this machine."""
    close_ends_jobs: bool
    """The same of jobs: they also end with a launcher that is killed."""

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

    async def sweep(self, invocation: str = "") -> list[Leftover]:
        """Everything that carries our mark, of all invocations whose id begins with `invocation`.

        Like the two below it needs no `open`: the keys of `execution` and the credentials suffice, on any machine.
        """
        ...

    async def remove(self, leftover: Leftover) -> None:
        """Ask for the removal of what `sweep` showed; only a later `sweep` tells that it is gone.

        Asking again, or for something that does not exist any more, is no error.
        """
        ...

    async def unseen(self) -> list[str]:
        """What may be there and cannot be seen by `sweep`: one line each, with what to do."""
        ...

    async def close(self, *, at_once: bool = False) -> None:
        """Let go of connections and folders; with `close_ends_all` also end what is alive of this invocation.

        `at_once`: without the time that servers are given to end by themselves.

        Raises errors.Leftover if something refuses to end.
        """
        ...


@runtime_checkable
class Elsewhere(Protocol):
    """A platform that credentials choose, so that another day they may lead to another one."""

    @property
    def place(self) -> str:
        """Where it is, in words that stay the same as long as it is the same place; empty while only it could say."""
        ...

    async def identify(self) -> None:
        """Ask it what `place` cannot tell from the credentials. Raises PlatformError, PreflightError for a bad key."""
        ...


def place_of(platform: Platform) -> str:
    """Where a platform is; empty for this machine, and before `identify` where credentials do not tell."""
    return platform.place if isinstance(platform, Elsewhere) else ""


async def identified(platform: Platform) -> str:
    """Where a platform is; empty for this machine. Raises as `identify`."""
    if isinstance(platform, Elsewhere):
        await platform.identify()
    return place_of(platform)


@runtime_checkable
class Operable(Protocol):
    """A platform whose endpoints can be scaled, or counted, while they run."""

    async def scale(self, name: str, *, least: int, most: int) -> None:
        """Change how many replicas an endpoint of the opened invocation has. Raises PlatformError."""
        ...

    async def metrics(self, name: str, *, since: float) -> Metrics:
        """What it counted since a time, in seconds since 1970. Raises PlatformError."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A platform whose endpoints this machine may not reach: what asks them whether they answer runs beside them."""

    async def answers(self, name: str, say: Callable[[str, str], None]) -> RunnerEnd:
        """What it found out in the end; `say` is told every phase, and what is not right yet.

        It waits for ever for an endpoint that has died: `observe` tells that.
        """
        ...


@runtime_checkable
class KeyMaking(Protocol):
    """A platform that makes keys of endpoints which it keeps itself."""

    async def key(self, name: str) -> str | None:
        """The key that it made for an endpoint of the opened invocation; None if it made none. Raises PlatformError."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A platform whose meter remembers what endpoints have cost that are gone."""

    async def spent(self, ids: Mapping[str, str], shapes: Mapping[str, str]) -> dict[str, float]:
        """What endpoints have cost in USD; names to the platform's ids and to the plan's shapes. PlatformError."""
        ...


@runtime_checkable
class Priced(Protocol):
    """A platform that has a price list."""

    async def price(self, shape: str) -> float | None:
        """USD per hour of one replica of a shape; None if it has no price. Raises PlatformError."""
        ...


@runtime_checkable
class Sharing(Protocol):
    """A platform whose `open` may have to wait until another run gives something back."""

    def attend(self, say: Callable[[str], None], *, creates: bool) -> None:
        """Before `open`: who is told what it waits for. Without `creates` nothing will be created: it need not wait."""
        ...
