"""What the journal says of an invocation. Standard library only: `nv-eval status` answers at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from launcher.orchestrator.journal import Entry, Fact, Invocation, Journal, RunState, present

TYPE_CHECKING = False  # as typing has it, which takes a third of a bare Python's time to load
if TYPE_CHECKING:
    from typing import Any

_PHASES = {
    Fact.INTEND_CREATE_ENDPOINT: "starting",
    Fact.ENDPOINT_CREATED: "starting",
    Fact.JOB_SUBMITTED: "waiting",
    Fact.TASK_READY: "ready",
    Fact.TASK_EVALUATING: "evaluating",
    Fact.TASK_COLLECTED: "deleting",
    Fact.INTEND_DELETE_ENDPOINT: "deleting",
}


_WAITS = frozenset({"queued", "starting", "waiting", "ready"})
"""Phases in which a task waits for what its launcher last said; that may be older than the fact that ended the wait."""


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """One task as last known. `age` is the time since that fact, in seconds; `endpoint` and `job` are names.

    `alive` says whether something of it may be running: None where that is not known.
    """

    task: str
    phase: str
    age: float | None
    reason: str = ""
    detail: str = ""
    done: int | None = None
    total: int | None = None
    gpu_seconds: float | None = None
    usd: float | None = None
    attempt: int = 1
    endpoint: str = ""
    job: str = ""
    alive: bool | None = False
    is_auxiliary: bool = False
    """It is an endpoint that tasks use beside their own."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One invocation as last known. `age` is the time since the launcher's last sign of life, in seconds."""

    invocation: str
    state: RunState
    created: float
    age: float | None
    execution: str
    deployment: str
    folder: str
    exit_code: int | None
    tasks: tuple[TaskStatus, ...]
    usd: float | None = None
    """What its endpoints have cost so far, where prices are known."""
    host: str = ""
    keeps_endpoint: bool = False
    """It evaluates nothing: it keeps one endpoint for a time; see `nv-eval endpoints`."""
    pid: int | None = None
    """The process that runs it, on that host; None if none does."""


def of(journal: Journal, invocation: Invocation) -> RunStatus:
    """Status of one invocation."""
    facts = journal.facts(invocation.id)
    state = journal.state(invocation)
    beat = journal.live(invocation.id)
    live = {row["task"]: row for row in beat[1]} if beat else {}
    ended, lease = journal.ended(invocation.id), journal.lease(invocation.id)
    clean = is_clean(journal, invocation.id)
    outlives = journal.may_outlive_launcher(invocation)
    costs = [row["usd"] for row in live.values() if row.get("usd") is not None]
    own = [fact.time for fact in facts if fact.kind is not Fact.CLEANED]  # which is another's
    last = max(own + ([beat[0]] if beat else []), default=None)
    return RunStatus(
        invocation=invocation.id,
        state=state,
        created=invocation.created,
        age=None if last is None else max(0.0, time.time() - last),
        execution=invocation.execution,
        deployment=invocation.deployment,
        folder=invocation.folder,
        exit_code=ended.data.get("exit_code") if ended else None,
        tasks=tuple(
            _task(key, [f for f in facts if f.task == key], live.get(key, {}), state, outlives, ended, clean)
            for key in invocation.tasks
        )
        + tuple(
            replace(
                _task(name, [f for f in facts if f.task == name], live.get(name, {}), state, outlives, ended, clean),
                is_auxiliary=True,
            )
            for name in auxiliary_of(facts)
        ),
        usd=round(sum(costs), 4) if costs else None,
        host=lease.host if lease else "",
        keeps_endpoint=any(fact.kind is Fact.ENDPOINT_KEPT for fact in facts),
        pid=lease.pid if lease and state is RunState.RUNNING else None,
    )


def auxiliary_of(facts: Iterable[Entry]) -> list[str]:
    """Names of the endpoints that an invocation makes beside those of its tasks."""
    started = (fact.data.get("auxiliary", ()) for fact in facts if fact.kind is Fact.RUN_STARTED)
    return list(dict.fromkeys(name for names in started for name in names))


def is_clean(journal: Journal, invocation: str) -> bool:
    """Whether somebody removed all of an invocation since it last began, and saw that it was gone."""
    last = journal.last(invocation, Fact.RUN_STARTED, Fact.CLEANED)
    return last is not None and last.kind is Fact.CLEANED


def _task(
    key: str,
    facts: list[Entry],
    live: dict[str, Any],
    state: RunState,
    outlives: bool,
    run_ended: Entry | None,
    is_clean: bool,
) -> TaskStatus:
    retries = [fact for fact in facts if fact.kind is Fact.TASK_RETRY]
    attempt = retries[-1].data["attempt"] if retries else 1
    kept = retries[-1].name if retries else ""  # the shared endpoint of the attempt before
    facts = present(facts)
    endpoint, job = _name(facts, Fact.INTEND_CREATE_ENDPOINT) or kept, _name(facts, Fact.INTEND_SUBMIT_JOB)
    gone = any(fact.kind is Fact.TASK_GONE for fact in facts)
    died = state is RunState.INTERRUPTED and not gone
    phase = "ended" if gone or died or run_ended else _phase(facts)
    waits_for = str(live.get("why") or "") if state is RunState.RUNNING and phase in _WAITS else ""
    return TaskStatus(
        task=key,
        phase=phase,
        age=max(0.0, time.time() - facts[-1].time) if facts else None,
        reason=_said(facts, "reason") or ("launcher_died" if died else ""),
        detail=_said(facts, "detail") or waits_for,
        done=live.get("done"),
        total=live.get("total"),
        gpu_seconds=live.get("gpu_seconds"),
        usd=live.get("usd"),
        attempt=attempt,
        endpoint=endpoint,
        job=job,
        alive=False if gone or is_clean else _alive({endpoint, job} - {""}, state, outlives, run_ended),
    )


def _phase(facts: list[Entry]) -> str:
    phase = next((_PHASES[fact.kind] for fact in reversed(facts) if fact.kind in _PHASES), "queued")
    is_kept = phase == "evaluating" and any(fact.kind is Fact.ENDPOINT_UP for fact in facts)
    return "up" if is_kept else phase


def _said(facts: list[Entry], what: str) -> str:
    """The reason or its detail, as collecting left it, else as the end of the task gave it."""
    kinds = (Fact.TASK_COLLECTED, Fact.TASK_ENDED)
    return next((str(fact.data[what]) for fact in reversed(facts) if fact.kind in kinds and what in fact.data), "")


def _name(facts: list[Entry], kind: Fact) -> str:
    return next((fact.name for fact in reversed(facts) if fact.kind is kind), "")


def _alive(made: set[str], state: RunState, outlives: bool, run_ended: Entry | None) -> bool | None:
    """Whether something that a task made and that is not known to be gone may be running; None: nobody knows.

    Local things end with their launcher, others may not.
    """
    if not made:
        return False
    if run_ended is not None:
        return None if made & set(run_ended.data.get("leftovers", ())) else False
    if state is RunState.RUNNING:
        return True
    return False if not outlives and state is not RunState.UNKNOWN else None
