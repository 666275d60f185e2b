"""What the orchestrator knows of each task, and how a run and its tasks ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from launcher.harnesses.spec import Score
from launcher.orchestrator.reasons import MEANINGS, Reason, Status
from launcher.orchestrator.stillness import Still
from launcher.plan.auxiliary import HARNESS
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
    """The last lines of the endpoint's, the job's and a failed auxiliary endpoint's output, without secrets."""

    endpoint: tuple[str, ...] = ()
    job: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] = ()

    def lines(self) -> dict[str, list[str]]:
        """All there is, by its source."""
        found = {"endpoint": self.endpoint, "job": self.job, "auxiliary": self.auxiliary}
        return {source: list(lines) for source, lines in found.items() if lines}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt of a task that ended without scores and was followed by another.

    What a shared endpoint costs belongs to no attempt: `TaskState.shared` has it.
    """

    number: int
    reason: Reason
    detail: str = ""
    evidence: Evidence = field(default_factory=Evidence)
    endpoint_seconds: float = 0.0
    """Time in which its own endpoint existed."""
    usd: float | None = None
    """What its own endpoint cost by the platform's meter."""


@dataclass(kw_only=True, eq=False)
class EndpointClock:
    """How long one shared endpoint exists and what it costs, once for all tasks that use it.

    Times are seconds of the run's clock, from the request that creates it to the proof that it is gone.
    """

    name: str
    started_at: float | None = None
    gone_at: float | None = None
    usd: float | None = None
    """What it has cost so far by the platform's meter."""
    ran: float | None = None
    """Seconds for which it has had its place, where the platform counts them."""
    users: set[str] = field(default_factory=set)
    """Keys of the tasks that have used it: its time and its cost are divided equally among them."""
    is_made: bool = False
    """The platform has confirmed its creation."""
    refused: str = ""
    """Why the platform did not create it."""
    leaving: bool = False
    """Its deletion was asked for: nobody may begin to use it."""
    has_served: bool = False
    """A task was evaluated on it."""
    unheard_until: float = 0.0
    """An earlier launcher asked for it: that it is not seen proves nothing until then, whoever begins to use it."""

    def seconds(self, now: float) -> float:
        """Part of its time that one of its users bears."""
        if self.started_at is None or not self.users:
            return 0.0
        over = now if self.gone_at is None else self.gone_at
        return (over - self.started_at if self.ran is None else self.ran) / len(self.users)

    def share_usd(self) -> float | None:
        """Part of its metered cost that one of its users bears."""
        return None if self.usd is None or not self.users else self.usd / len(self.users)


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
    endpoint_id: str = ""
    """The platform's own name for an endpoint that an earlier launcher made."""
    queued_seconds: float = 0.0
    """Of its endpoint's life those in which it only waited for its turn in the platform's queue."""
    queued_since: float | None = None
    let_go: bool = False
    """Another task holds the shared endpoint that it has used."""
    job_wanted: bool = False
    job_submitted: bool = False
    url: str | None = None
    model: str | None = None
    """Name its endpoint answers to, where the plan could not know it."""
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
    metered_usd: float | None = None
    """What the present endpoint of its own has cost so far by the platform's meter."""
    ran: float | None = None
    """Seconds for which the present endpoint of its own has had its place, where the platform counts them."""
    shared: list[EndpointClock] = field(default_factory=list)
    """Clocks of the shared endpoints it has used in any attempt, the newest last."""
    busy: bool = False
    """An action of this task is under way; the next decision waits for it."""
    still: Still | None = None
    """What was seen when it was last told to wait; whatever changes in the task forgets it."""

    def __setattr__(self, name: str, value: object) -> None:
        """Set it; the task does not stand still then."""
        object.__setattr__(self, name, value)
        if name != "still":
            object.__setattr__(self, "still", None)

    def ended_attempt(self) -> Attempt:
        """The present attempt, of which nothing is left."""
        return Attempt(
            number=self.attempt,
            reason=self.reason or Reason.LAUNCHER_DIED,
            detail=self.detail,
            evidence=self.evidence,
            endpoint_seconds=self._endpoint_seconds(self.gone_at or 0.0),
            usd=self.metered_usd,
        )

    def begin_attempt(self, number: int, plan: TaskPlan, not_before: float, *, keeps_endpoint: bool = False) -> None:
        """Queue the next attempt and forget the present one but for its record and the endpoint it may keep."""
        past = [*self.past, self.ended_attempt()]
        fresh = TaskState(plan=plan, attempt=number, past=past, not_before=not_before, shared=self.shared)
        fresh.busy = self.busy
        if keeps_endpoint:
            fresh.endpoint_wanted = fresh.endpoint_created = True
            fresh.url, fresh.model = self.url, self.model
        self.__dict__.update(fresh.__dict__)

    def use(self, clock: EndpointClock) -> None:
        """Bear a part of what a shared endpoint costs from now on, once for all attempts."""
        clock.users.add(self.plan.key)
        if clock not in self.shared:
            self.shared.append(clock)

    def note_queue(self, now: float, *, waits: bool) -> None:
        """Keep whether its endpoint waits in the platform's queue, where it occupies nothing."""
        if self.queued_since is not None:
            self.queued_seconds += now - self.queued_since
        self.queued_since = now if waits else None

    def note_cost(self, usd: float | None) -> None:
        """Keep what the platform's meter says of its present endpoint; None: nothing new."""
        endpoint = self.plan.endpoint
        if usd is None or endpoint is None:
            return
        if not endpoint.is_shared:
            self.metered_usd = usd
        for clock in self.shared:
            if clock.name == endpoint.name:
                clock.usd = usd

    def note_ran(self, seconds: float | None) -> None:
        """Keep what the platform says of how long its present endpoint has had its place; None: it does not count."""
        endpoint = self.plan.endpoint
        if seconds is None or endpoint is None:
            return
        if not endpoint.is_shared:
            self.ran = max(self.ran or 0.0, seconds)
        for clock in self.shared:
            if clock.name == endpoint.name:
                clock.ran = max(clock.ran or 0.0, seconds)

    def forget_job(self) -> None:
        """Its job ended with the launcher that ran it and can be submitted again."""
        self.job_wanted = self.job_submitted = False
        self.progress = self.evaluating_at = None

    @property
    def is_auxiliary(self) -> bool:
        """It is no benchmark but an endpoint that benchmarks use beside their own.

        An endpoint that is kept for itself has no benchmark either, and is the first of its plan.
        """
        return self.plan.harness == HARNESS and self.plan.index > 0

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
    def is_over(self) -> bool:
        """All of it is gone, and nothing that will be seen says more of it; a meter may still tell what it cost."""
        endpoint = self.plan.endpoint
        return self.done and self.gone_at is not None and not (endpoint is not None and endpoint.is_metered)

    @property
    def leftover(self) -> bool:
        """Given up on while something of it may still be there."""
        return self.done and (self.endpoint_wanted or self.job_wanted)

    @property
    def left(self) -> tuple[str, ...]:
        """Names of what it made and nobody has confirmed to be gone."""
        endpoint = self.plan.endpoint
        names = [endpoint.name] if endpoint and self.endpoint_wanted else []
        return (*names, *([self.plan.job.name] if self.job_wanted else []))

    def outcome(
        self, now: float, ended_by: Reason | None, usd_per_gpu_hour: float | None, *, all_ended: bool
    ) -> TaskOutcome:
        """How it ended. `ended_by` ended the run as a whole; with `all_ended` nothing of it can be left."""
        return TaskOutcome(
            key=self.plan.key,
            name=self.plan.name,
            harness=self.plan.harness,
            reason=self.reason or ended_by or Reason.STOPPED,
            detail=self.detail,
            evidence=self.evidence,
            scores=tuple(self.scores),
            left=() if all_ended else self.left,
            attempts=tuple(self.past),
            seconds=_else(self.ended_at, now) - _else(self.started_at, now),
            gpu_seconds=self.gpu_seconds(now),
            usd=self.usd(now, usd_per_gpu_hour),
        )

    @property
    def gpus(self) -> int:
        """GPUs its endpoint occupies while it exists."""
        return self.plan.endpoint.gpus if self.plan.endpoint else 0

    def gpu_seconds(self, now: float) -> float:
        """GPU time used so far: from the request that created the endpoint to the proof that it is gone."""
        return self.gpus * self.endpoint_seconds(now)

    def usd(self, now: float, usd_per_gpu_hour: float | None) -> float | None:
        """What its endpoints have cost so far, over all attempts: by the platform's meter where it has one.

        None without a price, and until a meter has said something.
        """
        endpoint = self.plan.endpoint
        if endpoint is not None and endpoint.is_metered:
            return self._metered()
        hourly = endpoint.hourly(usd_per_gpu_hour) if endpoint else usd_per_gpu_hour and 0.0
        return None if hourly is None else hourly * self.endpoint_seconds(now) / 3600

    def _metered(self) -> float | None:
        said = [*(attempt.usd for attempt in self.past), self.metered_usd, *(c.share_usd() for c in self.shared)]
        told = [usd for usd in said if usd is not None]
        return sum(told) if told else None

    def endpoint_seconds(self, now: float) -> float:
        """Seconds in which an endpoint of it existed, over all attempts; of a shared one its part."""
        past = sum(attempt.endpoint_seconds for attempt in self.past)
        return past + self._endpoint_seconds(now) + sum(clock.seconds(now) for clock in self.shared)

    def _endpoint_seconds(self, now: float) -> float:
        """Those of the present endpoint of its own."""
        endpoint = self.plan.endpoint
        if self.started_at is None or endpoint is None or endpoint.is_shared:
            return 0.0
        if self.ran is not None:
            return self.ran
        waits = 0.0 if self.queued_since is None else now - self.queued_since
        return max(0.0, _else(self.gone_at, now) - self.started_at - self.queued_seconds - waits)


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
    auxiliary: tuple[TaskOutcome, ...] = ()
    """Endpoints that tasks used beside their own; the reason of one that went well is `released`."""
    ended_by: Reason | None = None
    strays: tuple[str, ...] = ()
    """Names that carry the invocation's mark, belong to no task and would not go."""

    @property
    def leftovers(self) -> list[str]:
        """Names of endpoints and jobs that may still be running."""
        made = (*self.tasks, *self.auxiliary)
        return list(dict.fromkeys([*(name for one in made for name in one.left), *self.strays]))

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


def _else(moment: float | None, now: float) -> float:
    """A moment, which may be zero, or now if it has not come."""
    return now if moment is None else moment
