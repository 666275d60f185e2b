"""Macro averages: the mean of the tasks of one invocation, each counting the same."""

from __future__ import annotations

import math
from collections import defaultdict

from launcher.harnesses.spec import Score
from launcher.results.intervals import NORMAL_QUANTILE, of
from launcher.results.model import Record


def averages(record: Record) -> list[Score]:
    """The mean over all tasks of each metric and filter that at least two of them have.

    `n` is the number of tasks; the standard error is that of a mean of independent numbers, None unless every task has
    one; of a task with clusters, of which the harness's standard error knows nothing, it is that of its interval. The
    value is None where a task of the invocation has no scores, or no number for this metric: an average of
    some tasks is no average of all of them.
    """
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for task in record.tasks:
        for score in task.scores:
            if score.task == task.name:
                found[score.metric, score.filter].append(score)
    whole = all(task.scores for task in record.tasks)
    return [_average(scores, whole=whole) for scores in found.values() if len(scores) > 1]


def _average(scores: list[Score], *, whole: bool) -> Score:
    first, n = scores[0], len(scores)
    values = [score.value for score in scores if score.value is not None]
    errors = [error for score in scores if (error := _error(score)) is not None]
    directions = {score.higher_is_better for score in scores}
    known = whole and len(values) == n and len(directions) == 1
    return of(
        Score(
            task=f"average of {n} tasks",
            metric=first.metric,
            filter=first.filter,
            value=math.fsum(values) / n if known else None,
            stderr=math.hypot(*errors) / n if known and len(errors) == n else None,
            n=n,
            higher_is_better=first.higher_is_better if len(directions) == 1 else None,
            group=True,
        )
    )


def _error(score: Score) -> float | None:
    if not score.interval.startswith(("cluster", "unknown")):
        return score.stderr
    return None if score.low is None or score.high is None else (score.high - score.low) / (2 * NORMAL_QUANTILE)
