"""The public Python API; the command line is built on it.

from launcher import load_config, plan, run, results

config = load_config("default", overrides=["evaluation.limit=5"])
outcome = run(plan(config))
print(results(outcome.invocation))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

    from launcher.config import Config, Request
    from launcher.errors import LauncherError
    from launcher.orchestrator.endpoints import EndpointStatus
    from launcher.orchestrator.journal import Journal
    from launcher.orchestrator.run import Watcher
    from launcher.orchestrator.status import RunStatus
    from launcher.orchestrator.sweeps import SweepStatus
    from launcher.plan.model import Plan
    from launcher.platforms.base import Check, LogLine, Metrics
    from launcher.results.compare import Comparison
    from launcher.results.exporters.sending import Sent
    from launcher.results.gate import Decision
    from launcher.results.model import Record
    from launcher.results.report import Written
    from launcher.supervise import RunResult, Supervision
    from launcher.sweep.drive import SweepResult, SweepSupervision
    from launcher.sweep.drive import Watcher as SweepWatcher
    from launcher.sweep.model import SweepPlan

T = TypeVar("T")


def load_config(
    name: str = "default",
    *,
    overrides: Sequence[str] = (),
    config_dir: str | None = None,
    config_path: str | None = None,
) -> Config:
    """Compose and validate a config.

    `overrides` are in Hydra's grammar, as on the command line. Raises ConfigError.
    """
    from launcher.config import Request
    from launcher.errors import ConfigError

    try:
        return _load(Request(name=name, overrides=tuple(overrides), config_dir=config_dir, config_path=config_path))
    except ConfigError as error:
        raise ConfigError([_without_command_line(problem) for problem in error.problems]) from None


def _load(request: Request) -> Config:
    from launcher.config import load

    return load(request)


def _without_command_line(problem: str) -> str:
    """A problem as said to a program, which has overrides and no command line."""
    return re.sub(r"^command line: ", "override: ", problem)


def plan(config: Config, *, invocation: str | None = None) -> Plan:
    """Everything a run of this config will create, with a fresh invocation id unless one is given.

    Raises ConfigError where parts of the config contradict each other.
    """
    from launcher.plan.build import build

    return build(config, invocation)


def preflight(plan: Plan) -> list[Check]:
    """Checks of the plan against the platform. Reads only; what cannot be checked is in the list as skipped."""
    from launcher.checks import own_checks
    from launcher.errors import PlatformError, PreflightError
    from launcher.platforms import open_for
    from launcher.platforms.base import Check, CheckState

    own = own_checks(plan)
    try:
        platform = open_for(plan)
    except PreflightError as error:
        return [*own, Check(_where(plan), CheckState.SKIPPED, str(error))]

    async def check() -> list[Check]:
        try:
            return [*own, *await platform.preflight(plan)]
        except PlatformError as error:  # nobody answers: the plan can be shown all the same
            return [*own, Check(_where(plan), CheckState.SKIPPED, str(error))]
        finally:
            await platform.close()

    from launcher.orchestrator.blocking import complete  # only now: it brings asyncio

    return complete(check())


def _where(plan: Plan) -> str:
    from launcher.platforms import RENTED

    rented = f" and deployment {plan.deployment}" if plan.deployment in RENTED else ""
    return f"execution {plan.execution}{rented}"


def run(
    plan: Plan, *, watcher: Watcher | None = None, say: Callable[[str], None] = lambda _: None, yes: bool = False
) -> RunResult:
    """Run a plan, once, to its end and tear everything down; blocks. SIGINT, SIGTERM and SIGHUP end it cleanly.

    Where a loop runs already, as in Jupyter, the run has a thread of its own, in which it calls `watcher` and `say`.

    `watcher` sees every task whenever the world was looked at; `say` is told what a signal does, of limits and of
    retries. `yes`: run although the worst case of the plan breaks a limit, which then ends the run.

    Tasks that fail do not raise: they are in the result, each with its reason.

    Raises:
        PreflightError: the plan cannot run here, its worst case breaks a limit, or its results folder cannot be
            written; nothing was created.
        LauncherError: the plan has run already, or the state folder cannot be written; nothing was created.
    """
    from launcher.orchestrator.journal import Journal
    from launcher.supervise import Supervision, refuse_beyond_budget

    refuse_beyond_budget(plan, yes=yes)
    return _complete(Supervision(plan=plan, journal=Journal.default(), watcher=watcher, say=say, yes=yes))


def detach(plan: Plan, *, yes: bool = False) -> int:
    """Run a plan in a background process, which is the supervisor when this returns; returns that process's id.

    Raises as `run` does; nothing is left running then.
    """
    from launcher.errors import LauncherError
    from launcher.orchestrator import detached
    from launcher.orchestrator.journal import Fact, Journal
    from launcher.supervise import begin, begin_folder, refuse_beyond_budget

    refuse_beyond_budget(plan, yes=yes)
    folder, journal = Path(plan.output_dir) / plan.invocation, Journal.default()
    begin_folder(plan, folder)
    begin(plan, journal)
    try:
        return detached.start(journal, plan.invocation, folder, ["supervise", plan.invocation, *_accepting(yes)])
    except LauncherError as error:
        journal.record(plan.invocation, Fact.RUN_ENDED, exit_code=error.exit_code, error=str(error))
        raise


def _accepting(yes: bool) -> list[str]:
    """Arguments of the supervisor in the background."""
    return ["--yes"] if yes else []


def resume(
    invocation: str,
    *,
    change: Callable[[Plan], Plan] = lambda plan: plan,
    watcher: Watcher | None = None,
    say: Callable[[str], None] = lambda _: None,
    yes: bool = False,
) -> RunResult:
    """Go on with an invocation whose launcher is gone, that was stopped, or that failed; blocks like `run`.

    Tasks that have scores are kept. Others go on: a job that still runs is taken up, anything else gets a further
    attempt, which repeats no request that was answered. `change` may return a plan with other operational settings.
    `yes`: go on although the worst case breaks a limit in a way that was not accepted when it began.

    Raises LeaseHeld while another process runs it, NotFound if there is no such invocation, PreflightError as `run`.
    """
    from launcher.orchestrator.journal import Journal
    from launcher.supervise import refuse_beyond_budget, stored_plan, take_up

    journal = Journal.default()
    found = journal.find(invocation)
    begun = stored_plan(journal, found)
    plan = change(begun)
    refuse_beyond_budget(plan, yes=yes, accepted=begun)
    return _complete(take_up(journal, found, plan, watcher=watcher, say=say, yes=yes))


def resume_detached(invocation: str, *, change: Callable[[Plan], Plan] = lambda plan: plan, yes: bool = False) -> int:
    """Go on with an invocation in a background process; returns its id. Raises as `resume` and `detach` do."""
    from launcher.errors import LeaseHeld
    from launcher.orchestrator import detached
    from launcher.orchestrator.journal import Journal, RunState
    from launcher.supervise import begin_folder, refuse_beyond_budget, take_up

    journal = Journal.default()
    found = journal.find(invocation)
    if journal.state(found) is RunState.RUNNING:
        raise LeaseHeld(f"{found.id}: is being run; see: nv-eval attach {found.id}")
    begun = stored_plan(found.id)
    plan = change(begun)
    refuse_beyond_budget(plan, yes=yes, accepted=begun)
    begin_folder(plan, Path(plan.output_dir) / plan.invocation)
    take_up(journal, found, plan)  # keeps the changed plan, which the supervisor reads
    journal.give_up_lease(found.id)
    command = ["supervise", found.id, *_accepting(yes)]
    return detached.start(journal, found.id, Path(plan.output_dir) / plan.invocation, command)


def stored_plan(invocation: str) -> Plan:
    """The plan that an invocation was begun, or resumed, with. Raises NotFound."""
    from launcher import supervise
    from launcher.orchestrator.journal import Journal

    journal = Journal.default()
    return supervise.stored_plan(journal, journal.find(invocation))


def changed(
    plan: Plan, overrides: Sequence[str] = (), *, config_name: str | None = None, config_dir: str | None = None
) -> Plan:
    """The plan of the same invocation with another config: its own with `overrides`, or a named one.

    Raises ConfigError if that would change what is measured.
    """
    from launcher.config import Request
    from launcher.errors import ConfigError
    from launcher.plan.build import build
    from launcher.plan.changes import changes
    from launcher.results.write import config_folder

    with config_folder(plan) as folder:
        request = Request(
            name=config_name or "config",
            overrides=tuple(overrides),
            config_dir=config_dir if config_name else str(folder),
        )
        made = build(_load(request), plan.invocation)
    found = [change for change in changes(plan.config, made.config) if not change.is_operational]
    if found:
        raise ConfigError([f"{change}: would mix scores of two settings; start a new run for it" for change in found])
    return made


def end(invocation: str, *, say: Callable[[str], None] = lambda _: None) -> RunResult:
    """Tear down what an invocation left whose launcher is gone; what is scored is kept. Raises as `resume` does."""
    from launcher.orchestrator.journal import Journal
    from launcher.supervise import stored_plan, take_up

    journal = Journal.default()
    found = journal.find(invocation)
    return _complete(take_up(journal, found, stored_plan(journal, found), say=say, ends=True))


def _complete(supervision: Supervision) -> RunResult:
    from launcher.orchestrator.blocking import Interrupts, complete

    interrupts = Interrupts()
    try:
        return complete(supervision.run(interrupts), interrupts)
    finally:
        supervision.journal.give_up_lease(supervision.plan.invocation)


# --- sweeps -----------------------------------------------------------------------------------------------------------


def plan_sweep(
    name: str = "default",
    *,
    overrides: Sequence[str] = (),
    config_dir: str | None = None,
    config_path: str | None = None,
    skip_done: bool | None = None,
) -> SweepPlan:
    """The plan of a sweep: every combination of overrides with several values, and what the section `sweep` says.

    With a sweeper of Hydra's plugins (`hydra/sweeper=optuna`) it has no points yet: they are chosen as results come.
    `skip_done`: leave out points whose scores an earlier sweep has, whatever the config says of it. Raises ConfigError.
    """
    from launcher.config import Request

    request = Request(name=name, overrides=tuple(overrides), config_dir=config_dir, config_path=config_path)
    return build_sweep(request, skip_done=skip_done)


def build_sweep(request: Request, *, skip_done: bool | None = None) -> SweepPlan:
    """The plan of the sweep that a request asks for. Raises ConfigError."""
    from launcher.config import sweepers
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal
    from launcher.sweep import study
    from launcher.sweep.build import build

    choice = sweepers.chosen(request)
    if choice is not None:
        return study.build(choice, sweeps.new_id(), skip_done=skip_done)
    return build(request, lambda identity: sweeps.completed(Journal.default(), identity), skip_done=skip_done)


def already_done(plan: SweepPlan) -> dict[int, str]:
    """Invocations that have all scores of points of a sweep, by the points' numbers."""
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal

    journal = Journal.default()
    found = {point.number: sweeps.completed(journal, point.identity) for point in plan.points}
    return {number: invocation for number, invocation in found.items() if invocation is not None}


