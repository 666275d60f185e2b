"""Intervals of means of samples, by scipy.

Shares of right answers get the interval of Wilson, which is honest also where all answers are right, or all are wrong;
other means a percentile bootstrap where samples are many, and where they are few, of which a bootstrap sees too little,
Student's t, stretched where they are skewed. Where samples belong together, only whole clusters are independent of each
other. Too few of either, or all alike, say nothing of how far chance moves the mean, and a standard error made from
them says no more.

`python -m benchmarks.coverage` shows how often these intervals hold the truth, and those of a bootstrap. The stretch:
Hall, On the Removal of Skewness by Transformation, Journal of the Royal Statistical Society B 54(1), 1992.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from launcher.results.samples import SampleSet

Values = npt.NDArray[np.float64]

ALPHA = 0.05
"""One minus the confidence of a score's interval."""
FEWEST = 10
"""Samples, or clusters, below which nothing is known of how they spread."""
MANY = 200
"""Samples, or clusters, from which on a bootstrap holds the truth as often as it says."""
MOST = 20_000
"""Samples, or clusters, above which drawing takes long and the mean is as good as normal."""
SEED = 20240229
"""Of every resampling, so that the same samples give the same figures."""
RESAMPLES = 2_000
_CELLS = 400_000
"""Numbers that a resampling holds at once: 3 MB."""
_LARGEST = 1e150
"""Numbers below it can be squared and summed."""
_ROUNDING = 1e-12
"""What quotients of the same number are off by, of themselves."""
_STRAIGHT = 1e-6
"""Skewness below which there is nothing to stretch."""

WILSON, STUDENT, BOOTSTRAP = "wilson", "t", "bootstrap"
CLUSTER = "cluster {}"

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
    return UNKNOWN if found is None else (*found, _method(len(values)))


def _of_clusters(values: Values, names: list[str]) -> Bounds:
    _, which = np.unique(np.asarray(names), return_inverse=True)
    sums = np.bincount(which, weights=values).astype(np.float64)
    sizes = np.bincount(which).astype(np.float64)
    share = float(values.mean())
    if share in (0.0, 1.0) and np.ptp(values) == 0:  # no cluster differs from another
        return (*_wilson(share, len(sizes)), CLUSTER.format(WILSON))
    found = of_mean(sums, sizes, ALPHA)
    return UNKNOWN if found is None else (*found, CLUSTER.format(_method(len(sizes))))


def _wilson(share: float, n: int) -> tuple[float, float]:
    found = stats.binomtest(round(share * n), n).proportion_ci(1 - ALPHA, method="wilson")
    return float(found.low), float(found.high)


def _method(count: int) -> str:
    return BOOTSTRAP if MANY <= count <= MOST else STUDENT


def of_mean(sums: Values, sizes: Values, alpha: float, draws: Draws | None = None) -> tuple[float, float] | None:
    """Two-sided interval of confidence 1 - alpha of sum(sums) / sum(sizes), the mean over all samples of clusters.

    A sample for itself is a cluster of size 1. `draws`: those of a bootstrap, where somebody keeps them for several
    confidences. None for fewer than FEWEST, where none differs from another, and for numbers too large to be squared.
    """
    if len(sums) < FEWEST or not (np.abs(sums) < _LARGEST).all() or are_alike(sums / sizes):
        return None
    if _method(len(sums)) == STUDENT:
        return _student(sums, sizes, alpha)
    return (draws or Draws(sums, sizes)).percentiles(alpha)


def _student(sums: Values, sizes: Values, alpha: float) -> tuple[float, float]:
    """Student's t with the linearised variance of cluster-robust standard errors.

    On the side to which the clusters are skewed as far as Hall's transformation reaches, if that is farther.
    """
    count = len(sums)
    mean = float(sums.sum() / sizes.sum())
    spread = (sums - mean * sizes) / sizes.mean()
    stderr = float(np.std(spread, ddof=1)) / math.sqrt(count)
    quantile = float(stats.t.isf(alpha / 2, count - 1))
    skewness = float(stats.skew(spread, bias=False))
    low = max(quantile, _stretched(quantile, skewness, count))
    high = max(quantile, -_stretched(-quantile, skewness, count))
    return mean - low * stderr, mean + high * stderr


@dataclass(frozen=True)
class Draws:
    """A bootstrap of sum(sums) / sum(sizes) that draws clusters as a whole: drawn once, for every confidence."""

    sums: Values
    sizes: Values
    resamples: int = RESAMPLES

    def percentiles(self, alpha: float) -> tuple[float, float]:
        """Between which 1 - alpha of the draws lie."""
        found = self._bootstrap(alpha, resamples=0, batch=None, bootstrap_result=self._drawn)
        return float(found.confidence_interval.low), float(found.confidence_interval.high)

    @cached_property
    def _drawn(self) -> Any:
        return self._bootstrap(ALPHA, resamples=self.resamples, batch=max(1, _CELLS // len(self.sums)))

    def _bootstrap(self, alpha: float, *, resamples: int, **more: Any) -> Any:
        return stats.bootstrap(
            (self.sums, self.sizes),
            _ratio,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            confidence_level=1 - alpha,
            method="percentile",
            rng=np.random.default_rng(SEED),
            **more,
        )


def _ratio(sums: Values, sizes: Values, axis: int = -1) -> Values:
    found: Values = sums.sum(axis=axis) / sizes.sum(axis=axis)
    return found


def are_alike(values: Values) -> bool:
    """Whether none differs from another by more than quotients of the same number do."""
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())


def _stretched(quantile: float, skewness: float, count: int) -> float:
    """The quantile of a mean's t statistic of skewed samples, by the inverse of Hall's cubic transformation."""
    if abs(skewness) < _STRAIGHT:
        return quantile
    bend = skewness / (3 * math.sqrt(count))
    return float(np.cbrt(1 + 3 * bend * (quantile - bend / 2)) - 1) / bend
