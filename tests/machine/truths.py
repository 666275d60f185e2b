"""What must be true of the journal and the world after every step, whatever happened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from launcher.harnesses.spec import Score
from launcher.orchestrator.journal import Entry, Fact, Journal
from launcher.orchestrator.reasons import Reason
from launcher.orchestrator.recover import SCORES, read_scores
from launcher.orchestrator.status import of
from launcher.plan.attempts import attempt
from launcher.plan.model import Plan, TaskPlan
from tests.fakes.lives import Life
from tests.fakes.world import NEVER, Kind, World

INTENTS: dict[Kind, Fact] = {"endpoint": Fact.INTEND_CREATE_ENDPOINT, "job": Fact.INTEND_SUBMIT_JOB}


@dataclass(frozen=True)
class Home:
    """The scores of one task as they came home, and how many jobs it had had until then."""

    scores: list[Score]
    jobs: int


@dataclass
class Truths:
    """Looks at one invocation from outside, with a journal connection of its own."""

    plan: Plan
    world: World
    journal: Journal
    resumes: int = 0
    homes: dict[str, Home] = field(default_factory=dict)
    limited: set[int] = field(default_factory=set)
    """Numbers of the launchers that keep the plan's limits."""
    clocks_are_true: bool = True
    """No clock has jumped or stood still: what was used can be reckoned from outside."""

    @property
    def folder(self) -> Path:
        return Path(self.plan.output_dir) / self.plan.invocation

    @property
    def _made(self) -> tuple[TaskPlan, ...]:
        """All that may have an endpoint: tasks, and what is auxiliary to them."""
        return (*self.plan.tasks, *self.plan.helpers)

    def facts(self) -> list[Entry]:
        return self.journal.facts(self.plan.invocation)

    def intended(self, kind: Kind, name: str) -> bool:
        """Whether the intent to create something is in the journal."""
        return any(fact.kind is INTENTS[kind] and fact.name == name for fact in self.facts())

    def hold(self) -> None:
        """Raises AssertionError if one of them does not hold now."""
        alive = self.world.alive()
        facts = self.facts()
        assert not self.world.violations, self.world.violations
        for thing in alive:
            assert self.intended(thing.kind, thing.name), f"{thing.name} is alive and no row leads to its deletion"
        gone = {name for task in self._made for name in self._said_gone(task, facts)}
        assert not (lies := gone & {thing.name for thing in alive}), f"said to be gone and alive: {lies}"
        self._scores_stay()
        self._status_is_honest({thing.name for thing in alive})
        for fact in facts:
            assert fact.data.get("reason") != Reason.LAUNCHER_ERROR.value, fact
            if fact.kind is Fact.TASK_RETRY:
                assert fact.data["attempt"] <= self.plan.max_attempts + self.resumes, fact

    def _said_gone(self, task: TaskPlan, facts: list[Entry]) -> set[str]:
        """Names of which the journal says that they are gone: they were asked for before."""
        number, names, asked, endpoint = 1, set[str](), False, ""
        for fact in (fact for fact in facts if fact.task == task.key):
            asked = (asked or fact.kind in INTENTS.values()) and fact.kind is not Fact.TASK_RETRY
            if fact.kind is Fact.TASK_RETRY:
                number = fact.data["attempt"]
            if fact.kind in (Fact.INTEND_CREATE_ENDPOINT, Fact.TASK_RETRY):
                endpoint = fact.name
            if fact.kind is Fact.TASK_GONE and asked:
                names |= {attempt(task, number, self.plan.invocation).job.name}
                names |= {endpoint} if not fact.data.get("left") else set()
        return names

    def _status_is_honest(self, alive: set[str]) -> None:
        """What ends with its launcher does so a moment later: there the status may be ahead of the world."""
        if not self.journal.invocations() or self.world.ends_with_launcher:
            return
        found = replace(self.journal.find(self.plan.invocation), execution="elsewhere")
        tasks = of(self.journal, found).tasks
        shared = any(endpoint.is_shared for endpoint in self.plan.endpoints)
        for task in tasks:
            others_may = any(other.alive is not False for other in tasks if not other.is_auxiliary)
            held = {task.endpoint} if shared and others_may and not task.is_auxiliary else set[str]()
            lies = ({task.job, task.endpoint} - held) & alive
            assert task.alive is not False or not lies, f"status calls {lies} gone"

    def _scores_stay(self) -> None:
        for task in self.plan.tasks:
            scores = read_scores(self.folder / task.key / SCORES)
            home = self.homes.get(task.key)
            jobs = sum(thing.kind == "job" and thing.task == task.key for thing in self.world.things)
            if home is None and scores is not None:
                self.homes[task.key] = Home(scores, jobs)
            if home is not None:
                assert scores == home.scores, f"{task.key} lost its scores"
                assert jobs == home.jobs, f"{task.key} was evaluated again"

    # --- limits -------------------------------------------------------------------------------------------------------

    def limits_hold(self, life: Life, poll_interval: float) -> None:
        """Raises AssertionError if a launcher let endpoints live on for long when a limit was reached."""
        reached = min(self._used_up(), self._too_long(life))
        if life.number not in self.limited or reached == NEVER or not self.clocks_are_true:
            return
        patience = 3 * poll_interval + 5.0
        for thing in (thing for thing in self.world.things if thing.kind == "endpoint"):
            if thing.sender == life.number:
                assert life.lived_between(reached, thing.asked) <= patience, f"{thing.name} was created beyond a limit"
            idle = life.lived_between(max(reached, thing.listed), min(thing.tried, thing.gone_at))
            assert idle <= patience, f"{thing.name} lived on for {idle:.0f} s when a limit was reached"

    def _used_up(self) -> float:
        """When the endpoints had used all GPU time that the plan allows."""
        if self.plan.max_gpu_hours is None:
            return NEVER
        left, before = self.plan.max_gpu_hours * 3600, 0.0
        spans = [(t.begun, min(t.gone_at, self.world.now)) for t in self.world.things if t.kind == "endpoint"]
        spans = [(begun, over) for begun, over in spans if over > begun]
        for moment in sorted({moment for span in spans for moment in span}):
            rate = sum(begun < moment <= over for begun, over in spans)
            if rate and left <= rate * (moment - before):
                return before + left / rate
            left, before = left - rate * (moment - before), moment
        return NEVER

    def _too_long(self, life: Life) -> float:
        """When a launcher had lived as long as the plan allows."""
        left = NEVER if self.plan.max_duration is None else self.plan.max_duration + 1.0
        for begun, over in life.lived:
            if left <= over - begun:
                return begun + left
            left -= over - begun
        return NEVER

    # --- the end ------------------------------------------------------------------------------------------------------

    def told(self, life: Life) -> None:
        """Raises AssertionError if a launcher that ended in order kept silent on something that is, or may be, left."""
        if life.result is None:
            return
        left = {t.name for t in self.world.things if max(self.world.now, t.begun) < t.gone_at}
        assert left <= set(life.result.outcome.leftovers), f"left and not told: {left}"

    def final(self, life: Life) -> None:
        """After a last resume in a world without faults nothing is left; each task has scores or a clean reason."""
        assert life.error is None and life.result is not None, life.error
        assert life.result.outcome.leftovers == []
        bad = {Reason.STOPPED, Reason.LAUNCHER_DIED, Reason.LAUNCHER_ERROR, Reason.RESULTS_NOT_FETCHED}
        bad |= {Reason.RESULTS_INVALID, Reason.JOB_NOT_SUBMITTED}
        gone = {one.key for one in life.result.outcome.auxiliary if one.reason is not Reason.RELEASED}
        forlorn = {task.key for task in self.plan.tasks if gone & set(task.auxiliary)}
        for task in life.result.outcome.tasks:
            retriable = bad - {Reason.STOPPED, Reason.LAUNCHER_ERROR}
            # Without its auxiliary endpoint a task has no further attempt: it keeps the reason that the last one had.
            assert task.reason not in (bad - retriable if task.key in forlorn else bad), task
            assert (task.reason is Reason.COMPLETED) == bool(task.scores), task
            home = self.homes.get(task.key)
            assert home is None or list(task.scores) == home.scores, f"{task.key}: its scores are not told"