def run_sweep(
    plan: SweepPlan,
    *,
    watcher: SweepWatcher | None = None,
    say: Callable[[str], None] = lambda _: None,
    yes: bool = False,
) -> SweepResult:
    """Run all points of a sweep under its common limits and tear everything down; blocks, and hears signals, as `run`.

    `watcher` sees the status of the sweep every two seconds. Points that fail do not raise: they are in the result.

    Raises PreflightError and LauncherError as `run` does; nothing was created then.
    """
    from launcher.orchestrator.journal import Journal
    from launcher.sweep import record

    _refuse_sweep(plan, yes=yes)
    journal = Journal.default()
    record.begin(plan, journal)
    return _complete_sweep(_supervision(plan)(plan=plan, journal=journal, watcher=watcher, say=say))


def _supervision(plan: SweepPlan) -> type[SweepSupervision]:
    """How the points of a sweep are run: all that there are, or those that a sweeper chooses."""
    if plan.study is None:
        from launcher.sweep.drive import SweepSupervision

        return SweepSupervision
    from launcher.sweep.choosing import StudySupervision

    return StudySupervision


def _refuse_sweep(plan: SweepPlan, *, yes: bool) -> None:
    from launcher.sweep.limits import refuse_beyond_budget

    refuse_beyond_budget(plan, yes=yes)


