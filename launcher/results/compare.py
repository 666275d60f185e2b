"""Compare runs, sample by sample: `nv-eval compare`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from launcher.errors import NotComparable, ResultsError
from launcher.results import pairing, samples
from launcher.results.means import SEED
from launcher.results.pairing import Choice, Difference, Matched, Pairs, Run
from launcher.results.statistics import POWER, RESAMPLES, Estimate, Method, Shares, holm
from launcher.results.table import label

SCHEMA = "nv-eval.compare/1"
ALPHA = 0.05
_MOST_DIFFERENCES = 10
"""Lines of a refusal."""
_LONGEST_TEXT = 400
"""Characters of a prompt, a target or an answer."""


class Verdict(StrEnum):
    """What a row says of the candidate, at ALPHA after Holm's correction."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"
    """More than chance, but nobody says whether higher is better."""
    NOT_SHOWN = "no difference shown"
    NOT_TESTED = "not tested"
    NO_VALUE = "no value"


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """Which run is meant. `complete`: whether all of its tasks have scores.

    `taken_over`: whether it stands for a point of a sweep that was not run because these results were there.
    """

    invocation: str
    model: str | None
    deployment: str
    complete: bool
    taken_over: bool = False


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A sample that scored differently; texts are cut after 400 characters."""

    id: int | str
    prompt: str
    target: str
    baseline_answer: str
    candidate_answer: str
    baseline_value: float
    candidate_value: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one task in two runs. `difference`: candidate minus baseline.

    `low`, `high`: its 95 % interval; `p`, `p_holm`: before and after Holm's correction; `detectable`: the smallest
    difference that as many samples show with 80 % power, also as the first of all that Holm's correction is for, which
    is at ALPHA / tests; `n`: pairs; `rose`, `fell`: pairs whose value did;
    `forced`: what makes the two measure different things. All null where they cannot be told.
    """

    task_key: str
    task: str
    label: str
    metric: str
    filter: str
    group: bool
    higher_is_better: bool | None
    baseline_value: float | None
    candidate_value: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    detectable: float | None
    method: Method
    n: int | None
    rose: int | None
    fell: int | None
    verdict: Verdict
    forced: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flips: list[Flip] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Versus:
    """One candidate against the baseline. `only_baseline`, `only_candidate`: tasks without scores in the other.

    `refused`: what is left out because it cannot be compared, and why; empty unless that was asked for.
    """

    candidate: RunInfo
    rows: list[Row]
    only_baseline: list[str]
    only_candidate: list[str]
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `nv-eval compare --json` prints. `tests`: how many p-values Holm's correction is for."""

    baseline: RunInfo
    candidates: list[Versus]
    tests: int
    alpha: float = ALPHA
    power: float = POWER
    seed: int = SEED
    resamples: int = RESAMPLES
    schema: str = SCHEMA


def compare(
    folders: Sequence[Path],
    *,
    tasks: Sequence[str] = (),
    force: bool = False,
    flips: int = 0,
    partial: bool = False,
    taken_over: Collection[str] = (),
) -> Comparison:
    """Compare runs with the first of them, by the folders they lie in.

    `tasks`: patterns of names; `flips`: at most so many samples of each row that scored differently; `partial`: what
    cannot be compared, or read, is left out and said in `refused`; `taken_over`: ids of runs that are marked as that.

    Raises:
        NotComparable: runs measure different things, and `force` is not given.
        NotFound: a run without scores, or a pattern that fits no task.
        ResultsError: files are broken, or the runs have no task in common.
    """
    baseline, *candidates = (pairing.load(folder) for folder in folders)
    choice = Choice(tasks)
    choice.check([baseline, *candidates])
    versus = _partial if partial else _versus
    found = [versus(baseline, candidate, choice, force=force, flips=flips) for candidate in candidates]
    estimates = [estimate for _, of_rows in found for estimate in of_rows]
    ps = [estimate.p if estimate else None for estimate in estimates]
    tests = sum(p is not None for p in ps)
    level = ALPHA / max(tests, 1)
    detectable = iter([estimate.detectable(level) if estimate else None for estimate in estimates])
    corrected = iter(holm(ps, ALPHA))
    judged = [
        replace(
            versus,
            candidate=_marked(versus.candidate, taken_over),
            rows=[replace(_judged(row, next(corrected)), detectable=next(detectable)) for row in versus.rows],
        )
        for versus, _ in found
    ]
    return Comparison(baseline=_marked(info(baseline), taken_over), candidates=judged, tests=tests)


