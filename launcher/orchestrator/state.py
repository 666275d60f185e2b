"""What the orchestrator knows of each task, and how a run and its tasks ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from launcher.harnesses.spec import Score
from launcher.orchestrator.reasons import MEANINGS, Reason, Status
from launcher.plan.model import TaskPlan
from launcher.platforms.base import Progress


class Phase(StrEnum):
    """Where a task is, in the words of the live view and of `status`."""

    QUEUED = "queued"
    STARTING = "starting"
    WAITING = "waiting"
    PROBING = "probing"
    READY = "ready"
    EVALUATING = "evaluating"
    COLLECTING = "collecting"
    DELETING = "deleting"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The last lines of the endpoint's and the job's output, without secrets."""

    endpoint: tuple[str, ...] = ()
    job: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt of a task that ended without scores and was followed by another. `endpoint_seconds` it cost."""

    number: int
    reason: Reason
    detail: str = ""
    evidence: Evidence = field(default_factory=Evidence)
    endpoint_seconds: float = 0.0


@dataclass(kw_only=True)
class TaskState:
    """One task of a live run. Times are seconds of the run's clock. `plan` is that of the present attempt.

    `endpoint_wanted` is true from the intent to create until the platform has confirmed that nothing is left; a plan
    without an endpoint never sets it. `reason` is set once and decides what remains to be done.
    """

    plan: TaskPlan
    attempt: int = 1
    past: list[Attempt] = field(default_factory=list)
    not_before: float | None = None
    """When its next attempt may begin."""
    recovered: bool = False
    """Known from the journal of a launcher that is gone: what the world shows counts, once it has been looked at."""
    unheard_until: float = 0.0
    """What an earlier launcher asked for may appear until then: that it is not seen proves nothing."""
    heard: bool = False
    """All that an earlier launcher asked for was answered: what is seen of it now is all there will be."""
    again: bool = False
    """It gets one more attempt whatever its reason: the invocation was resumed for that."""
    admitted: bool = False
    endpoint_wanted: bool = False
    endpoint_created: bool = False
    job_wanted: bool = False
    job_submitted: bool = False
    url: str | None = None
    ready: bool = False
    probing: bool = False
    waiting_for: str = ""
    """Why its endpoint or its job does not run yet, in one line, as the platform says it."""
    progress: Progress | None = None
    reason: Reason | None = None
    detail: str = ""
    evidence: Evidence = field(default_factory=Evidence)
    collected: bool = False
    done: bool = False
    scores: list[Score] = field(default_factory=list)
    started_at: float | None = None
    evaluating_at: float | None = None
    ended_at: float | None = None
    deleting_at: float | None = None
    gone_at: float | None = None
    busy: bool = False
    """An action of this task is under way; the next decision waits for it."""

    def ended_attempt(self) -> Attempt:
        """The present attempt, of which nothing is left."""
        return Attempt(
            number=self.attempt,
            reason=self.reason or Reason.LAUNCHER_DIED,
            detail=self.detail,
            evidence=self.evidence,
            endpoint_seconds=self._endpoint_seconds(self.gone_at or 0.0),
        )

    def begin_attempt(self, number: int, plan: TaskPlan, not_before: float) -> None:
        """Queue the next attempt and forget the present one but for its record."""
        past = [*self.past, self.ended_attempt()]
        fresh = TaskState(plan=plan, attempt=number, past=past, not_before=not_before, busy=self.busy)
        self.__dict__.update(fresh.__dict__)

    @property
    def phase(self) -> Phase:
        """Where the task is, derived from the facts above."""
        if self.done:
            return Phase.ENDED
        if self.reason is not None:
            return Phase.COLLECTING if not self.collected else Phase.DELETING
        if not self.admitted:
            return Phase.QUEUED
        if self.progress is None or not self.job_submitted:
            return Phase.READY if self.ready else Phase.STARTING
        known = {"waiting": Phase.WAITING, "probing": Phase.PROBING, "evaluating": Phase.EVALUATING}
        return known.get(self.progress.phase, Phase.COLLECTING)

    @property
    def why(self) -> str:
        """What it waits for, while it waits."""
        if self.reason is not None or self.phase is Phase.EVALUATING:
            return ""
        return self.waiting_for or (self.progress.detail if self.progress is not None else "")

    @property
    def leftover(self) -> bool:
        """Given up on while something of it may still be there."""
        return self.done and (self.endpoint_wanted or self.job_wanted)

    @property
    def gpus(self) -> int:
        """GPUs its endpoint occupies while it exists."""
        return self.plan.endpoint.gpus if self.plan.endpoint else 0

    def gpu_seconds(self, now: float) -> float:
        """GPU time used so far: from the request that created the endpoint to the proof that it is gone."""
        return self.gpus * self.endpoint_seconds(now)

    def usd(self, now: float, usd_per_gpu_hour: float | None) -> float | None:
        """What its endpoint has cost so far; None without a price."""
        endpoint = self.plan.endpoint
        hourly = endpoint.hourly(usd_per_gpu_hour) if endpoint else usd_per_gpu_hour and 0.0
        return None if hourly is None else hourly * self.endpoint_seconds(now) / 3600

    def endpoint_seconds(self, now: float) -> float:
        """Seconds in which an endpoint of it existed, over all attempts."""
        return sum(attempt.endpoint_seconds for attempt in self.past) + self._endpoint_seconds(now)

    def _endpoint_seconds(self, now: float) -> float:
        if self.started_at is None or not self.plan.endpoint:
            return 0.0
        return (self.gone_at or now) - self.started_at


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """How one task ended."""

    key: str
    name: str
    harness: str
    reason: Reason
    detail: str = ""
    evidence: Evidence = field(default_factory=Evidence)
    scores: tuple[Score, ...] = ()
    left: tuple[str, ...] = ()
    """Names of the endpoint and the job, as far as they may still be running."""
    attempts: tuple[Attempt, ...] = ()
    """Those before the last one."""
    seconds: float = 0.0
    """From the creation of its endpoint to the end of its evaluation."""
    gpu_seconds: float = 0.0
    usd: float | None = None

    @property
    def status(self) -> Status:
        """The reason in one word."""
        return MEANINGS[self.reason].status


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How an invocation ended. `ended_by` is the reason that ended it as a whole early, if any."""

    invocation: str
    folder: str
    tasks: tuple[TaskOutcome, ...]
    seconds: float
    ended_by: Reason | None = None
    strays: tuple[str, ...] = ()
    """Names that carry the invocation's mark, belong to no task and would not go."""

    @property
    def leftovers(self) -> list[str]:
        """Names of endpoints and jobs that may still be running."""
        return [*(name for task in self.tasks for name in task.left), *self.strays]

    @property
    def exit_code(self) -> int:
        """0 only if every task has scores and nothing is left."""
        if self.leftovers:
            return 5
        if self.ended_by is Reason.STOPPED:
            return 130
        if self.ended_by is Reason.LIMIT_REACHED:
            return 9
        return 0 if all(task.status is Status.SCORED for task in self.tasks) else 4