def detach_sweep(plan: SweepPlan, *, yes: bool = False) -> int:
    """Run a sweep in a background process, which is the supervisor when this returns; returns that process's id."""
    from launcher.orchestrator.journal import Journal
    from launcher.sweep import record

    _refuse_sweep(plan, yes=yes)
    journal = Journal.default()
    record.begin(plan, journal, hold=False)
    return _start_sweep(journal, plan.id, Path(plan.folder))


def _start_sweep(journal: Journal, sweep: str, folder: Path) -> int:
    from launcher.errors import LauncherError
    from launcher.orchestrator import detached
    from launcher.orchestrator.journal import Fact

    try:
        return detached.start(journal, sweep, folder, ["supervise", sweep])
    except LauncherError as error:
        journal.record(sweep, Fact.RUN_ENDED, exit_code=error.exit_code, error=str(error))
        raise


def resume_sweep(
    sweep: str,
    *,
    overrides: Sequence[str] = (),
    watcher: SweepWatcher | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> SweepResult:
    """Go on with a sweep whose supervisor is gone, that was stopped, or in which points failed; blocks.

    Points that have all their scores stay; those that `overrides` make measure something else run again. Raises
    LeaseHeld while another process runs it, NotFound, ConfigError.
    """
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal
    from launcher.sweep import record
    from launcher.sweep.resume import decide

    journal = Journal.default()
    found = sweeps.find(journal, sweep)
    journal.take_lease(found.id)
    try:
        going_on = decide(record.load(journal, found), journal, overrides)
        record.keep_all(going_on.plan, journal, found)
    except BaseException:
        journal.give_up_lease(found.id)
        raise
    for number, why in going_on.why.items():
        say(f"Point {number}: {why}.")
    plan, done = going_on.plan, going_on.done
    return _complete_sweep(_supervision(plan)(plan=plan, journal=journal, watcher=watcher, say=say, done=done))


def resume_sweep_detached(sweep: str, *, overrides: Sequence[str] = ()) -> int:
    """Go on with a sweep in a background process; returns its id. Raises as `resume_sweep` does."""
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal
    from launcher.sweep import record
    from launcher.sweep.resume import decide

    journal = Journal.default()
    found = sweeps.find(journal, sweep)
    journal.take_lease(found.id)
    try:
        record.keep_all(decide(record.load(journal, found), journal, overrides).plan, journal, found)
    finally:
        journal.give_up_lease(found.id)
    return _start_sweep(journal, found.id, Path(found.folder))


def end_sweep(sweep: str, *, say: Callable[[str], None] = lambda _: None) -> SweepResult:
    """Tear down what a sweep left whose supervisor is gone; what is scored is kept. Raises as `resume_sweep` does."""
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal
    from launcher.sweep import record
    from launcher.sweep.drive import SweepSupervision

    journal = Journal.default()
    found = sweeps.find(journal, sweep)
    journal.take_lease(found.id)
    return _complete_sweep(SweepSupervision(plan=record.load(journal, found), journal=journal, say=say, ends=True))


def sweep_status(sweep: str) -> SweepStatus:
    """State of a sweep and of each of its points, by id or unique prefix. Raises NotFound."""
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal

    journal = Journal.default()
    return sweeps.status(journal, sweeps.find(journal, sweep))


def _complete_sweep(supervision: SweepSupervision) -> SweepResult:
    from launcher.orchestrator.blocking import Interrupts, complete

    interrupts = Interrupts()
    try:
        return complete(supervision.run(interrupts), interrupts)
    finally:
        supervision.journal.give_up_lease(supervision.plan.id)


def expanded(*words: str) -> list[str]:
    """Ids of invocations for words of which some may be ids of sweeps, which stand for their points that have begun.

    A point that was not run because its results were there is the invocation that has them.
    """
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal

    if not any(map(sweeps.is_sweep, words)):
        return list(words)
    return sweeps.expand(Journal.default(), words, taken_over=True)


def _taken_over(*words: str) -> frozenset[str]:
    """Invocations whose results a sweep among `words` has taken over."""
    from launcher.orchestrator import sweeps
    from launcher.orchestrator.journal import Journal

    return frozenset(sweeps.taken_over(Journal.default(), words)) if any(map(sweeps.is_sweep, words)) else frozenset()


def status(invocation: str) -> RunStatus:
    """State of an invocation by id or unique prefix. Raises NotFound."""
    from launcher.orchestrator.journal import Journal
    from launcher.orchestrator.status import of

    journal = Journal.default()
    return of(journal, journal.find(invocation))


def record(invocation: str) -> Record:
    """Everything results.json holds, by id or unique prefix, or by the path of the invocation's folder."""
    from launcher.results import read

    return read.load(_folder(invocation))


def _folder(invocation: str) -> Path:
    from launcher.orchestrator.journal import Journal

    folder = Path(invocation)
    if (folder / "plan.json").is_file():
        return folder
    return Path(Journal.default().find(invocation).folder)


def results(
    *invocations: str,
    since: float | None = None,
    model: Sequence[str] = (),
    task: Sequence[str] = (),
    macro: bool = False,
) -> pd.DataFrame:
    """The scores table: a row for each task, metric and filter, and one for each task without scores.

    Invocations by id, unique prefix or folder; without any, all that fit the filters: begun `since` then, in seconds
    since 1970, `model` and `task` patterns. `macro`: also averages over the tasks of each invocation. Columns are those
    of `launcher.results.table.COLUMNS`. Raises NotFound, and ResultsError for results that are broken.
    """
    from launcher.results import read
    from launcher.results.select import Filters, pick
    from launcher.results.table import frame

    picked = pick(invocations, Filters(since, model, task))
    for one in picked:
        if one.problem and (invocations or one.is_broken):
            read.load(one.folder)  # raises what is wrong
    return frame([record for one in picked if (record := one.record) is not None], macro=macro)


def export(
    invocation: str | Path,
    *,
    to: Sequence[str] = (),
    keys: Mapping[str, Mapping[str, Any]] | None = None,
    again: bool = False,
    timeout: float | None = None,
) -> list[Sent]:
    """Send the results of an invocation that has ended to exporters; blocks for `timeout` seconds at most.

    `invocation`: id, unique prefix or folder. `to`: exporters by name, by default those of the invocation's config,
    whose keys count as far as `keys`, by exporter, does not set others. `again`: also where a receipt says that the
    place has all of it. An export that fails does not raise: its `state` says so.
    `timeout`: by default `export.timeout` of the invocation's config.

    Raises:
        ConfigError: an unknown exporter or key, or none is named at all.
        PreflightError: an exporter cannot work as it is: a package, an address or a variable is missing.
        NotFound, ResultsError: the invocation has not ended, or its files are broken.
    """
    from launcher.orchestrator.blocking import complete
    from launcher.results.exporters import registry, sending

    folder = _folder(str(invocation))
    wanted = registry.wanted(folder, to, keys or {}, timeout=timeout)
    return complete(sending.send(folder, wanted, again=again))


# --- endpoints for themselves -----------------------------------------------------------------------------------------


def endpoint_plan(config: Config, *, ttl: float = 4 * 3600.0) -> Plan:
    """The plan of one endpoint that is wanted for itself, for `ttl` seconds from now; `detach` starts it.

    What the config evaluates is left out of account. Raises ConfigError as `plan` does, and for a ttl beyond 30 days.
    """
    import time

    from launcher.plan.endpoint import build, refuse_ttl

    refuse_ttl(ttl)
    return build(config, ttl=ttl, now=time.time())


def endpoints() -> list[EndpointStatus]:
    """Endpoints of this machine's journal that were wanted for themselves, newest first, those that are gone too."""
    from launcher.orchestrator.endpoints import every
    from launcher.orchestrator.journal import Journal

    return every(Journal.default())


def endpoint(invocation: str) -> EndpointStatus:
    """State of one such endpoint, by id or unique prefix. Raises NotFound."""
    from launcher.orchestrator import endpoints as kept
    from launcher.orchestrator.journal import Journal

    journal = Journal.default()
    return kept.status(journal, kept.find(journal, invocation))


def scale_endpoint(invocation: str, *, least: int, most: int) -> float | None:
    """Change how many replicas an endpoint has; the price of `most` in USD per hour, None where it is not known.

    Raises NotFound, and PlatformError where its platform cannot.
    """
    from launcher.orchestrator import operating

    return _operate(invocation, lambda plan, journal: operating.scale(plan, journal, least=least, most=most))


def endpoint_metrics(invocation: str, *, since: float) -> Metrics:
    """What was counted of an endpoint since a time, in seconds since 1970. Raises as `scale_endpoint` does."""
    from launcher.orchestrator import operating

    return _operate(invocation, lambda plan, journal: operating.metrics(plan, journal, since=since))


def endpoint_log(
    invocation: str, write: Callable[[LogLine], None], *, lines: int | None = None, follow: bool = False
) -> None:
    """Tell `write` the output of an endpoint in a cloud, all of it or the last `lines`; with `follow` until it ends.

    On this machine it is the file `endpoint/endpoint.log` in the invocation's folder. Raises NotFound, PlatformError.
    """
    from launcher.orchestrator import operating

    _operate(invocation, lambda plan, journal: operating.read_log(plan, journal, write, lines=lines, follow=follow))


def endpoint_key(invocation: str) -> str:
    """The key that calls an endpoint. Raises NotFound, and PlatformError if it has none or it is not known here."""
    from launcher.orchestrator import operating

    return _operate(invocation, operating.key)


def _operate(invocation: str, work: Callable[[Plan, Journal], Coroutine[Any, Any, T]]) -> T:
    from launcher import supervise
    from launcher.orchestrator import endpoints as kept
    from launcher.orchestrator.blocking import complete
    from launcher.orchestrator.journal import Journal

    journal = Journal.default()
    found = kept.find(journal, invocation)
    return complete(work(supervise.stored_plan(journal, found), journal))


def compare(
    baseline: str, *candidates: str, tasks: Sequence[str] = (), force: bool = False, flips: int = 0
) -> Comparison:
    """Compare runs with a baseline, sample by sample; each by id, unique prefix or folder. Needs the extra `stats`.

    `tasks`: patterns of names, all without; `flips`: at most so many samples of each row that scored differently.

    Raises:
        NotComparable: they measure different things, and `force` does not say to compare common samples all the same.
        NotFound: no such invocation or task, or nothing of it came home.
        ResultsError: files are broken, or there is no task in common.
    """
    comparing = _statistics("compare")
    folders = [_folder(name) for name in expanded(baseline, *candidates)]
    if len(folders) < 2:
        from launcher.errors import ConfigError

        raise ConfigError("compare: takes at least two runs, or a sweep with two points that have begun")
    taken_over = _taken_over(baseline, *candidates)
    found: Comparison = comparing.compare(folders, tasks=tasks, force=force, flips=flips, taken_over=taken_over)
    return found


def gate(baseline: str, candidate: str, *, policy: str | Path, force: bool = False) -> Decision:
    """Decide by a policy, a YAML file, whether a run holds what another had. Needs the extra `stats`.

    Raises ConfigError for a wrong policy, and as `compare` does.
    """
    deciding = _statistics("gate")
    from launcher.results.policy import load

    asked = load(Path(policy))
    found: Decision = deciding.gate(_folder(baseline), _folder(candidate), asked, force=force)
    return found


def gate_refusal(baseline: str, candidate: str, error: LauncherError) -> Decision:
    """What is written for CI where `gate` raises this: INCONCLUSIVE, and why."""
    deciding = _statistics("gate")
    found: Decision = deciding.refusal(_folder(baseline), _folder(candidate), error)
    return found


def refuse_without_statistics(module: str) -> None:
    """Raises MissingExtra if `compare` or `gate` could not work here."""
    _statistics(module)


def report(
    *invocations: str,
    output: str | Path,
    form: str | None = None,
    max_bytes: int = 5_000_000,
    max_text: int = 4_000,
    force: bool = False,
) -> Written:
    """Write a report of runs, each by id, unique prefix or folder; the first is the baseline. Needs the extra `report`.

    The id of a sweep stands for its points that have begun.

    `form`: `html`, `md` or `pdf`; without it the suffix of `output` says it. `max_bytes`: of the HTML file, which holds
    texts of samples up to it; `max_text`: characters of one text. What is left out is said in the file. `force`:
    compare common samples of runs although they measure different things.

    Raises:
        ConfigError: no such form, or the file cannot be written.
        NotFound: no such invocation, or nothing came home of any of them.
        ResultsError: no run can be read; one of several that cannot is in the report, and in its `problems`.
    """
    writing = _needing("report", "launcher.results.report")
    folders = [_folder(name) for name in expanded(*invocations)]
    if not folders:
        from launcher.errors import NotFound

        raise NotFound("report: no point of the sweep has begun")
    written: Written = writing.write(
        folders,
        Path(output),
        form=form,
        max_bytes=max_bytes,
        text_limit=max_text,
        force=force,
        taken_over=_taken_over(*invocations),
    )
    return written


def _needing(extra: str, module: str) -> ModuleType:
    """A module that needs packages of an extra."""
    from importlib import import_module

    from launcher.errors import MissingExtra

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "launcher":
            raise
        raise MissingExtra(f"{error.name}, which a {extra} needs,", extra) from None


def _statistics(module: str) -> ModuleType:
    """A module of `launcher.results` that needs the extra `stats`."""
    from importlib import import_module

    from launcher.errors import MissingExtra

    try:
        return import_module(f"launcher.results.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("scipy", "statsmodels"):
            raise
        raise MissingExtra(f"{error.name}, which {module} needs,", "stats") from None
