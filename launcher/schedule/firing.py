"""What to do when a schedule is called: run, skip or only record, by what is true now and not by who called.

Every timer calls `nv-eval schedule fire NAME`, at the right time, late, twice or too often. Which times have passed
since the last decision is worked out anew in each call, under a lock, so each time is decided exactly once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from launcher.errors import ConfigError, Interrupted, LauncherError
from launcher.orchestrator.journal import Journal
from launcher.plan.words import amount, counted
from launcher.schedule import times
from launcher.schedule.model import Definition, Fire, Outcome, Schedule, Verdict
from launcher.schedule.settling import cost, invocation, outcome_of, settle
from launcher.schedule.store import Store

_CLOCK_SET_BACK = 3600.0
"""Seconds that the last decision may lie ahead: small corrections of a clock are none of our business."""
_WORTH_TELLING = (Outcome.FAILED, Outcome.KILLED, Outcome.BUDGET)


class Clock(Protocol):
    """The time, in seconds since 1970, and how to wait."""

    def time(self) -> float:
        """Now."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@dataclass(frozen=True)
class Ended:
    """How a run ended. `usd`: what it cost, where prices are known."""

    exit_code: int
    usd: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Prepared:
    """A run that has an id and has created nothing. `worst_usd`: the most that it can cost, if that is known."""

    invocation: str
    worst_usd: float | None
    go: Callable[[], Ended]


class Launch(Protocol):
    """What lies outside: runs, gates, messages."""

    def prepare(self, definition: Definition) -> Prepared:
        """Plan the run. Raises LauncherError."""
        ...

    def gate(self, policy: str, baseline: str, candidate: str) -> tuple[Verdict, str]:
        """Compare two invocations. Raises LauncherError if they cannot be compared."""
        ...

    def tell(self, names: tuple[str, ...], title: str, text: str) -> None:
        """Send a message. Raises LauncherError if it cannot be sent."""
        ...


