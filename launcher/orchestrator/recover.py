"""From the journal of a launcher that is gone to the state of its tasks: what is scored stays, the rest goes on.

Facts say what was asked for; only the world says what exists. A state made here is marked `recovered`, and the run
looks before it believes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from launcher.decoding import decode
from launcher.harnesses.spec import Score
from launcher.orchestrator.journal import Entry, Fact, present
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.state import Attempt, EndpointClock, TaskState
from launcher.plan.attempts import attempt, generation_of
from launcher.plan.model import Plan, TaskPlan
from launcher.platforms.kept import SCORES

_ANSWERS = (
    (Fact.INTEND_CREATE_ENDPOINT, Fact.ENDPOINT_CREATED),
    (Fact.INTEND_SUBMIT_JOB, Fact.JOB_SUBMITTED),
)


def recover(plan: Plan, facts: Sequence[Entry], folder: Path, *, now: float, grace: float) -> list[TaskState]:
    """State of all tasks. `now` is the loop's clock; `grace` the seconds in which what was asked for may appear."""
    shift = now - time.time()
    facts = [replace(fact, time=min(fact.time + shift, now)) for fact in facts]  # wall clocks jump
    shared = _Shared.of(plan, facts)
    for clock in shared.clocks.values():
        clock.unheard_until = now + grace
    return [_task(plan, task, facts, shared, folder, now, grace) for task in (*plan.tasks, *plan.helpers)]


def _task(
    plan: Plan, task: TaskPlan, facts: list[Entry], shared: _Shared, folder: Path, now: float, grace: float
) -> TaskState:
    facts = [fact for fact in facts if fact.task == task.key]
    retries = [fact for fact in facts if fact.kind is Fact.TASK_RETRY]
    number = retries[-1].data["attempt"] if retries else 1
    facts = present(facts)
    first = {fact.kind: fact for fact in reversed(facts)}
    asked = first.get(Fact.INTEND_CREATE_ENDPOINT)
    kept = retries[-1].name if retries and asked is None else ""
    if Fact.TASK_GONE in first and Fact.INTEND_SUBMIT_JOB not in first:
        kept = ""  # it ended before anything of it was asked for
    name = asked.name if asked else kept
    state = TaskState(
        plan=attempt(task, number, plan.invocation, generation=generation_of(name) if name else shared.newest),
        attempt=number,
        past=[_past(fact) for fact in retries],
        shared=[clock for clock in shared.clocks.values() if task.key in clock.users],
        recovered=True,
        again=True,
    )
    _requests(state, facts, first, now + grace)
    if kept:
        _keep(state, now + grace)
    if not state.admitted:
        return state
    _ending(state, facts, first, folder / task.key / SCORES)
    return state


def _keep(state: TaskState, unheard_until: float) -> None:
    """This attempt has the shared endpoint of the one before."""
    state.endpoint_wanted = state.endpoint_created = True
    state.unheard_until = unheard_until


@dataclass
class _Shared:
    """What the journal knows of the shared endpoint of a run, in all its generations."""

    clocks: dict[str, EndpointClock] = field(default_factory=dict)
    """By name."""
    newest: int = 1
    """The generation that a task uses of which nothing was asked for yet."""
    _used: dict[str, EndpointClock] = field(default_factory=dict)
    """By task, while it holds one."""

    @classmethod
    def of(cls, plan: Plan, facts: list[Entry]) -> _Shared:
        """All of it; nothing where tasks have endpoints of their own."""
        found = cls()
        if any(endpoint.is_shared for endpoint in plan.endpoints):
            tasks = {task.key for task in plan.tasks}
            for fact in facts:
                if fact.task in tasks:
                    found._take(fact)
            last = [clock for name, clock in found.clocks.items() if generation_of(name) == found.newest]
            found.newest += any(clock.leaving or clock.gone_at is not None for clock in last)
        return found

    def _take(self, fact: Entry) -> None:
        task = fact.task or ""
        if fact.kind is Fact.INTEND_CREATE_ENDPOINT or (fact.kind is Fact.TASK_RETRY and fact.name):
            clock = self._used[task] = self.clocks.setdefault(fact.name, EndpointClock(name=fact.name))
            clock.started_at = fact.time if clock.started_at is None else clock.started_at
            clock.users.add(task)
            self.newest = max(self.newest, generation_of(fact.name))
        elif fact.kind is Fact.TASK_RETRY:
            self.newest = max(self.newest, fact.data.get("generation") or 1)
        elif task in self._used:
            self._note(self._used[task], fact)
            if fact.kind is Fact.TASK_GONE:
                del self._used[task]

    @staticmethod
    def _note(clock: EndpointClock, fact: Entry) -> None:
        if fact.kind is Fact.ENDPOINT_CREATED:
            clock.is_made = True
        elif fact.kind is Fact.TASK_EVALUATING:
            clock.has_served = True
        elif fact.kind is Fact.INTEND_DELETE_ENDPOINT:
            clock.leaving = True
        elif fact.kind is Fact.TASK_GONE and not fact.data.get("left"):
            clock.gone_at, clock.usd, clock.ran = fact.time, fact.data.get("usd"), fact.data.get("ran")


