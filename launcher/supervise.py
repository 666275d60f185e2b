"""Run an invocation from its first request to its last record: a new one, or the rest of one whose launcher is gone."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from launcher.config.export import chosen
from launcher.config.schema import Notify
from launcher.decoding import decode
from launcher.errors import LauncherError, NotFound, PreflightError, ResultsError
from launcher.notify import Notifier
from launcher.orchestrator import budget
from launcher.orchestrator.admission import Admission
from launcher.orchestrator.blocking import Interrupts
from launcher.orchestrator.endpoints import begin_to_keep, refuse_resume
from launcher.orchestrator.journal import HEARTBEAT, Entry, Fact, Invocation, Journal
from launcher.orchestrator.keeper import keeper
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.run import Run, Watcher
from launcher.orchestrator.signals import handled, heard, reaction
from launcher.orchestrator.state import RunOutcome
from launcher.plan.model import Plan
from launcher.platforms import open_for
from launcher.platforms.base import BUDGET, QUOTA, Check, CheckState, Platform, Sharing, identified
from launcher.platforms.pair import halves
from launcher.results import intervals, timeline, write
from launcher.results.exporters import registry
from launcher.results.exporters import sending as exports
from launcher.results.model import Record

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A run that has ended: its id, its folder, its record, and the exit code of the command line."""

    invocation: str
    folder: Path
    record: Record
    outcome: RunOutcome
    saved: bool = True
    """Whether results.json could be written."""
    not_exported: tuple[str, ...] = ()
    """What could not be sent to where the config says, one line each with the command that repeats it."""

    @property
    def exit_code(self) -> int:
        """0 only if every task has scores, they are saved, and nothing is left running."""
        return self.outcome.exit_code or (0 if self.saved else ResultsError.exit_code)


