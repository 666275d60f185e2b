"""Intervals of means of samples, by scipy.

Shares of right answers get the interval of Wilson, which is honest also where all answers are right, or all are wrong;
other means Student's t, which is honest also where samples are few, stretched where samples are skewed. Where samples
belong together, only whole clusters are independent of each other. Too few of either, or all alike, say nothing of how
far chance moves the mean, and a standard error made from them says no more.

`python -m benchmarks.coverage` shows how often these intervals hold the truth, and those of a bootstrap. The stretch:
Hall, On the Removal of Skewness by Transformation, Journal of the Royal Statistical Society B 54(1), 1992.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from launcher.results.samples import SampleSet

Values = npt.NDArray[np.float64]

ALPHA = 0.05
"""One minus the confidence of a score's interval."""
FEWEST = 10
"""Samples, or clusters, below which nothing is known of how they spread."""
_LARGEST = 1e150
"""Numbers below it can be squared and summed."""
_ROUNDING = 1e-12
"""What quotients of the same number are off by, of themselves."""
_STRAIGHT = 1e-6
"""Skewness below which there is nothing to stretch."""

WILSON, STUDENT = "wilson", "t"
CLUSTER_WILSON, CLUSTER_STUDENT = "cluster wilson", "cluster t"

Bounds = tuple[float | None, float | None, str]
UNKNOWN: Bounds = (None, None, "unknown")
"""Of samples that say that nothing is known: a word, so that nobody who reads it later takes the standard error."""


def interval(kept: SampleSet, metric: str, value: float) -> Bounds | None:
    """Bounds of a score and how they were made, UNKNOWN where nobody can tell them; None where its samples say nothing.

    They do not where one has no number, or where `value` is not their mean.
    """
    raw = kept.values.get(metric)
    if raw is None or not len(raw):
        return None
    values = np.asarray(raw, dtype=np.float64)
    if not (np.abs(values) < _LARGEST).all() or not math.isclose(
        float(values.mean()), value, rel_tol=1e-6, abs_tol=1e-6
    ):
        return None
    return _of_clusters(values, kept.clusters) if _belong_together(kept.clusters) else _of_singles(values)


def _belong_together(names: list[str]) -> bool:
    """Whether every sample has a cluster and some share one."""
    return bool(names) and all(names) and len(set(names)) < len(names)


def _of_singles(values: Values) -> Bounds:
    if np.isin(values, (0.0, 1.0)).all():
        return (*_wilson(float(values.mean()), len(values)), WILSON)
    found = of_mean(values, np.ones_like(values), ALPHA)
    return UNKNOWN if found is None else (*found, STUDENT)


def _of_clusters(values: Values, names: list[str]) -> Bounds:
    _, which = np.unique(np.asarray(names), return_inverse=True)
    sums = np.bincount(which, weights=values).astype(np.float64)
    sizes = np.bincount(which).astype(np.float64)
    share = float(values.mean())
    if share in (0.0, 1.0) and np.ptp(values) == 0:  # no cluster differs from another
        return (*_wilson(share, len(sizes)), CLUSTER_WILSON)
    found = of_mean(sums, sizes, ALPHA)
    return UNKNOWN if found is None else (*found, CLUSTER_STUDENT)


def _wilson(share: float, n: int) -> tuple[float, float]:
    found = stats.binomtest(round(share * n), n).proportion_ci(1 - ALPHA, method="wilson")
    return float(found.low), float(found.high)


def of_mean(sums: Values, sizes: Values, alpha: float) -> tuple[float, float] | None:
    """Two-sided interval of confidence 1 - alpha of sum(sums) / sum(sizes), the mean over all samples of clusters.

    A sample for itself is a cluster of size 1. Student's t with the linearised variance of cluster-robust standard
    errors; on the side to which the clusters are skewed as far as Hall's transformation reaches, if that is farther.
    None for fewer than FEWEST, where none differs from another, and for numbers too large to be squared.
    """
    count = len(sums)
    if count < FEWEST or not (np.abs(sums) < _LARGEST).all() or are_alike(sums / sizes):
        return None
    mean = float(sums.sum() / sizes.sum())
    spread = (sums - mean * sizes) / sizes.mean()
    stderr = float(np.std(spread, ddof=1)) / math.sqrt(count)
    quantile = float(stats.t.isf(alpha / 2, count - 1))
    skewness = float(stats.skew(spread, bias=False))
    low = max(quantile, _stretched(quantile, skewness, count))
    high = max(quantile, -_stretched(-quantile, skewness, count))
    return mean - low * stderr, mean + high * stderr


def are_alike(values: Values) -> bool:
    """Whether none differs from another by more than quotients of the same number do."""
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())


def _stretched(quantile: float, skewness: float, count: int) -> float:
    """The quantile of a mean's t statistic of skewed samples, by the inverse of Hall's cubic transformation."""
    if abs(skewness) < _STRAIGHT:
        return quantile
    bend = skewness / (3 * math.sqrt(count))
    return float(np.cbrt(1 + 3 * bend * (quantile - bend / 2)) - 1) / bend
