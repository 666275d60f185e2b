"""Intervals of means, by scipy.

Shares of right answers get the interval of Wilson, which is honest also where all answers are right, or all are wrong;
other means that of a percentile bootstrap. Where samples belong together, whole clusters are drawn. Too few of either,
or all alike, say nothing of how far chance moves the mean, and a standard error made from them says no more.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from launcher.results.samples import SampleSet

Values = npt.NDArray[np.float64]

CONFIDENCE = 0.95
SEED = 20240229
RESAMPLES = 2_000
FEWEST = 10
"""Samples, or clusters, below which a bootstrap interval is far too narrow to be shown."""
MOST = 20_000
"""Samples, or clusters, above which drawing takes long and the mean is as good as normal."""
_CELLS = 400_000
_LARGEST = 1e150
"""Numbers below it can be squared and summed."""

WILSON, BOOTSTRAP = "wilson", "bootstrap"
CLUSTER_WILSON, CLUSTER_BOOTSTRAP, CLUSTER_NORMAL = "cluster wilson", "cluster bootstrap", "cluster normal"

Bounds = tuple[float | None, float | None, str]
UNKNOWN: Bounds = (None, None, "unknown")
"""Of samples that say that nothing is known: a word, so that nobody who reads it later takes the standard error."""


def interval(kept: SampleSet, metric: str, value: float) -> Bounds | None:
    """Bounds of a score and how they were made, UNKNOWN where nobody can tell them; None where its samples say nothing.

    They do not where one has no number, where `value` is not their mean, or where they are too many to draw from and
    each is for itself: the harness's standard error is as good then.
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


def _of_singles(values: Values) -> Bounds | None:
    if np.isin(values, (0.0, 1.0)).all():
        return (*_wilson(float(values.mean()), len(values)), WILSON)
    if len(values) > MOST:
        return None
    if len(values) < FEWEST or np.ptp(values) == 0:
        return UNKNOWN
    return (*_bootstrap(values, np.ones_like(values)), BOOTSTRAP)


def _of_clusters(values: Values, names: list[str]) -> Bounds:
    _, which = np.unique(np.asarray(names), return_inverse=True)
    sums = np.bincount(which, weights=values).astype(np.float64)
    sizes = np.bincount(which).astype(np.float64)
    if np.ptp(sums / sizes) == 0:  # no draw of clusters would differ from another
        share = float(values.mean())
        return (*_wilson(share, len(sizes)), CLUSTER_WILSON) if share in (0.0, 1.0) else UNKNOWN
    if len(sizes) < FEWEST:
        return UNKNOWN
    if len(sizes) > MOST:
        return (*_normal(sums, sizes), CLUSTER_NORMAL)
    return (*_bootstrap(sums, sizes), CLUSTER_BOOTSTRAP)


def _normal(sums: Values, sizes: Values) -> tuple[float, float]:
    """Of a ratio of two sums over clusters, by the linearised variance that cluster-robust standard errors have."""
    mean = float(sums.sum() / sizes.sum())
    stderr = float(np.sqrt(np.sum((sums - mean * sizes) ** 2)) / sizes.sum())
    half = float(stats.norm.isf((1 - CONFIDENCE) / 2)) * stderr
    return mean - half, mean + half


def _wilson(share: float, n: int) -> tuple[float, float]:
    found = stats.binomtest(round(share * n), n).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def _bootstrap(sums: Values, sizes: Values) -> tuple[float, float]:
    """Percentile bootstrap of the mean over all samples, drawing what was summed as a whole."""

    def mean(sums: Values, sizes: Values, axis: int = -1) -> Values:
        found: Values = sums.sum(axis=axis) / sizes.sum(axis=axis)
        return found

    result = stats.bootstrap(
        (sums, sizes),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, _CELLS // len(sums)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
