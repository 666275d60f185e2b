"""May the candidate replace the baseline? `nv-eval gate` decides by a policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from launcher.errors import Inconclusive, LauncherError, NoGo, NotFound, ResultsError, nearest
from launcher.harnesses.spec import Score
from launcher.results import compare, pairing
from launcher.results.compare import RunInfo
from launcher.results.means import SEED
from launcher.results.model import TaskRecord
from launcher.results.pairing import Choice, Matched, Run
from launcher.results.policy import Limits, Policy
from launcher.results.statistics import RESAMPLES, Interval
from launcher.results.table import label

SCHEMA = "nv-eval.gate/1"
_ROUNDING = 1e-9
"""What sums of floats are off by: 0.50 to 0.48 is a drop of 0.02 and no more."""


class Verdict(StrEnum):
    """Of a check and of the whole gate."""

    GO = "GO"
    NO_GO = "NO-GO"
    INCONCLUSIVE = "INCONCLUSIVE"


EXIT_CODES = {Verdict.GO: 0, Verdict.NO_GO: NoGo.exit_code, Verdict.INCONCLUSIVE: Inconclusive.exit_code}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One limit of the policy on one score.

    `rule`: where in the policy it is, such as `rules[0]`; `kind`: its key there, `require`, or `unused` for a rule
    that fits no score; `change`: candidate minus baseline, positive for the better; `low`, `high`: its interval of
    1 - `alpha`.
    """

    rule: str
    kind: str
    subject: str
    verdict: Verdict
    reason: str
    limit: float | None = None
    baseline_value: float | None = None
    candidate_value: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    alpha: float | None = None
    n: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What `nv-eval gate --json` prints. `unchecked`: scores of which the policy says nothing."""

    baseline: RunInfo
    candidate: RunInfo
    verdict: Verdict
    exit_code: int
    checks: list[Check]
    unchecked: list[str]
    seed: int = SEED
    resamples: int = RESAMPLES
    schema: str = SCHEMA


def gate(baseline: Path, candidate: Path, policy: Policy, *, force: bool = False) -> Decision:
    """Decide by the folders of two runs.

    Raises as `compare` does: what cannot be compared is no verdict, unless `force` says to compare it all the same.
    """
    runs = pairing.load(baseline), pairing.load(candidate)
    found = _Gate(*runs, policy)
    checks = found.checks(force=force)
    verdict = _overall(checks)
    return Decision(
        baseline=compare.info(runs[0]),
        candidate=compare.info(runs[1]),
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        checks=checks,
        unchecked=found.unchecked,
    )


def refusal(baseline: Path, candidate: Path, error: LauncherError) -> Decision:
    """What CI is told where `gate` raises: that nothing could be decided, and why. The exit code is the error's."""
    check = Check(rule="runs", kind="compare", subject="all scores", verdict=Verdict.INCONCLUSIVE, reason=str(error))
    return Decision(
        baseline=_called(baseline),
        candidate=_called(candidate),
        verdict=Verdict.INCONCLUSIVE,
        exit_code=error.exit_code,
        checks=[check],
        unchecked=[],
    )


def _called(folder: Path) -> RunInfo:
    """A run that may be broken."""
    try:
        return compare.info(pairing.load(folder))
    except (NotFound, ResultsError, OSError):
        return RunInfo(invocation=folder.name, model=None, deployment="", complete=False)


def _overall(checks: Iterable[Check]) -> Verdict:
    """The worst of all; nothing checked is nothing known."""
    verdicts = {check.verdict for check in checks}
    if Verdict.NO_GO in verdicts:
        return Verdict.NO_GO
    return Verdict.GO if verdicts == {Verdict.GO} else Verdict.INCONCLUSIVE


