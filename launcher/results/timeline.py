"""When each endpoint and each job of an invocation existed, was ready and ended, by the facts of the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from launcher.decoding import decode
from launcher.errors import NotFound, ResultsError
from launcher.orchestrator.journal import Entry, Fact, Invocation, Journal
from launcher.plan.model import EndpointPlan, Plan
from launcher.results.model import BROKEN

SCHEMA = "nv-eval.timeline/1"
FILE = "timeline.json"
_LATEST = 1e11
"""Seconds since 1970 that no run comes to."""


@dataclass(kw_only=True)
class Span:
    """One endpoint or one job. Times are seconds since 1970; None where it has not come so far, or nobody saw it.

    `task`: key of the task it is for, of a shared endpoint the first one; `users`: keys of all tasks that used it.
    `ready`: an endpoint was seen to answer, a job began to evaluate. `ended`: the endpoint was confirmed to be gone,
    the job had ended. `reason`: why the job, or the attempt that the endpoint was for, ended.
    """

    kind: Literal["endpoint", "job"]
    name: str
    task: str
    attempt: int
    began: float
    ready: float | None = None
    ended: float | None = None
    reason: str = ""
    users: list[str] = field(default_factory=list)
    gpus: int = 0
    """GPUs that an endpoint occupies."""
    usd_per_hour: float | None = None
    """Price of an endpoint, where one is known before the run."""
    usd: float | None = None
    """What an endpoint cost: by the platform's meter, else by its price and the whole of its time."""

    def seconds(self, now: float) -> float:
        """How long it has existed; `now` counts while it does."""
        return max(0.0, (now if self.ended is None else self.ended) - self.began)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """All that an invocation made, in the order in which it was asked for. `ended`: None while it runs."""

    invocation: str
    began: float
    ended: float | None
    spans: list[Span]
    schema: str = SCHEMA

    def until(self, now: float) -> float:
        """The end; `now` while it runs."""
        return now if self.ended is None else self.ended

    def busy(self, endpoint: Span, now: float) -> float:
        """Seconds in which at least one job was evaluating on an endpoint."""
        jobs = [span for span in self.spans if span.kind == "job" and span.task in endpoint.users and span.ready]
        over = min(now, now if endpoint.ended is None else endpoint.ended)
        clipped = [
            (max(endpoint.began, job.ready or now), min(over, now if job.ended is None else job.ended)) for job in jobs
        ]
        return _covered(pair for pair in clipped if pair[0] < pair[1])

    def idle(self, endpoint: Span, now: float) -> float:
        """Seconds in which an endpoint existed and no job was evaluating on it: starting, waiting, being deleted."""
        return max(0.0, endpoint.seconds(now) - self.busy(endpoint, now))


def _covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, over = 0.0, float("-inf")
    for began, ended in sorted(intervals):
        total += max(0.0, ended - max(began, over))
        over = max(over, ended)
    return total


def of(journal: Journal, invocation: Invocation) -> Timeline:
    """The time line of an invocation as far as it has come."""
    return from_facts(invocation.id, journal.facts(invocation.id), _plan(journal, invocation.id))


def _plan(journal: Journal, invocation: str) -> Plan | None:
    """The plan that says how many GPUs an endpoint has; None where this version cannot read it."""
    try:
        return decode(journal.plan(invocation), Plan)
    except (NotFound, *BROKEN):
        return None