def _past(fact: Entry) -> Attempt:
    return Attempt(
        number=fact.data["attempt"] - 1,
        reason=Reason(fact.data["reason"]),
        detail=fact.data.get("detail", ""),
        endpoint_seconds=fact.data.get("endpoint_seconds", 0.0),
        usd=fact.data.get("usd"),
    )


def _requests(state: TaskState, facts: list[Entry], first: dict[Fact, Entry], unheard_until: float) -> None:
    """What was asked for in this attempt, and what was heard of it.

    How long ago it was asked for nobody knows, as wall clocks jump: the grace time begins anew.
    """
    endpoint, job = first.get(Fact.INTEND_CREATE_ENDPOINT), first.get(Fact.INTEND_SUBMIT_JOB)
    asked = [fact.time for fact in (endpoint, job) if fact is not None]
    evaluating = first.get(Fact.TASK_EVALUATING)
    state.admitted = bool(asked)
    state.started_at = min(asked, default=None)
    state.endpoint_wanted = endpoint is not None
    state.endpoint_created = Fact.ENDPOINT_CREATED in first
    state.endpoint_id = first[Fact.ENDPOINT_CREATED].data.get("id", "") if state.endpoint_created else ""
    state.job_wanted = job is not None
    state.job_submitted = Fact.JOB_SUBMITTED in first
    state.unheard_until = unheard_until if asked else 0.0
    kinds = Counter(fact.kind for fact in facts)
    state.heard = all(kinds[intent] == kinds[answer] for intent, answer in _ANSWERS)
    state.ready = Fact.TASK_READY in first
    state.evaluating_at = evaluating.time if evaluating else None


def _ending(state: TaskState, facts: list[Entry], first: dict[Fact, Entry], scores: Path) -> None:
    """How this attempt ended, as far as it did.

    Scores that are home and can be read count, even where a full disk kept the journal from saying so.
    """
    gone = first.get(Fact.TASK_GONE)
    if gone is not None:
        state.endpoint_wanted = state.job_wanted = False
        state.unheard_until = 0.0
        state.gone_at = gone.time
        state.let_go = bool(gone.data.get("left"))
        if not state.shared:
            state.metered_usd, state.ran = gone.data.get("usd"), gone.data.get("ran")
    said = [fact for fact in facts if fact.kind in (Fact.TASK_ENDED, Fact.TASK_COLLECTED) and "reason" in fact.data]
    state.ended_at = said[0].time if said else None
    home = read_scores(scores)
    if home is not None:
        state.reason, state.collected, state.again = Reason.COMPLETED, True, False
        state.scores, state.done = home, gone is not None
    elif said:
        state.reason, state.detail = Reason(said[-1].data["reason"]), said[-1].data.get("detail", "")
        state.collected = Fact.TASK_COLLECTED in first and state.reason is not Reason.COMPLETED
        if state.reason is Reason.COMPLETED and gone is not None:
            state.reason, state.detail = Reason.RESULTS_NOT_FETCHED, f"{scores} is not there any more"
    elif gone is not None:
        state.reason, state.collected = Reason.LAUNCHER_DIED, True


def read_scores(path: Path) -> list[Score] | None:
    """Scores that came home; None if there are none, or they cannot be read."""
    try:
        return decode(path.read_bytes(), list[Score])
    except (OSError, msgspec.MsgspecError):
        return None