def matches(baseline: Run, candidate: Run, choice: Choice, *, force: bool) -> Iterator[Matched]:
    """All scores that two runs have in common, one task in memory at a time. Raises as `compare` does."""
    common = _common(baseline, candidate, choice)
    if not any(baseline.tasks[key].scores and candidate.tasks[key].scores for key in common):
        raise ResultsError(
            f"{baseline.name} and {candidate.name} have no scored task in common: "
            f"{_scored(baseline)} in the one, {_scored(candidate)} in the other"
        )
    refusal = _Refusal()
    for key in common:
        yield from _of_task(baseline, candidate, key, choice, refusal, force=force)
    if refusal:
        raise NotComparable(refusal.text(baseline, candidate))


def _common(baseline: Run, candidate: Run, choice: Choice) -> list[str]:
    """Keys of chosen tasks that both runs have."""
    return [key for key, task in baseline.tasks.items() if choice.has(task) and key in candidate.tasks]


def _of_task(
    baseline: Run, candidate: Run, key: str, choice: Choice, refusal: _Refusal, *, force: bool
) -> Iterator[Matched]:
    """Scores of one task that can be compared; the others are told to `refusal`."""
    found = [one for one in pairing.match(baseline, candidate, key) if choice.has(one.task, one.baseline)]
    if force:
        yield from found
        return
    yield from (matched for matched in found if not matched.differences)
    for matched in found:
        refusal.add(matched)
    if not found and baseline.tasks[key].scores and candidate.tasks[key].scores:
        refusal.of_tasks[f"{key}: no metric of both runs is the same"] = None


@dataclass
class _Refusal:
    """What keeps two runs from being compared: lines without repetition, in their order."""

    of_tasks: dict[str, None] = field(default_factory=dict)
    of_groups: dict[str, None] = field(default_factory=dict)
    """Of aggregates, which mostly repeat what is said of the tasks below them."""

    def __bool__(self) -> bool:
        return bool(self.of_tasks or self.of_groups)

    def add(self, matched: Matched) -> None:
        lines = self.of_groups if matched.baseline.group else self.of_tasks
        lines |= {f"{label(matched.task, matched.baseline)}: {one}": None for one in matched.differences}

    @property
    def lines(self) -> list[str]:
        return list(self.of_tasks or self.of_groups)

    def text(self, baseline: Run, candidate: Run) -> str:
        lines = self.lines
        more = len(lines) - _MOST_DIFFERENCES
        return "\n".join(
            [
                f"{baseline.name} (baseline) and {candidate.name} (candidate) do not measure the same:",
                *(f"  {line}" for line in lines[:_MOST_DIFFERENCES]),
                *([f"  and {more} more"] if more > 0 else []),
                "compare the common samples all the same with --force, or other tasks with --task",
            ]
        )


def info(run: Run) -> RunInfo:
    """What a run is called."""
    record = run.record
    model = record.model.served_name or record.model.model_id
    return RunInfo(invocation=run.name, model=model, deployment=record.deployment, complete=record.complete)


def _marked(run: RunInfo, taken_over: Collection[str]) -> RunInfo:
    return replace(run, taken_over=True) if run.invocation in taken_over else run


def _scored(run: Run) -> str:
    return ", ".join(key for key, task in run.tasks.items() if task.scores) or "none"


Estimates = list[Estimate | None]
"""Of rows, one each; None where there is no value."""


