"""How far chance moves a score: its 95 % interval, from its samples where there are any.

Without samples, for aggregates, and without scipy, which lm-eval and the extra `stats` bring, it is made from the
harness's standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from launcher.errors import ResultsError
from launcher.harnesses.lm_eval import clusters
from launcher.harnesses.spec import Score
from launcher.orchestrator.state import RunOutcome, TaskOutcome
from launcher.plan.model import Plan
from launcher.results import samples
from launcher.results.samples import SampleSet

NORMAL = "normal"
NORMAL_QUANTILE = 1.959963984540054
"""Of 97.5 %."""


def with_intervals(plan: Plan, outcome: RunOutcome, folder: Path) -> RunOutcome:
    """The outcome with the interval of every score that has one. `folder` is the invocation's.

    Samples that are broken give none; the scores stand all the same.
    """
    chosen = {task.key: task.settings.cluster_by for task in plan.tasks}
    return replace(outcome, tasks=tuple(_task(task, chosen.get(task.key), folder) for task in outcome.tasks))


def _task(task: TaskOutcome, cluster_by: str | None, folder: Path) -> TaskOutcome:
    if not task.scores:
        return task
    choose: Callable[[str], str] = clusters.field if cluster_by is None else lambda _task: cluster_by
    try:
        kept = samples.read(folder / task.key / "output", choose)
    except ResultsError:
        kept = {}
    return replace(task, scores=tuple(of(score, kept.get((score.task, score.filter))) for score in task.scores))


def of(score: Score, kept: SampleSet | None = None) -> Score:
    """A score with its interval, from its samples if these tell it; one that has an interval already as it is."""
    if score.value is None or score.interval:
        return score
    known = _from_samples(score, kept)
    low, high, how = _from_stderr(score) if known is None else known
    return replace(score, low=low, high=high, interval=how)


def _from_samples(score: Score, kept: SampleSet | None) -> tuple[float | None, float | None, str] | None:
    if kept is None or score.group or score.value is None:
        return None
    try:
        from launcher.results.means import interval
    except ModuleNotFoundError:  # no scipy
        return None
    return interval(kept, score.metric, score.value)


def _from_stderr(score: Score) -> tuple[float | None, float | None, str]:
    """A standard error of 0 says that no sample differs from another, not that chance moves nothing."""
    half = NORMAL_QUANTILE * (score.stderr or 0.0)
    if score.value is None or not 0 < half < math.inf:
        return None, None, ""
    return score.value - half, score.value + half, NORMAL


__all__ = ["of", "with_intervals"]
