"""Intervals of means, by scipy.

Shares of right answers get the interval of Wilson, which is honest also where all answers are right, or all are wrong;
other means that of a percentile bootstrap. Where samples belong together, whole clusters are drawn.
"""

from __future__ import annotations

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
"""Samples above which drawing takes long and the mean is as good as normal."""
_CELLS = 400_000

WILSON, BOOTSTRAP = "wilson", "bootstrap"
CLUSTER_WILSON, CLUSTER_BOOTSTRAP = "cluster wilson", "cluster bootstrap"


def interval(kept: SampleSet, metric: str, value: float) -> tuple[float, float, str] | None:
    """Bounds of a score and how they were made; None where its samples do not tell them.

    They do not where one has no number, or where `value` is not their mean.
    """
    raw = kept.values.get(metric)
    if raw is None or not len(raw):
        return None
    values = np.asarray(raw, dtype=np.float64)
    if not np.isfinite(values).all() or not np.isclose(values.mean(), value, rtol=1e-6, atol=1e-6):
        return None
    return _of_clusters(values, kept.clusters) if _belong_together(kept.clusters) else _of_singles(values)


def _belong_together(names: list[str]) -> bool:
    """Whether every sample has a cluster and some share one."""
    return bool(names) and all(names) and len(set(names)) < len(names)


def _of_singles(values: Values) -> tuple[float, float, str] | None:
    if np.isin(values, (0.0, 1.0)).all():
        return (*_wilson(float(values.mean()), len(values)), WILSON)
    if not FEWEST <= len(values) <= MOST:
        return None
    return (*_bootstrap(values, np.ones_like(values)), BOOTSTRAP)


def _of_clusters(values: Values, names: list[str]) -> tuple[float, float, str] | None:
    _, which = np.unique(np.asarray(names), return_inverse=True)
    sums = np.bincount(which, weights=values).astype(np.float64)
    sizes = np.bincount(which).astype(np.float64)
    if np.ptp(sums / sizes) == 0:  # no draw of clusters would differ from another
        share = float(values.mean())
        return (*_wilson(share, len(sizes)), CLUSTER_WILSON) if share in (0.0, 1.0) else None
    return (*_bootstrap(sums, sizes), CLUSTER_BOOTSTRAP) if FEWEST <= len(sizes) <= MOST else None


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