def _versus(baseline: Run, candidate: Run, choice: Choice, *, force: bool, flips: int) -> tuple[Versus, Estimates]:
    found = [(_row(one, flips), one.estimate) for one in matches(baseline, candidate, choice, force=force)]
    versus = Versus(
        candidate=info(candidate),
        rows=[row for row, _ in found],
        only_baseline=pairing.unmatched(baseline, candidate, choice),
        only_candidate=pairing.unmatched(candidate, baseline, choice),
    )
    return versus, [estimate for _, estimate in found]


def _partial(baseline: Run, candidate: Run, choice: Choice, *, force: bool, flips: int) -> tuple[Versus, Estimates]:
    """One candidate as far as it can be compared."""
    found: list[tuple[Row, Estimate | None]] = []
    refused: list[str] = []
    for key in _common(baseline, candidate, choice):
        refusal = _Refusal()
        try:
            matched = _of_task(baseline, candidate, key, choice, refusal, force=force)
            found += [(_row(one, flips), one.estimate) for one in matched]
        except ResultsError as error:
            refused.append(str(error))
        refused += refusal.lines
    versus = Versus(
        candidate=info(candidate),
        rows=[row for row, _ in found],
        only_baseline=pairing.unmatched(baseline, candidate, choice),
        only_candidate=pairing.unmatched(candidate, baseline, choice),
        refused=refused,
    )
    return versus, [estimate for _, estimate in found]


def _row(matched: Matched, flips: int) -> Row:
    estimate, score = matched.estimate, matched.baseline
    interval = estimate.interval(ALPHA) if estimate else None
    moves = _moves(matched)
    return Row(
        task_key=matched.task.key,
        task=score.task,
        label=label(matched.task, score),
        metric=score.metric,
        filter=score.filter,
        group=score.group,
        higher_is_better=score.higher_is_better
        if score.higher_is_better == matched.candidate.higher_is_better
        else None,
        baseline_value=matched.values[0],
        candidate_value=matched.values[1],
        difference=estimate.difference if estimate else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        p=estimate.p if estimate else None,
        p_holm=None,
        detectable=None,
        method=estimate.method if estimate else Method.NONE,
        n=estimate.n if estimate else None,
        rose=moves[0] if moves else None,
        fell=moves[1] if moves else None,
        verdict=Verdict.NO_VALUE if estimate is None else Verdict.NOT_TESTED,
        forced=list(matched.differences),
        notes=list(matched.notes),
        flips=_flips(matched.pairs, score.metric, flips) if matched.pairs and flips else [],
    )


def _moves(matched: Matched) -> tuple[int, int] | None:
    """Pairs whose value rose, and fell."""
    if isinstance(matched.estimate, Shares):
        return matched.estimate.rose, matched.estimate.fell
    if matched.pairs is None:
        return None
    first, second = matched.pairs.values(matched.baseline.metric)
    return int(np.sum(second > first)), int(np.sum(second < first))


def _judged(row: Row, p: float | None) -> Row:
    if p is None:
        return row
    if p >= ALPHA or not row.difference:
        return replace(row, p_holm=p, verdict=Verdict.NOT_SHOWN)
    if row.higher_is_better is None:
        return replace(row, p_holm=p, verdict=Verdict.DIFFERENT)
    rose = row.difference > 0
    return replace(row, p_holm=p, verdict=Verdict.BETTER if rose == row.higher_is_better else Verdict.WORSE)


def _flips(pairs: Pairs, metric: str, most: int) -> list[Flip]:
    """The samples that changed most, in the order of the file where they changed as much."""
    values = pairs.values(metric)
    size = np.abs(values[1] - values[0])
    order = [int(place) for place in np.argsort(-size, kind="stable")[:most] if size[place]]
    places = [pairs.places[place] for place in order]
    first = samples.texts(pairs.baseline, (place for place, _ in places), metric)
    second = samples.texts(pairs.candidate, (place for _, place in places), metric)
    return [
        Flip(
            id=pairs.baseline.ids[pairs.places[place][0]],
            prompt=_cut(old.prompt),
            target=_cut(old.target),
            baseline_answer=_cut(old.answer),
            candidate_answer=_cut(new.answer),
            baseline_value=float(values[0][place]),
            candidate_value=float(values[1][place]),
        )
        for place, old, new in zip(order, first, second, strict=True)
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
