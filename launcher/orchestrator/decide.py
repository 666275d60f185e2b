"""The next step of a task, from what is known and what is observed. Pure: the same world gives the same step.

Nothing here remembers an event; after a crash the same function on the same world gives the same step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from launcher.orchestrator.reasons import MEANINGS, Reason
from launcher.orchestrator.state import TaskState
from launcher.platforms.base import Resource, ResourceState

ENDED = (ResourceState.SUCCEEDED, ResourceState.FAILED, ResourceState.GONE)
SLACK = 60.0
"""Seconds that a job may take beyond all its own time-outs before it is taken for hung."""


class Action(StrEnum):
    """What to do next for one task."""

    CREATE_ENDPOINT = "create_endpoint"
    PROBE = "probe"
    SUBMIT_JOB = "submit_job"
    END = "end"
    COLLECT = "collect"
    REMOVE = "remove"
    LET_GO = "let_go"
    """Another task holds the shared endpoint: it is that one's from now on."""
    TRY_AGAIN = "try_again"
    """All of the attempt is gone but the shared endpoint, on which the next attempt runs."""
    FINISH = "finish"


class Claim(StrEnum):
    """Who needs the shared endpoint of a task that has ended."""

    NOBODY = "nobody"
    """Or it is the task's own."""
    HELD = "held"
    """Another task that is not over."""
    AWAITED = "awaited"
    """Another task will hold it and does not yet: nobody but this one would remove it."""
    KEPT = "kept"
    """The task's own next attempt."""


@dataclass(frozen=True)
class Step:
    """One action; `reason` and `detail` say why, for END."""

    action: Action
    reason: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class World:
    """What is observed around one task. A resource is None while it was not asked for or could not be seen."""

    now: float
    endpoint: Resource | None = None
    job: Resource | None = None
    stop: Reason | None = None
    """Set when the whole run is being ended."""
    blind: bool = False
    """The platform cannot be asked: nothing new is begun, what has to go is asked to go."""
    why_blind: str = ""
    """What the platform, or its silence, says of it."""
    endpoints_unknown: bool = False
    """Endpoints cannot be asked for while jobs can: nothing is begun, what ends is taken, no endpoint is gone."""
    grace: float = 0.0
    """Seconds in which something whose creation was not confirmed may still appear."""
    barrier: bool = False
    """Jobs wait until all endpoints answer, and they do not yet."""
    claim: Claim = Claim.NOBODY
    """Of a task that has ended."""
    has_served: bool = False
    """A task was evaluated on its shared endpoint."""
    auxiliary: Step | None = None
    """How a task ends whose auxiliary endpoint has failed or died."""
    follows_auxiliary: bool = False
    """The task's endpoint is made with all that its evaluation needs to know, and an auxiliary one is not made yet."""
    awaits_auxiliary: bool = False
    """An auxiliary endpoint of a task has no URL yet: its job cannot be told of it."""
    is_needed: bool = True
    """Of an auxiliary endpoint: a task that is not over uses it."""
    probe_first: bool = False
    """The orchestrator asks endpoints itself before it submits jobs (start_jobs: all_ready)."""


def decide(task: TaskState, world: World) -> Step | None:
    """The next step, or None to wait."""
    if task.done or task.busy:
        return None
    if task.reason is None and world.endpoints_unknown:
        return _ending(task, world)
    if task.reason is None:
        return _forward(task, world) if not world.blind else _unseen(task, world)
    if not task.collected:
        return Step(Action.COLLECT)
    return _teardown(task, world)


def _unseen(task: TaskState, world: World) -> Step | None:
    """What can be decided without seeing anything."""
    if task.is_auxiliary:  # it lasts as long as its tasks, which have an end
        return _stopped(world) or _released(world)
    return _stopped(world) or _overdue_unseen(task, world)


def _released(world: World) -> Step | None:
    return None if world.is_needed else Step(Action.END, Reason.RELEASED)


def _stopped(world: World) -> Step | None:
    return Step(Action.END, world.stop) if world.stop is not None else None


def _forward(task: TaskState, world: World) -> Step | None:
    ended = _ending(task, world)
    if ended is not None:
        return ended
    if not task.admitted:
        return None
    if task.plan.endpoint is not None and not task.endpoint_created:
        return None if world.follows_auxiliary else Step(Action.CREATE_ENDPOINT)
    if task.is_auxiliary:
        return Step(Action.PROBE) if _url(task, world) and not (task.ready or task.probing) else None
    return _job(task, world)


def _job(task: TaskState, world: World) -> Step | None:
    """What leads to its job, once its own endpoint is made."""
    may_appear = task.job_wanted and world.now < task.unheard_until  # an earlier launcher asked for it
    if task.job_submitted or may_appear or _url(task, world) is None or world.awaits_auxiliary:
        return None
    if world.probe_first and not task.ready:
        return None if task.probing else Step(Action.PROBE)
    return None if world.barrier else Step(Action.SUBMIT_JOB)


def _ending(task: TaskState, world: World) -> Step | None:
    """The end of the task's work, if the world shows one; the job's own word comes first.

    But a benchmark that failed for want of its server did not fail by itself.
    """
    job, died = world.job, _died(task, world)
    if job is not None and job.end is not None:
        reason = _reason(job.end.reason)
        cause = died or world.auxiliary
        return cause if cause and reason in _FOLLOWS else Step(Action.END, reason, job.end.detail)
    if world.stop is not None:
        return Step(Action.END, world.stop)
    if task.is_auxiliary and not world.is_needed:
        return _released(world)
    if died is not None or world.auxiliary is not None:
        return died or world.auxiliary
    if task.job_submitted and job is not None and job.state in ENDED:
        return Step(Action.END, Reason.PREEMPTED if job.preempted else Reason.JOB_LOST, _said(job))
    return _overdue(task, world)


