"""What the journal says of endpoints that are kept for themselves. Standard library only, as `status`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from launcher.errors import NotFound, PreflightError
from launcher.orchestrator.journal import Fact, Invocation, Journal, RunState
from launcher.orchestrator.status import RunStatus, of

if TYPE_CHECKING:
    from launcher.plan.model import Plan


@dataclass(frozen=True, kw_only=True)
class EndpointStatus:
    """One kept endpoint as last known. Times are seconds."""

    id: str
    state: str
    """starting, waiting, probing, up, collecting, deleting, down; keeper_gone, unknown; or why it ended."""
    detail: str
    alive: bool | None
    """Whether something of it may be running; None: nobody knows."""
    name: str
    url: str | None
    """Base URL without /v1, once it answers."""
    model: str
    """Name that requests give as model."""
    endpoint_type: str
    """The route that it has answered on: completions or chat."""
    key_name: str | None
    """Environment variable of the key that calls it; None: it needs none."""
    age: float
    expires_in: float
    usd_per_hour: float | None
    """What it cost when it came up; once it was scaled, what it may cost at most; None where nothing told."""
    usd: float | None
    """Cost so far."""
    execution: str
    deployment: str
    folder: str
    exit_code: int | None = None
    """How its keeper ended; None while it has not said so."""

    @property
    def is_up(self) -> bool:
        """Whether it answers and is kept."""
        return self.state == "up"

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and nothing of it is left."""
        return self.exit_code is not None and self.alive is False


def begin_to_keep(plan: Plan, journal: Journal) -> None:
    """Record that an invocation keeps an endpoint; does nothing for one that evaluates."""
    if plan.expires is None:
        return
    (task,) = plan.tasks
    assert task.endpoint is not None
    journal.record(
        plan.invocation,
        Fact.ENDPOINT_KEPT,
        task.key,
        task.endpoint.name,
        expires=plan.expires,
        model=task.target.model,
        endpoint_type=task.target.endpoint_type,
        key_name=task.target.api_key.env if task.target.api_key else None,
        usd_per_hour=task.endpoint.hourly(plan.usd_per_gpu_hour),
    )


def find(journal: Journal, prefix: str) -> Invocation:
    """The kept endpoint whose id begins with `prefix`. Raises NotFound for a run, and as Journal.find does."""
    found = journal.find(prefix)
    if journal.last(found.id, Fact.ENDPOINT_KEPT) is None:
        raise NotFound(
            f"{found.id}: is a run, and keeps no endpoint; see: nv-eval endpoints ls, nv-eval status {found.id}"
        )
    return found


def refuse_resume(journal: Journal, invocation: Invocation) -> None:
    """Raises PreflightError for an invocation that keeps an endpoint, and has begun to."""
    has_begun = journal.last(invocation.id, Fact.RUN_STARTED) is not None
    if has_begun and journal.last(invocation.id, Fact.ENDPOINT_KEPT) is not None:
        raise PreflightError(
            f"{invocation.id}: keeps an endpoint, which is not resumed; nv-eval endpoints up makes another"
        )


def status(journal: Journal, invocation: Invocation) -> EndpointStatus:
    """State of one. Raises NotFound if it is none."""
    kinds = (Fact.ENDPOINT_KEPT, Fact.ENDPOINT_UP, Fact.INTEND_SCALE_ENDPOINT)
    kept, up, scaled = (journal.last(invocation.id, kind) for kind in kinds)
    if kept is None:
        raise NotFound(f"{invocation.id}: keeps no endpoint")
    run = of(journal, invocation)
    (task,) = run.tasks
    said: dict[str, Any] = {**kept.data, **(up.data if up else {}), **(scaled.data if scaled else {})}
    return EndpointStatus(
        id=invocation.id,
        state=_state(run),
        detail=task.detail,
        alive=task.alive,
        name=kept.name,
        url=said.get("url"),
        model=said["model"],
        endpoint_type=said["endpoint_type"],
        key_name=said["key_name"],
        age=max(0.0, time.time() - run.created),
        expires_in=said["expires"] - time.time(),
        usd_per_hour=said["usd_per_hour"],
        usd=run.usd,
        execution=run.execution,
        deployment=run.deployment,
        folder=run.folder,
        exit_code=run.exit_code if run.state is RunState.FINISHED else None,
    )


def _state(run: RunStatus) -> str:
    (task,) = run.tasks
    match run.state:
        case RunState.RUNNING:
            return "deleting" if task.reason else task.phase
        case RunState.INTERRUPTED:
            return "keeper_gone"
        case RunState.UNKNOWN:
            return "unknown"
    return "down" if task.reason in ("completed", "stopped", "") else task.reason


def every(journal: Journal) -> list[EndpointStatus]:
    """All that the journal knows, newest first."""
    return [status(journal, found) for found in journal.invocations() if journal.last(found.id, Fact.ENDPOINT_KEPT)]