@dataclass(kw_only=True)
class Firing:
    """One call."""

    store: Store
    journal: Journal
    launch: Launch
    clock: Clock = time
    say: Callable[[str], None] = lambda _: None

    def fire(self, name: str, *, due: float | None = None, manual: bool = False) -> Fire | None:
        """Decide about all times that have passed; returns the line of the last one, None if nothing was due.

        `due`: a time that the caller names, in seconds since 1970; `manual`: run now, whatever the calendar says.
        """
        settle(self.store, self.journal, self.clock.time())
        schedule = self.store.find(name)
        try:
            with self.store.writing():
                fire = self._claim(self.store.find(name), due=due, manual=manual)
            if fire is not None and fire.outcome is None:
                fire = self._run(schedule, fire)
        finally:
            self._tell(schedule)
        return fire

    def pass_over(self, name: str) -> None:
        """Before a schedule is paused or goes on: what has passed until now is decided, and nothing runs."""
        with self.store.writing():
            schedule, now = self.store.find(name), self.clock.time()
            until = now if schedule.paused else now - schedule.definition.grace
            dues = _cron(schedule).between(schedule.handled, until)
            if dues and schedule.paused:
                self._record(schedule, Outcome.PAUSED, dues)
            elif dues:
                self._record_passed(schedule, dues)
            self.store.handle(name, until)

    # --- deciding ---------------------------------------------------------------------------------------------------

    def _claim(self, schedule: Schedule, *, due: float | None, manual: bool) -> Fire | None:
        """Record what is decided at once; without an outcome, this process is to run it."""
        now, definition = self.clock.time(), schedule.definition
        if manual:
            return self._start_unless_overlapping(schedule, None, now)
        if schedule.handled > now + _CLOCK_SET_BACK:
            schedule = self._rewind(schedule, now)
        dues = _cron(schedule).between(schedule.handled, now)
        if due is not None:
            dues = [one for one in dues if one < due] + ([due] if schedule.handled < due <= now else [])
        if not dues:
            return None
        self.store.handle(schedule.name, dues[-1])
        if schedule.paused:
            return self._record(schedule, Outcome.PAUSED, dues)
        is_late = now - dues[-1] > definition.grace
        passed = dues if is_late and definition.catch_up == "none" else dues[:-1]
        last = self._record_passed(schedule, passed)
        if passed is dues:
            return last
        return self._start_unless_overlapping(schedule, dues[-1], now, "caught up" if is_late else "")

    def _rewind(self, schedule: Schedule, now: float) -> Schedule:
        """After a clock that was far ahead: times count from now again, and none that has a line is decided twice."""
        decided = [fire.due for fire in self.store.history(schedule.name) if fire.due is not None and fire.due <= now]
        self.store.rewind(schedule.name, max([now - schedule.definition.grace, schedule.created, *decided]))
        detail = "the clock of the machine was ahead and was set back; times count from now again"
        self.store.record(schedule.name, Outcome.MISSED, due=None, detail=detail)
        return self.store.find(schedule.name)

    def _record_passed(self, schedule: Schedule, dues: list[float]) -> Fire | None:
        """Times at which nobody called: while a run of this schedule went on, that may be why; else they are missed."""
        runs = [fire for fire in self.store.history(schedule.name) if fire.started is not None]
        during = [due for due in dues if any(_spans(fire, due) for fire in runs)]
        last = (
            self._record(schedule, Outcome.OVERLAP, during)
            if during and not schedule.definition.allow_overlap
            else None
        )
        missed = [due for due in dues if last is None or due not in during]
        return self._record(schedule, Outcome.MISSED, missed) if missed else last

    def _record(self, schedule: Schedule, outcome: Outcome, dues: list[float], detail: str = "") -> Fire:
        return self.store.record(
            schedule.name, outcome, due=dues[-1], first_due=dues[0], count=len(dues), detail=detail
        )

    def _start_unless_overlapping(self, schedule: Schedule, due: float | None, now: float, detail: str = "") -> Fire:
        running = [fire for fire in self.store.history(schedule.name) if fire.outcome is None]
        if running and not schedule.definition.allow_overlap:
            what = f"{running[-1].invocation or 'the one before'} is still running"
            return self.store.record(schedule.name, Outcome.OVERLAP, due=due, first_due=due, detail=what)
        return self.store.record(schedule.name, None, due=due, first_due=due, started=now, detail=detail)

    def _over_budget(self, definition: Definition, prepared: Prepared, fire: Fire) -> str:
        """Which budget the run could break, in one line; empty if none."""
        cron, now = times.parse(definition.cron, definition.timezone), self.clock.time()
        costs = self.journal.costs()
        bounds = (
            ("day", definition.budget_day, cron.day_began(now)),
            ("month", definition.budget_month, cron.month_began(now)),
        )
        for span, most, began in bounds:
            if most is None:
                continue
            if prepared.worst_usd is None:
                return f"budget of the {span}: no price of the run is known; set execution.usd_per_gpu_hour"
            others = [one for one in self.store.history() if one.id != fire.id and (one.started or 0) >= began]
            if self.store.damaged_fires:
                return f"budget of the {span}: nobody knows what is spent: {self.store.damaged_fires[0]}"
            spent = sum(charge(one, costs) for one in others)
            if spent + prepared.worst_usd > most:
                return (
                    f"budget of the {span}: {amount(spent)} of {amount(most)} USD are spent or promised, and the worst "
                    f"case of this run is {amount(prepared.worst_usd)} USD"
                )
        return ""

    # --- running ----------------------------------------------------------------------------------------------------

    def _run(self, schedule: Schedule, fire: Fire) -> Fire:
        try:
            self._wait(schedule, fire)
            prepared = self.launch.prepare(schedule.definition)
            with self.store.writing():
                withdrawn = self._withdrawn(schedule, fire)
                if withdrawn is not None:
                    return withdrawn
                problem = self._over_budget(schedule.definition, prepared, fire)
                if problem:
                    return self.store.update(fire, outcome=Outcome.BUDGET, started=None, detail=problem)
                fire = self.store.update(
                    fire, invocation=prepared.invocation, worst_usd=prepared.worst_usd, started=self.clock.time()
                )
            ended = prepared.go()
        except (LauncherError, KeyboardInterrupt) as error:
            known = error if isinstance(error, LauncherError) else Interrupted("interrupted")
            self._end(fire, Ended(known.exit_code, detail=str(known)))
            raise
        return self._judge(schedule, self._end(fire, ended))

    def _withdrawn(self, schedule: Schedule, fire: Fire) -> Fire | None:
        """The line of a time whose schedule was paused or removed while it waited, else None."""
        now = next((one for one in self.store.schedules() if one.name == schedule.name), None)
        if now is None or now.created != schedule.created:
            detail = "the schedule was removed before the run began"
            return self.store.update(fire, outcome=Outcome.STOPPED, started=None, detail=detail)
        if now.paused and fire.due is not None:
            return self.store.update(fire, outcome=Outcome.PAUSED, started=None)
        return None

    def _wait(self, schedule: Schedule, fire: Fire) -> None:
        """The jitter, which keeps many schedules from asking for GPUs in the same second."""
        seconds = jitter(schedule.definition, fire.due) if fire.due is not None else 0.0
        if seconds:
            self.say(f"{schedule.name}: waits {seconds:.0f} s (--jitter)")
            self.clock.sleep(seconds)

    def _end(self, fire: Fire, ended: Ended) -> Fire:
        detail = "; ".join(filter(None, (fire.detail, ended.detail)))
        usd = ended.usd
        if usd is None and invocation(self.journal, fire.invocation) is not None:
            usd = cost(self.journal, fire.invocation)
        return self.store.update(
            fire,
            outcome=outcome_of(ended.exit_code),
            exit_code=ended.exit_code,
            ended=self.clock.time(),
            usd=usd,
            detail=detail,
        )

    def _judge(self, schedule: Schedule, fire: Fire) -> Fire:
        """By the gate, if there is one and the run is complete."""
        policy = schedule.definition.gate
        if policy is None or fire.outcome is not Outcome.SCORED:
            return fire
        good = self.store.last_good(schedule)
        if good is None:
            return self.store.update(fire, verdict=Verdict.FIRST)
        try:
            verdict, said = self.launch.gate(policy, good.invocation, fire.invocation)
        except LauncherError as error:
            verdict, said = Verdict.UNDECIDED, str(error)
        detail = "; ".join(filter(None, (fire.detail, said)))
        return self.store.update(fire, verdict=verdict, baseline=good.invocation, detail=detail)

    # --- telling ----------------------------------------------------------------------------------------------------

    def _tell(self, schedule: Schedule) -> None:
        """Of everything bad that nobody was told of yet, also by an earlier call that was killed."""
        with self.store.telling():
            self._tell_alone(schedule)

    def _tell_alone(self, schedule: Schedule) -> None:
        for fire in self.store.untold(schedule.name):
            bad = fire.outcome in _WORTH_TELLING or fire.verdict in (Verdict.NO_GO, Verdict.UNDECIDED)
            if bad and schedule.definition.notify:
                try:
                    self.launch.tell(schedule.definition.notify, f"nv-eval schedule {schedule.name}", told(fire))
                except LauncherError as error:
                    self.say(f"{schedule.name}: nobody could be told: {error}")
                    return  # the next call tries again
            self.store.update(fire, told=1)