_FOLLOWS = (Reason.HARNESS_FAILED, Reason.AUXILIARY_FAILED, Reason.AUXILIARY_DIED)
"""Ends of a job that follow from the end of a server, if one has ended: the platform knows more of that."""


def failing(auxiliary: TaskState, seen: Resource | None) -> Step | None:
    """How tasks that use an auxiliary endpoint end, if it has failed: tried again where the endpoint itself is."""
    reason, detail = auxiliary.reason, auxiliary.detail
    if reason is None and auxiliary.endpoint_created and seen is not None and (seen.state in ENDED or seen.fatal):
        reason, detail = _death(auxiliary, seen, World(now=0.0, has_served=auxiliary.ready)), _said(seen)
    is_asked_for = reason in (Reason.STOPPED, Reason.LIMIT_REACHED) and not auxiliary.recovered
    if reason is None or reason is Reason.RELEASED or is_asked_for:
        return None
    ended = Reason.AUXILIARY_DIED if MEANINGS[reason].retry else Reason.AUXILIARY_FAILED
    words = reason.value.replace("_", " ")
    return Step(Action.END, ended, f"{auxiliary.plan.key}: {words}{f': {detail}' if detail else ''}")


def _died(task: TaskState, world: World) -> Step | None:
    endpoint = world.endpoint
    if not task.endpoint_created or endpoint is None or not (endpoint.state in ENDED or endpoint.fatal):
        return None
    return Step(Action.END, _death(task, endpoint, world), _said(endpoint))


def _death(task: TaskState, endpoint: Resource, world: World) -> Reason:
    if endpoint.preempted:
        return Reason.PREEMPTED
    served = task.evaluating_at is not None or world.has_served
    return Reason.ENDPOINT_DIED if served else Reason.ENDPOINT_EXITED


def _overdue(task: TaskState, world: World) -> Step | None:
    """A backstop for jobs that do not keep their own time-outs, and for endpoints that never get an address."""
    if task.started_at is None or (task.is_auxiliary and task.ready):
        return None
    if world.now <= time_out(task):
        return None
    held = (world.barrier and task.ready) or world.awaits_auxiliary
    if not task.job_submitted and not held:
        why = f": {world.endpoint.detail}" if world.endpoint is not None and world.endpoint.detail else ""
        return Step(Action.END, Reason.ENDPOINT_START_TIMEOUT, f"no answer within {_boot(task):.0f} s{why}")
    if task.job_submitted:
        if world.job is not None and world.job.state is ResourceState.PENDING:
            return Step(Action.END, Reason.HARNESS_TIMEOUT, f"the job never began: {_said(world.job)}")
        return Step(Action.END, Reason.HARNESS_TIMEOUT, "the job did not keep its own time-outs")
    return None


def time_out(task: TaskState) -> float:
    """When a task has taken longer than all its own time-outs allow, if nothing changes meanwhile."""
    if task.started_at is None:
        return math.inf
    return task.started_at + (task.plan.longest if task.job_submitted else _boot(task)) + SLACK


def _boot(task: TaskState) -> float:
    target = task.plan.target
    return target.start_timeout + target.health_timeout + task.plan.job.queue_timeout


def _overdue_unseen(task: TaskState, world: World) -> Step | None:
    """The same for a platform that cannot be asked any more: a run must end, and tell what may be left."""
    if task.started_at is None:
        return None
    if world.now - task.started_at <= task.plan.longest + task.plan.job.queue_timeout + 2 * SLACK:
        return None
    reason = Reason.JOB_LOST if task.job_submitted else Reason.ENDPOINT_START_TIMEOUT
    return Step(Action.END, reason, f"the platform cannot be asked: {world.why_blind}")


def _teardown(task: TaskState, world: World) -> Step | None:
    """What is left to remove. Only an observed absence counts: unknown keeps the question open.

    What was asked for without an answer may still come into being: its absence counts only after a grace time.
    """
    job_remains = task.job_wanted and (world.blind or not is_gone(world.job))
    may_go = task.endpoint_wanted and world.claim is Claim.NOBODY
    endpoint_remains = may_go and (world.blind or world.endpoints_unknown or not is_gone(world.endpoint))
    if job_remains or endpoint_remains:
        return Step(Action.REMOVE)
    if task.recovered and task.deleting_at is None and (task.job_wanted or may_go):
        return Step(Action.REMOVE)  # a list that lags does not show it: it is asked for by its name
    if world.claim is Claim.HELD:
        return Step(Action.LET_GO)  # whoever holds it last waits for what may still appear
    if world.claim is Claim.AWAITED or (task.recovered and world.now < task.unheard_until):
        return None
    unheard = (task.endpoint_wanted and not task.endpoint_created) or (task.job_wanted and not task.job_submitted)
    ended = world.now if task.ended_at is None else task.ended_at
    if unheard and world.now < ended + world.grace:
        return None
    return Step(Action.TRY_AGAIN if world.claim is Claim.KEPT else Action.FINISH)


def is_gone(resource: Resource | None) -> bool:
    """Whether an observation shows that there is no such thing (any more)."""
    return resource is None or resource.state is ResourceState.GONE


def _url(task: TaskState, world: World) -> str | None:
    return task.plan.target.url or task.url or (world.endpoint.url if world.endpoint else None)


def _reason(word: str) -> Reason:
    try:
        return Reason(word)
    except ValueError:
        return Reason.HARNESS_FAILED


def _said(resource: Resource) -> str:
    if resource.detail:
        return resource.detail
    return f"exit code {resource.exit_code}" if resource.exit_code is not None else resource.state.value