@dataclass(frozen=True)
class _Question:
    """One limit of a rule that is to be checked on a score of both runs."""

    rule: str
    kind: str
    limit: float
    limits: Limits
    matched: Matched
    alpha: float

    def answer(self, tested: int) -> Check:
        """The check. `tested`: how many of them share alpha before one of them may be a NO-GO."""
        matched, of_value = self.matched, self.kind in ("min_value", "max_value")
        verdict, reason = self._of_value() if of_value else self._of_change(tested)
        interval, change = self._interval(self.alpha), self._change()
        values = (matched.baseline.value, matched.candidate.value) if of_value else matched.values
        return Check(
            rule=self.rule,
            kind=self.kind,
            subject=_subject(matched.task, matched.baseline),
            verdict=verdict,
            reason=reason,
            limit=self.limit,
            baseline_value=values[0],
            candidate_value=values[1],
            change=change,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
            alpha=self.alpha,
            n=matched.estimate.n if matched.estimate else None,
            notes=[*(f"forced: {one}" for one in matched.differences), *matched.notes],
        )

    def _of_value(self) -> tuple[Verdict, str]:
        value, is_floor = self.matched.candidate.value, self.kind == "min_value"
        if value is None:
            return Verdict.INCONCLUSIVE, "the candidate has no value"
        side = "below" if is_floor else "above"
        if value < self.limit if is_floor else value > self.limit:
            return Verdict.NO_GO, f"{value:.4f} is {side} {self.limit:g}"
        return Verdict.GO, f"{value:.4f} is not {side} {self.limit:g}"

    def _of_change(self, tested: int) -> tuple[Verdict, str]:
        estimate, few = self.matched.estimate, self.limits.min_samples
        if estimate is None:
            return Verdict.INCONCLUSIVE, self.matched.notes[0]
        if self._higher is None:
            return Verdict.INCONCLUSIVE, "nobody says which way is better; set higher_is_better in the rule"
        if few and (estimate.n or 0) < few:
            return Verdict.INCONCLUSIVE, f"{estimate.n or 'no'} pairs of samples, fewer than min_samples {few}"
        return self._of_drop(tested)

    def _of_drop(self, tested: int) -> tuple[Verdict, str]:
        change, interval, surely = (
            self._change() or 0.0,
            self._interval(self.alpha),
            self._interval(self.alpha / tested),
        )
        limit = -self.limit - _ROUNDING
        said = _moved(change)
        if interval:
            said += f" ({interval.low:+.4f} to {interval.high:+.4f} at alpha {self.alpha:g})"
        if surely is not None and surely.high < limit:
            return Verdict.NO_GO, f"{said}: surely a drop of more than {self.limit:g}"
        if self.kind == "max_drop" and change >= limit:
            return Verdict.GO, f"{said}: no drop of more than {self.limit:g}"
        if interval is None:
            return Verdict.INCONCLUSIVE, f"{said}: too few samples, or no standard error, to say how sure that is"
        if self.kind == "margin" and interval.low > limit:
            return Verdict.GO, f"{said}: surely no drop of {self.limit:g}"
        shared = f" with alpha shared by {tested} checks" if tested > 1 and interval.high < limit else ""
        return Verdict.INCONCLUSIVE, f"{said}: a drop of more than {self.limit:g} is neither sure nor ruled out{shared}"

    @property
    def _higher(self) -> bool | None:
        said, other = self.matched.baseline.higher_is_better, self.matched.candidate.higher_is_better
        return (
            (said if said == other else None) if self.limits.higher_is_better is None else self.limits.higher_is_better
        )

    def _change(self) -> float | None:
        """Candidate minus baseline, positive for the better."""
        estimate = self.matched.estimate
        if estimate is None or self._higher is None:
            return None
        return estimate.difference if self._higher else -estimate.difference

    def _interval(self, alpha: float) -> Interval | None:
        """Of the change, positive for the better."""
        estimate = self.matched.estimate
        found = estimate.interval(alpha) if estimate and self._higher is not None else None
        return found if found is None or self._higher else Interval(-found.high, -found.low)