def told(fire: Fire) -> str:
    """What became of a time, in one line for a person."""
    said = str(fire.outcome or "running") if fire.count == 1 else f"{fire.outcome}: {counted(fire.count, 'time')}"
    parts = [f"{fire.invocation}: " if fire.invocation else "", said]
    parts += [f", gate: {fire.verdict} against {fire.baseline}" if fire.baseline else ""]
    parts += [f" (exit code {fire.exit_code})" if fire.exit_code else "", f"; {fire.detail}" if fire.detail else ""]
    return "".join(parts)


def charge(fire: Fire, costs: dict[str, float]) -> float:
    """What a run counts for in budgets, in USD: its worst case until it is known how it ended, then what it cost."""
    so_far = max(fire.usd or 0.0, costs.get(fire.invocation, 0.0))
    return max(so_far, fire.worst_usd or 0.0) if fire.outcome in (None, Outcome.KILLED) else so_far


def jitter(definition: Definition, due: float) -> float:
    """Seconds to wait after a time, the same whenever and wherever that is asked."""
    digest = hashlib.sha256(f"{definition.name} {due:.0f}".encode()).digest()
    return definition.jitter * int.from_bytes(digest[:6]) / 2**48


def refuse_unkeepable(definition: Definition, worst_usd: float | None) -> None:
    """Raises ConfigError for a budget that cannot be kept, or that no run of this schedule ever fits in."""
    for option, most in (("--budget-day", definition.budget_day), ("--budget-month", definition.budget_month)):
        if most is not None and worst_usd is None:
            raise ConfigError(f"{option}: no price is known; set execution.usd_per_gpu_hour, or prices of shapes")
        if most is not None and worst_usd is not None and worst_usd > most:
            raise ConfigError(
                f"{option} {amount(most)}: the worst case of one run is {amount(worst_usd)} USD; it could never begin"
            )


def _cron(schedule: Schedule) -> times.Cron:
    return times.parse(schedule.definition.cron, schedule.definition.timezone)


def _spans(fire: Fire, due: float) -> bool:
    """Whether a run went on at a time."""
    begin = fire.due if fire.due is not None else fire.started
    return begin is not None and begin < due and (fire.ended is None or due <= fire.ended)
