"""What has become of runs whose process is gone: the journal knows, whoever ended or resumed them."""

from __future__ import annotations

from launcher.errors import Interrupted, LimitReached, NotFound
from launcher.orchestrator import sweeps
from launcher.orchestrator.journal import Invocation, Journal, RunState
from launcher.schedule.model import Fire, Outcome
from launcher.schedule.store import Process, Store

SILENT = 3600.0
"""Seconds that a process of another machine may take from its call to its run: jitter, planning."""
_OUTCOMES = {0: Outcome.SCORED, Interrupted.exit_code: Outcome.STOPPED, LimitReached.exit_code: Outcome.FAILED}


def outcome_of(exit_code: int) -> Outcome:
    """How a run that ended in order ended."""
    return _OUTCOMES.get(exit_code, Outcome.FAILED)


def settle(store: Store, journal: Journal, now: float) -> None:
    """Bring the history up to what is true. To be called before anything is decided or shown."""
    with store.writing():
        for fire, process in store.unsettled():
            if fire.outcome is None and process.lives:
                continue
            _settle(store, journal, fire, process, now)


def invocation(journal: Journal, id_: str) -> Invocation | None:
    """An invocation, or a sweep as one, by its whole id; None if it never began."""
    if not id_:
        return None
    try:
        found = sweeps.find(journal, id_).run if sweeps.is_sweep(id_) else journal.find(id_)
    except NotFound:
        return None
    return found if found.id == id_ else None


def cost(journal: Journal, id_: str) -> float | None:
    """What an invocation or a sweep has cost so far in USD, where prices are known."""
    if not sweeps.is_sweep(id_):
        return journal.costs().get(id_)
    return sweeps.status(journal, sweeps.find(journal, id_)).usd


def _settle(store: Store, journal: Journal, fire: Fire, process: Process, now: float) -> None:
    begun = invocation(journal, fire.invocation)
    ended = journal.ended(begun.id) if begun is not None else None
    if begun is not None and ended is not None:
        code = int(ended.data.get("exit_code") or 0)
        detail = "resumed after it was killed" if fire.outcome is Outcome.KILLED else fire.detail
        usd = cost(journal, begun.id)
        store.update(fire, outcome=outcome_of(code), exit_code=code, ended=ended.time, usd=usd, detail=detail)
        return
    if fire.outcome is Outcome.KILLED:
        return
    if _may_live(journal, begun, fire, process, now):
        return
    hint = f"go on with it: nv-eval resume {begun.id}" if begun is not None else _without_invocation(store, fire)
    detail = "; ".join(filter(None, (fire.detail, hint)))
    store.update(fire, outcome=Outcome.KILLED, ended=_last_sign(journal, begun) or fire.started or now, detail=detail)


def _may_live(journal: Journal, begun: Invocation | None, fire: Fire, process: Process, now: float) -> bool:
    """Whether a run whose process is not a live one of this machine may go on all the same."""
    if begun is not None:  # somebody may have resumed it, or it is another machine's, which shows that it lives
        return journal.state(begun) is RunState.RUNNING
    return not process.is_here and now - (fire.started or now) < SILENT


def _without_invocation(store: Store, fire: Fire) -> str:
    watches = any(one.name == fire.schedule and one.definition.watch is not None for one in store.schedules())
    return "the next time goes on with what it had begun" if watches else "nothing was created"


def _last_sign(journal: Journal, begun: Invocation | None) -> float | None:
    """When a run last showed that it lived, in seconds since 1970."""
    if begun is None:
        return None
    beat = journal.live(begun.id)
    moments = [fact.time for fact in journal.facts(begun.id)] + ([beat[0]] if beat else [])
    return max(moments, default=begun.created)