def load(folder: Path) -> Timeline | None:
    """The time line that a finished run left in its folder; None if it left none.

    Raises ResultsError if the file is broken or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = decode(path.read_bytes(), Timeline)
    except (OSError, *BROKEN) as error:
        raise ResultsError(f"{path}: broken: {error}") from None
    if found.schema != SCHEMA:
        raise ResultsError(f"{path}: written as {found.schema}, this version reads {SCHEMA}")
    times = [found.began, found.ended, *(time for one in found.spans for time in (one.began, one.ready, one.ended))]
    if any(time is not None and not 0 <= time < _LATEST for time in times):
        raise ResultsError(f"{path}: broken: a time in it is none since 1970")
    return found


def from_facts(invocation: str, facts: Sequence[Entry], plan: Plan | None = None) -> Timeline:
    """The time line that the facts of an invocation tell, oldest first."""
    reader = _Reader(invocation, plan)
    for fact in facts:
        reader.take(fact)
    return reader.timeline()


class _Reader:
    """Facts, one after the other, into spans."""

    def __init__(self, invocation: str, plan: Plan | None) -> None:
        self._invocation, self._plan = invocation, plan
        self._began: float | None = None
        self._ended: float | None = None
        self._spans: dict[str, Span] = {}
        self._present: dict[str, dict[str, Span]] = {}
        """By task: the endpoint and the job of its present attempt."""
        self._attempts: dict[str, int] = {}
        self._leftovers: set[str] = set()

    def take(self, fact: Entry) -> None:
        """Take one fact in."""
        steps: dict[Fact, Callable[[str, Entry], None]] = {
            Fact.INTEND_CREATE_ENDPOINT: self._endpoint,
            Fact.INTEND_SUBMIT_JOB: self._job,
            Fact.TASK_READY: self._ready,
            Fact.ENDPOINT_UP: self._ready,
            Fact.TASK_EVALUATING: self._evaluating,
            Fact.TASK_ENDED: self._task_ended,
            Fact.TASK_COLLECTED: self._task_ended,
            Fact.TASK_GONE: self._gone,
            Fact.TASK_RETRY: self._retry,
        }
        if fact.kind is Fact.RUN_STARTED:
            self._began, self._ended = fact.time if self._began is None else self._began, None
        elif fact.kind is Fact.RUN_ENDED:
            self._ended, self._leftovers = fact.time, set(fact.data.get("leftovers", ()))
        elif fact.task is not None and fact.kind in steps:
            steps[fact.kind](fact.task, fact)

    def _endpoint(self, task: str, fact: Entry) -> None:
        span = self._span("endpoint", task, fact)
        if task not in span.users:
            span.users.append(task)

    def _job(self, task: str, fact: Entry) -> None:
        self._span("job", task, fact)

    def _span(self, kind: Literal["endpoint", "job"], task: str, fact: Entry) -> Span:
        """The span of a name; what is asked for again under its name, or by others who share it, is the same."""
        number = self._attempts.get(task, 1)
        made = Span(kind=kind, name=fact.name, task=task, attempt=number, began=fact.time, users=[])
        span = self._spans.setdefault(fact.name, made)
        span.ended = None
        self._present.setdefault(task, {})[kind] = span
        return span

    def _ready(self, task: str, fact: Entry) -> None:
        endpoint = self._present.get(task, {}).get("endpoint")
        if endpoint is not None and endpoint.ready is None:
            endpoint.ready = fact.time

    def _evaluating(self, task: str, fact: Entry) -> None:
        self._ready(task, fact)  # the runner has seen it answer
        job = self._present.get(task, {}).get("job")
        if job is not None and job.ready is None:
            job.ready = fact.time

    def _task_ended(self, task: str, fact: Entry) -> None:
        reason = str(fact.data.get("reason", ""))
        for kind, span in self._present.get(task, {}).items():
            span.reason = reason or span.reason
            if kind == "job" and span.ended is None:
                span.ended = fact.time

    def _gone(self, task: str, fact: Entry) -> None:
        for kind, span in self._present.get(task, {}).items():
            if kind == "endpoint" and fact.data.get("left"):
                continue  # others have it still
            if kind == "endpoint" and fact.data.get("usd") is not None:
                span.usd = float(fact.data["usd"])
            span.ended = fact.time if kind == "endpoint" or span.ended is None else span.ended

    def _retry(self, task: str, fact: Entry) -> None:
        self._attempts[task] = int(fact.data.get("attempt", self._attempts.get(task, 1) + 1))
        kept = self._spans.get(fact.name) if fact.name else None
        self._present[task] = {"endpoint": kept} if kept is not None else {}

    def timeline(self) -> Timeline:
        """What was found. In a run that ended in order, all has ended that it does not call left over."""
        if self._ended is not None:
            for span in self._spans.values():
                if span.ended is None and span.name not in self._leftovers:
                    span.ended = self._ended
        self._price()
        began = self._began if self._began is not None else min((s.began for s in self._spans.values()), default=0.0)
        return Timeline(invocation=self._invocation, began=began, ended=self._ended, spans=list(self._spans.values()))

    def _price(self) -> None:
        for span in self._spans.values():
            planned = self._planned(span) if span.kind == "endpoint" else None
            if planned is None or self._plan is None:
                continue
            if helped := [task.key for task in self._plan.tasks if span.task in task.auxiliary]:
                span.users = helped
            span.gpus, span.usd_per_hour = planned.gpus, planned.hourly(self._plan.usd_per_gpu_hour)
            if span.usd is None and not planned.is_metered and span.usd_per_hour is not None and span.ended is not None:
                span.usd = span.usd_per_hour * span.seconds(span.ended) / 3600

    def _planned(self, span: Span) -> EndpointPlan | None:
        """The endpoint as it was planned; those of later attempts differ by their names alone."""
        tasks = self._plan.served if self._plan is not None else ()
        return next((task.endpoint for task in tasks if task.key == span.task), None)


__all__ = ["FILE", "SCHEMA", "Span", "Timeline", "from_facts", "load", "of"]
