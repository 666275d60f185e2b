"""What a schedule's call starts for real: a run, a gate, a message."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import ConfigError, PlatformError, PreflightError
from launcher.plan.words import counted
from launcher.schedule.firing import Ended, Prepared
from launcher.schedule.model import Definition, RunSpec, Verdict, WatchSpec

if TYPE_CHECKING:
    from launcher.plan.model import Plan
    from launcher.results.model import Record
    from launcher.supervise import RunResult
    from launcher.sweep.drive import SweepResult
    from launcher.sweep.model import SweepPlan


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
        """Plan a run or a sweep. Raises ConfigError."""
        from launcher.sweep.model import SweepPlan

        found = made(run)
        if isinstance(found, SweepPlan):
            return Prepared(found.id, worst(found), lambda: swept(found, run, self.say))
        return Prepared(found.invocation, worst(found), lambda: started(found, run, self.say))

    def resume(self, invocation: str) -> Ended:
        """Go on with a run to its end. Raises LauncherError."""
        from launcher.api import resume, resume_sweep
        from launcher.orchestrator.sweeps import is_sweep

        self.say(f"{invocation}: goes on")
        if is_sweep(invocation):
            return ended_sweep(resume_sweep(invocation, say=self.say))
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


def made(run: RunSpec) -> Plan | SweepPlan:
    """The plan of a run, or of the sweep that it is, with a fresh id. Raises ConfigError."""
    from launcher.api import build_sweep, plan
    from launcher.config import Request, located, typed
    from launcher.config.compose import compose
    from launcher.sweep.section import has_points

    wanted = Request(
        name=run.config_name, overrides=run.overrides, config_dir=run.config_dir, config_path=run.config_path
    )
    composition = None if run.multirun else compose(wanted)
    if composition is None or has_points(composition):
        return build_sweep(wanted, skip_done=run.skip_done)
    if run.skip_done:
        raise ConfigError("-- run --skip-done: is for sweeps, and this is one run; see: nv-eval run --help")
    config = typed(composition, wanted)
    with located(wanted):
        return plan(config)


def plans(found: Plan | SweepPlan) -> list[Plan]:
    """The plans of all invocations that there will be, or that stand for those that a sweeper chooses."""
    from launcher.sweep.model import SweepPlan

    return [point.plan for point in found.examples] if isinstance(found, SweepPlan) else [found]


def refuse_beyond_limits(found: Plan | SweepPlan) -> None:
    """Raises PreflightError for a limit of its own that its worst case breaks."""
    from launcher import supervise
    from launcher.sweep import limits
    from launcher.sweep.model import SweepPlan

    if isinstance(found, SweepPlan):
        limits.refuse_beyond_budget(found, yes=False)
    else:
        supervise.refuse_beyond_budget(found, yes=False)


def worst(found: Plan | SweepPlan) -> float | None:
    """The most that it can cost in USD: by its time-outs, or by the limit that ends it; None if neither is known."""
    from launcher.sweep.model import SweepPlan

    if not isinstance(found, SweepPlan):
        return _worst(found)
    points = [_worst(plan) for plan in plans(found)]
    known = [usd for usd in points if usd is not None]
    total = sum(known) if found.study is None else found.study.most * max(known, default=0.0)
    bounds = (total if len(known) == len(points) else None, found.settings.max_cost_usd)
    return min((usd for usd in bounds if usd is not None), default=None)


def _worst(plan: Plan) -> float | None:
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


def swept(plan: SweepPlan, run: RunSpec, say: Callable[[str], None]) -> Ended:
    """Run a sweep to its end. Raises LauncherError if nothing was created."""
    from launcher.api import run_sweep

    say(f"{plan.id}: a sweep of {counted(len(plan.points), 'point')} begins; written to {plan.folder}")
    return ended_sweep(run_sweep(plan, say=say, yes=run.yes))


def ended_sweep(result: SweepResult) -> Ended:
    """How a sweep ended."""
    good = ("scored", "skipped")
    bad = [f"point {point.number} {point.state}" for point in result.status.points if point.state not in good]
    return Ended(result.exit_code, result.status.usd, f"without all scores: {', '.join(bad)}" if bad else "")


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
