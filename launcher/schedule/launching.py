"""What a schedule's call starts for real: a run, a gate, a message."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import PlatformError, PreflightError
from launcher.schedule.firing import Ended, Prepared
from launcher.schedule.model import Definition, RunSpec, Verdict, WatchSpec

if TYPE_CHECKING:
    from launcher.plan.model import Plan
    from launcher.results.model import Record
    from launcher.supervise import RunResult


@dataclass(frozen=True, kw_only=True)
class Real:
    """Runs in this process, so that whatever ends it ends the run in the same way."""

    read_env: Callable[[str], dict[str, str]]
    """Reads a file of variables. Raises ConfigError."""
    say: Callable[[str], None] = lambda _: None

    def prepare(self, definition: Definition) -> Prepared:
        """Enter the schedule's folder and environment, and plan its run. Raises LauncherError."""
        enter(definition.cwd)
        if definition.env_file is not None:
            os.environ.update(self.read_env(definition.env_file))
        if definition.watch is not None:
            spec = definition.watch
            return Prepared("", None, lambda: watched(spec, self.say))
        return self.begin(definition.run)

    def begin(self, run: RunSpec) -> Prepared:
        """Plan a run. Raises ConfigError."""
        plan = planned(run)
        return Prepared(plan.invocation, worst(plan), lambda: started(plan, run, self.say))

    def resume(self, invocation: str) -> Ended:
        """Go on with a run to its end. Raises LauncherError."""
        from launcher.api import resume

        self.say(f"{invocation}: goes on")
        return ended(resume(invocation, say=self.say))

    def gate(self, policy: str, baseline: str, candidate: str) -> tuple[Verdict, str]:
        """Compare two invocations. Raises LauncherError if they cannot be compared."""
        from launcher.api import gate

        decision = gate(baseline, candidate, policy=policy)
        verdict = Verdict(decision.verdict.value)
        bad = [check for check in decision.checks if check.verdict.value != Verdict.GO]
        return verdict, "; ".join(f"{check.subject}: {check.reason}" for check in bad)

    def tell(self, names: tuple[str, ...], title: str, text: str) -> None:
        """Send a message. Raises LauncherError if it cannot be sent."""
        from launcher.notify import send

        if not send(names, title, text):
            raise PlatformError("the message could not be sent; check the addresses of --notify")


def enter(folder: str) -> None:
    """Make a folder the working one. Raises PreflightError if it is gone."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise PreflightError(f"{folder}: the folder of the schedule: {error.strerror}; add the schedule anew") from None


def planned(run: RunSpec) -> Plan:
    """The plan of a run with a fresh id. Raises ConfigError."""
    from launcher.api import plan
    from launcher.config import Request, load, located

    wanted = Request(
        name=run.config_name, overrides=run.overrides, config_dir=run.config_dir, config_path=run.config_path
    )
    config = load(wanted)
    with located(wanted):
        return plan(config)


def worst(plan: Plan) -> float | None:
    """The most that a run can cost in USD: by its time-outs, or by the limit that ends it; None if neither is known."""
    metered = any(endpoint.is_metered for endpoint in plan.endpoints)
    is_free = plan.execution == "local" and not metered and not plan.worst_case.gpu_hours
    bounds = (plan.worst_case.usd, plan.max_cost_usd, 0.0 if is_free else None)
    return min((usd for usd in bounds if usd is not None), default=None)


def started(plan: Plan, run: RunSpec, say: Callable[[str], None]) -> Ended:
    """Run a plan to its end. Raises LauncherError if nothing was created."""
    from launcher.api import run as run_plan

    say(f"{plan.invocation}: begins; results in {Path(plan.output_dir) / plan.invocation}")
    return ended(run_plan(plan, say=say, yes=run.yes))


def ended(result: RunResult) -> Ended:
    """How a run ended."""
    return Ended(result.exit_code, cost(result.record), failures(result.record))


def watched(spec: WatchSpec, say: Callable[[str], None]) -> Ended:
    """Evaluate what is new where a watch looks, and come back. Raises LauncherError."""
    from launcher.orchestrator.journal import Journal
    from launcher.schedule.sources import open_source
    from launcher.schedule.store import Store
    from launcher.schedule.watching import Watch

    evaluate = Real(read_env=lambda _: {}, say=say)
    source, store, journal = open_source(spec), Store.default(), Journal.default()
    return Ended(
        Watch(spec=spec, source=source, store=store, journal=journal, evaluate=evaluate, say=say, once=True).run()
    )


def cost(record: Record) -> float | None:
    """What all tasks cost in USD; None if no price is known."""
    known = [task.usd for task in record.tasks if task.usd is not None]
    return sum(known) if known else None


def failures(record: Record) -> str:
    """Which tasks have no scores, and why; empty if all have."""
    bad = [f"{task.key} {task.reason.replace('_', ' ')}" for task in record.tasks if task.status != "scored"]
    return f"without scores: {', '.join(bad)}" if bad else ""