@dataclass(kw_only=True)
class Supervision:
    """How one invocation is run. `facts` of the journal: None for one that has not begun."""

    plan: Plan
    journal: Journal
    watcher: Watcher | None = None
    say: Say = lambda _: None
    facts: Sequence[Entry] | None = None
    ends: bool = False
    """Only tear down what is there, and record how it ended."""
    yes: bool = False
    """Run although the worst case breaks a limit, which then ends the run."""
    platform: Platform | None = None
    """Where it runs, if not where its plan alone says."""
    admission: Admission | None = None
    """Says which tasks may start, where other runs share its limits."""
    is_alone: bool = True
    """It hears signals and tells people how it went; otherwise somebody does that for several runs."""
    began: Callable[[Run], None] = lambda _: None
    """Given the run when it is about to look at the world."""

    async def run(self, interrupts: Interrupts) -> RunResult:
        """Run to the end.

        Raises PreflightError if the plan cannot run here, or its results cannot be written; nothing was created then.
        """
        is_quiet = self.ends or not self.is_alone  # no address keeps a teardown from happening
        notifier = Notifier(Notify() if is_quiet else self.plan.notify_config(), self.plan.invocation)
        platform = self.platform or self._opened()
        if isinstance(platform, Sharing):
            platform.attend(self.say, creates=not self.ends)

        def tell(event: str, text: str) -> None:
            self.say(text)
            notifier.tell(event, text)

        live = Run(
            self.plan,
            platform,
            self.journal,
            watcher=self.watcher,
            tell=tell,
            facts=self.facts,
            admission=self.admission,
        )
        try:
            await self._prepare(platform, live.folder)
        except BaseException:
            await platform.close()
            raise
        if self.ends:
            live.stop()
        interrupts.react = reaction(live, self.say)
        self.began(live)
        with handled(live, self.say) if self.is_alone else contextlib.nullcontext():
            outcome = await live.run()
            outcome = await self._in_a_thread(partial(intervals.with_intervals, self.plan, outcome, live.folder))
            result = self._written(live, outcome)
        problem = await asyncio.to_thread(notifier.conclude, outcome, str(live.folder))
        if problem is not None:
            self.say(problem)
        return replace(result, not_exported=tuple(await self._export(result, interrupts)))

    async def _export(self, result: RunResult, interrupts: Interrupts) -> list[str]:
        """Send the results where the config says, when all is gone and written; what fails here fails no run.

        Returns what was not sent, in lines that were said.
        """
        export = self.plan.export_config()
        if self.ends or not chosen(export) or not result.saved:
            return []
        again = f"nv-eval export {result.invocation}"
        if result.outcome.ended_by is Reason.STOPPED:
            return self._said([f"Not exported, since the run was stopped; export what is scored with: {again}"])
        sending = asyncio.ensure_future(exports.send(result.folder, export))
        interrupts.react = sending.cancel
        try:
            with heard(sending.cancel):
                sent = await self._alive_until(sending)
        except asyncio.CancelledError:
            return self._said([f"Not waiting for exports any longer; repeat them with: {again}"])
        except Exception as error:  # a defect here is no reason to call a run failed that has its scores
            return self._said([f"Not exported: {type(error).__name__}: {error}; repeat it with: {again}"])
        failed = [one for one in sent if one.state is exports.State.FAILED]
        self._said([one.line() for one in sent if one not in failed])
        return self._said([one.line(f"{again} --to {one.exporter}") for one in failed])

    def _said(self, lines: list[str]) -> list[str]:
        for line in lines:
            self.say(line)
        return lines

    async def _in_a_thread(self, work: Callable[[], T]) -> T:
        """Work that may take long, while the journal is shown that this process lives."""
        return await self._alive_until(asyncio.ensure_future(asyncio.to_thread(work)))

    async def _alive_until(self, working: asyncio.Future[T]) -> T:
        """The result, while the journal is shown that this process lives."""
        try:
            while not working.done():
                self.journal.keep_lease(self.plan.invocation)
                await asyncio.wait({working}, timeout=HEARTBEAT)
        finally:
            working.cancel()
        return working.result()

    def _opened(self) -> Platform:
        return keeper(self.plan, self.journal) if self.plan.expires is not None else open_for(self.plan)

    async def _prepare(self, platform: Platform, folder: Path) -> None:
        here = await identified(platform)
        if self.facts is not None:
            refuse_elsewhere(self.journal, self.plan.invocation, here)
        for half in halves(platform):
            if self.facts and half.close_ends_all:
                await remove_leftovers(half, self.plan.invocation)
        if not self.ends:
            checks = [check for check in await platform.preflight(self.plan) if check.state is CheckState.PROBLEM]
            problems = [check.message for check in checks if self._matters(check)]
            problems += registry.problems(self.plan.export_config())
            if problems:
                raise PreflightError(problems)
        try:
            begin_folder(self.plan, folder)
        except PreflightError as error:
            if not self.ends:  # files that cannot be written keep nothing from being torn down
                raise
            self.say(str(error))

    def _matters(self, check: Check) -> bool:
        """Whether a problem keeps this run from beginning: others of its sweep, or itself, may use what it lacks."""
        if check.name == QUOTA:
            return self.is_alone and self.facts is None
        return check.name != BUDGET or not self._is_accepted()

    def _is_accepted(self) -> bool:
        """Whether a worst case beyond a limit was accepted, now or when the invocation began."""
        return self.yes or any(fact.kind is Fact.RUN_STARTED for fact in self.facts or ())

    def _written(self, live: Run, outcome: RunOutcome) -> RunResult:
        invocation = self.plan.invocation
        try:
            began = self.facts[0].time if self.facts else None
            written = write.finish(self.plan, outcome, live.folder, began=began)
        finally:
            live.conclude(outcome)
        for problem in (*written.problems, *self._write_timeline(live.folder)):
            self.say(problem)
        return RunResult(
            invocation=invocation, folder=live.folder, record=written.record, outcome=outcome, saved=written.saved
        )

    def _write_timeline(self, folder: Path) -> list[str]:
        """Write when everything was there, once the end is in the journal; what went wrong, in a line."""
        path = folder / timeline.FILE
        try:
            found = timeline.from_facts(self.plan.invocation, self.journal.facts(self.plan.invocation), self.plan)
            write.write_atomically(path, msgspec.json.format(msgspec.json.encode(found)))
        except (LauncherError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            return [f"{path}: cannot be written: {reason or error}"]
        return []


def refuse_elsewhere(journal: Journal, invocation: str, here: str) -> None:
    """Raises PreflightError if an invocation has run in another place than the one that the credentials lead to."""
    before = journal.place(invocation)
    if before and here and before != here:
        raise PreflightError(
            f"{invocation}: has run in {before}, and the credentials here lead to {here}; use those of {before}"
        )


def begin_folder(plan: Plan, folder: Path) -> None:
    """Make the invocation's folder. Raises PreflightError if it cannot be written."""
    try:
        write.begin(plan, folder)
    except OSError as error:
        raise PreflightError(f"{folder}: cannot write results: {error.strerror}; set execution.output_dir") from None


async def remove_leftovers(platform: Platform, invocation: str) -> None:
    """What a launcher that was killed left of this invocation where everything should have ended with it."""
    for left in await platform.sweep():
        if left.invocation == invocation:
            await platform.remove(left)


def refuse_beyond_budget(plan: Plan, *, yes: bool, accepted: Plan | None = None) -> None:
    """Raises PreflightError for a bound that cannot be kept or, unless `yes`, that the worst case breaks.

    `accepted`: the plan that is resumed; what its worst case breaks was accepted when it began.
    """
    known = budget.beyond(accepted) if accepted is not None else []
    beyond = [] if yes else [problem for problem in budget.beyond(plan) if problem not in known]
    problems = [*budget.unkeepable(plan), *beyond]
    if problems:
        raise PreflightError(problems)


def begin(plan: Plan, journal: Journal) -> None:
    """Record an invocation that another process will run."""
    journal.begin(
        plan.invocation,
        execution=plan.execution,
        deployment=plan.deployment,
        folder=str(Path(plan.output_dir) / plan.invocation),
        tasks=[task.key for task in plan.tasks],
        plan=msgspec.json.encode(plan),
        hold=False,
    )
    begin_to_keep(plan, journal)


def stored_plan(journal: Journal, invocation: Invocation) -> Plan:
    """The plan that an invocation was begun with. Raises NotFound if it cannot be had any more."""
    try:
        kept = journal.plan(invocation.id)
    except NotFound:
        saved = Path(invocation.folder) / "plan.json"
        if not saved.is_file():
            raise
        return _decoded(saved.read_bytes(), f"{saved}: is damaged, or was made by another version of nv-eval")
    return _decoded(kept, f"{invocation.id}: its plan was made by another version of nv-eval")


def _decoded(plan: bytes, otherwise: str) -> Plan:
    try:
        return decode(plan, Plan)
    except msgspec.DecodeError as error:
        raise NotFound(f"{otherwise}: {error}") from None


def take_up(
    journal: Journal,
    invocation: Invocation,
    plan: Plan,
    *,
    watcher: Watcher | None = None,
    say: Say = lambda _: None,
    ends: bool = False,
    yes: bool = False,
) -> Supervision:
    """Become the supervisor of an invocation that has begun. Raises LeaseHeld while another process is."""
    if not ends:
        refuse_resume(journal, invocation)
    journal.take_lease(invocation.id)
    try:
        _move(journal, invocation, plan)
        facts = [fact for fact in journal.facts(invocation.id) if fact.kind is not Fact.ENDPOINT_KEPT]
    except BaseException:
        journal.give_up_lease(invocation.id)
        raise
    return Supervision(plan=plan, journal=journal, watcher=watcher, say=say, facts=facts, ends=ends, yes=yes)


def _move(journal: Journal, invocation: Invocation, plan: Plan) -> None:
    """Keep what came home so far where a changed `output_dir` wants it, and the plan as it is now."""
    folder = Path(plan.output_dir) / plan.invocation
    if str(folder) != invocation.folder and Path(invocation.folder).is_dir():
        try:
            shutil.copytree(invocation.folder, folder, dirs_exist_ok=True)
        except OSError as error:  # shutil's own errors are of this kind, too
            raise PreflightError(f"{folder}: cannot move results there: {error}; set execution.output_dir") from None
    journal.replan(invocation.id, folder=str(folder), plan=msgspec.json.encode(plan))