class _Gate:
    """One policy on two runs."""

    def __init__(self, baseline: Run, candidate: Run, policy: Policy) -> None:
        self._baseline, self._candidate, self._policy = baseline, candidate, policy
        self._used: set[str] = set()
        self.unchecked: list[str] = []

    def checks(self, *, force: bool) -> list[Check]:
        required, questions, lost = list(self._required()), list(self._questions(force=force)), list(self._lost())
        tested = sum(question.kind in ("max_drop", "margin") for question in questions)
        answers = [question.answer(tested) for question in questions]
        return [*required, *answers, *lost, *self._unused()]

    def _required(self) -> Iterator[Check]:
        for place, pattern in enumerate(self._policy.require):
            verdict, reason = self._has(pattern)
            yield Check(rule=f"require[{place}]", kind="require", subject=pattern, verdict=verdict, reason=reason)

    def _has(self, pattern: str) -> tuple[Verdict, str]:
        known = {key: task for run in (self._baseline, self._candidate) for key, task in run.tasks.items()}
        wanted = [key for key, task in known.items() if any(fnmatchcase(name, pattern) for name in _names(task))]
        if not wanted:
            return Verdict.NO_GO, f"no such task in either run{nearest(pattern, known)}"
        missing = [key for key in wanted if not self._scored(key)]
        if missing:
            return Verdict.NO_GO, f"without scores in the candidate: {', '.join(map(self._missing, missing))}"
        return Verdict.GO, "has scores" if len(wanted) == 1 else f"{len(wanted)} tasks have scores"

    def _scored(self, key: str) -> bool:
        return key in self._candidate.tasks and bool(self._candidate.tasks[key].scores)

    def _missing(self, key: str) -> str:
        task = self._candidate.tasks.get(key)
        return f"{key} ({task.reason.replace('_', ' ')})" if task else f"{key} (not run)"

    def _questions(self, *, force: bool) -> Iterator[_Question]:
        if self._policy.require and not any(self._scored(key) for key in self._baseline.tasks):
            return  # nothing to compare: the required tasks say what is missing
        for matched in compare.matches(self._baseline, self._candidate, Choice(), force=force):
            rule, limits = self._rule(matched.task, matched.baseline)
            for kind, limit in limits.checks:
                yield _Question(rule, kind, limit, limits, matched, limits.alpha or self._policy.alpha)

    def _rule(self, task: TaskRecord, score: Score) -> tuple[str, Limits]:
        rule, limits = self._policy.rule_for(_names_of(task, score), score)
        self._used.add(rule)
        if not limits.checks:
            self.unchecked.append(_subject(task, score))
        return rule, limits

    def _lost(self) -> Iterator[Check]:
        """Scores of the baseline that the candidate has not: nobody can say that they hold."""
        for key, task in self._baseline.tasks.items():
            there = {_name(score) for score in self._candidate.tasks[key].scores} if self._scored(key) else set()
            for score in task.scores:
                if _name(score) not in there:
                    yield from self._lost_checks(task, score)

    def _lost_checks(self, task: TaskRecord, score: Score) -> Iterator[Check]:
        rule, limits = self._rule(task, score)
        for kind, limit in limits.checks:
            yield Check(
                rule=rule,
                kind=kind,
                subject=_subject(task, score),
                verdict=Verdict.INCONCLUSIVE,
                reason=f"no such score in the candidate: {self._missing(task.key)}",
                limit=limit,
                baseline_value=score.value,
            )

    def _unused(self) -> Iterator[Check]:
        names = {name for task in self._baseline.tasks.values() for name in _names(task)}
        for place, rule in enumerate(self._policy.rules):
            if f"rules[{place}]" not in self._used:
                hint = nearest(rule.task, names) if rule.task not in names else ""
                yield Check(
                    rule=f"rules[{place}]",
                    kind="unused",
                    subject=" ".join((rule.task, rule.metric, rule.filter)),
                    verdict=Verdict.INCONCLUSIVE,
                    reason=f"fits no score of the baseline that no earlier rule fits{hint}",
                )


def _names(task: TaskRecord) -> set[str]:
    return {task.key, task.name, *(score.task for score in task.scores)}


def _names_of(task: TaskRecord, score: Score) -> set[str]:
    """What a rule may call the task of a score: a sub-task has a name of its own."""
    return {score.task, label(task, score)} | ({task.key} if score.task == task.name else set())


def _name(score: Score) -> tuple[str, str, str]:
    return score.task, score.metric, score.filter


def _subject(task: TaskRecord, score: Score) -> str:
    return f"{label(task, score)} {score.metric}" + (f" {score.filter}" if score.filter != "none" else "")


def _moved(change: float) -> str:
    if abs(change) < _ROUNDING:
        return "no change"
    return f"worse by {-change:.4f}" if change < 0 else f"better by {change:.4f}"
