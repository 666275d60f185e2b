"""Is a difference more than chance? Tests, intervals and power, by scipy and statsmodels.

All differences are the candidate's mean minus the baseline's. Sources of the formulas:

- interval of a paired difference of shares: Bonett and Price, Adjusted Wald Confidence Interval for a Difference of
  Binomial Proportions Based on Paired Data, Journal of Educational and Behavioral Statistics 37(4), 2012
- interval of other paired differences: launcher/results/means.py
- exact McNemar test: binomial on the pairs that differ
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from launcher.results.means import SEED, Draws, are_alike, of_mean

Values = npt.NDArray[np.float64]

RESAMPLES = 9_999
MOST_TO_PERMUTE = 1_000
"""Pairs above which signs are drawn for `monte_carlo_test`: the same test as `permutation_test`, many times faster."""
POWER = 0.8
_CELLS = 400_000
"""Numbers that a resampling holds at once: 3 MB."""


class Method(StrEnum):
    """How two scores were compared."""

    MCNEMAR = "exact McNemar"
    PERMUTATION = "paired permutation"
    CLUSTERS = "cluster permutation"
    STDERR = "unpaired z"
    NONE = "none"


@dataclass(frozen=True)
class Interval:
    """Limits between which a difference lies with the confidence that was asked for."""

    low: float
    high: float


class Estimate(Protocol):
    """The difference of two scores and what is known of it."""

    @property
    def method(self) -> Method:
        """How it was tested."""
        ...

    @property
    def n(self) -> int | None:
        """Pairs; None where nothing is paired."""
        ...

    @property
    def difference(self) -> float:
        """Candidate minus baseline."""
        ...

    @property
    def p(self) -> float | None:
        """Probability of a difference at least as large by chance, two-sided; None where it cannot be told."""
        ...

    def interval(self, alpha: float) -> Interval | None:
        """Two-sided interval of confidence 1 - alpha; None where it cannot be told."""
        ...

    def detectable(self, alpha: float, power: float = POWER) -> float | None:
        """The smallest difference that would be found with this power at `alpha`; None if none would be."""
        ...


@dataclass(frozen=True)
class Shares:
    """Pairs of right and wrong answers: `rose` pairs only the candidate has right, `fell` only the baseline."""

    n: int
    rose: int
    fell: int
    method: Method = Method.MCNEMAR

    @property
    def difference(self) -> float:
        """Change of the share of right answers."""
        return (self.rose - self.fell) / self.n

    @cached_property
    def p(self) -> float:
        """Of the exact McNemar test."""
        return float(mcnemar([[0, self.fell], [self.rose, 0]], exact=True).pvalue)

    def interval(self, alpha: float) -> Interval:
        """Adjusted Wald interval: honest also where few pairs, or none, differ."""
        return _adjusted(self.rose - self.fell, self.rose + self.fell, self.n, alpha)

    def detectable(self, alpha: float, power: float = POWER) -> float | None:
        """From the exact power of the exact test, at the share of pairs that differ here, or more where needed."""
        differing = (self.rose + self.fell) / self.n

        def surplus(difference: float) -> float:
            return mcnemar_power(self.n, max(differing, difference), difference, alpha) - power

        if surplus(1.0) < 0:
            return None
        return float(optimize.brentq(surplus, 1e-9, 1.0, xtol=1e-6))


def mcnemar_power(n: int, differing: float, difference: float, alpha: float) -> float:
    """Probability that the exact McNemar test on `n` pairs finds a difference.

    `differing`: share of pairs that differ; `difference`: by how much more of all pairs differ to one side.
    """
    lowest, highest = (float(stats.binom.ppf(tail, n, differing)) for tail in (1e-9, 1 - 1e-9))
    counts = np.arange(lowest, highest + 1)
    quantile = stats.binom.ppf(alpha / 2, counts, 0.5)
    critical = quantile - (stats.binom.cdf(quantile, counts, 0.5) > alpha / 2)
    one_way = (differing + difference) / (2 * differing)
    found = stats.binom.cdf(critical, counts, one_way) + stats.binom.sf(counts - critical - 1, counts, one_way)
    return float(np.sum(stats.binom.pmf(counts, n, differing) * found))


@dataclass(frozen=True)
class Means:
    """Pairs of numbers of any kind, of which only the differences matter.

    `are_within_one`: no value of either run lies beyond 0 and 1.
    """

    differences: Values
    are_within_one: bool = False
    method: Method = Method.PERMUTATION

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.differences)

    @property
    def difference(self) -> float:
        """Change of the mean."""
        return float(np.mean(self.differences))

    @cached_property
    def p(self) -> float:
        """Of a permutation test that swaps the two numbers of a pair, which flips the sign of its difference."""
        if not np.any(self.differences):
            return 1.0
        if self.n <= MOST_TO_PERMUTE:
            return self._permuted()
        sizes, draw = np.abs(self.differences), np.random.default_rng(SEED)

        def flipped(size: tuple[int, ...]) -> Values:
            return sizes * (2 * draw.integers(2, size=size, dtype=np.int8) - 1)

        result = stats.monte_carlo_test(self.differences, flipped, np.mean, n_resamples=RESAMPLES, batch=self._batch)
        return float(result.pvalue)

    def _permuted(self) -> float:
        result = stats.permutation_test(
            (self.differences,),
            np.mean,
            permutation_type="samples",
            n_resamples=RESAMPLES,
            batch=self._batch,
            rng=np.random.default_rng(SEED),
        )
        return float(result.pvalue)

    def interval(self, alpha: float) -> Interval | None:
        """Percentile bootstrap of many pairs, Student's t of few; None where too few are known, or all are alike.

        Differences of values between 0 and 1 that are all alike have that of shares: chance moves also those.
        """
        return _interval(self._draws, alpha, are_within_one=self.are_within_one)

    @cached_property
    def _draws(self) -> Draws:
        return Draws(self.differences, np.ones_like(self.differences), RESAMPLES)

    def detectable(self, alpha: float, power: float = POWER) -> float | None:
        """Of the paired t-test, which these tests equal but for small samples; None if all differences are equal."""
        spread = float(np.std(self.differences, ddof=1)) if self.n > 2 else 0.0
        if not spread:
            return None
        return spread * float(TTestPower().solve_power(nobs=self.n, alpha=alpha, power=power, alternative="two-sided"))

    @property
    def _batch(self) -> int:
        return max(1, _CELLS // self.n)


@dataclass(frozen=True)
class Clustered:
    """Pairs of numbers that belong together in clusters: only whole clusters are independent of each other.

    `sums`: the differences of each cluster, added up; `sizes`: its pairs; `are_within_one`: no value of either run lies
    beyond 0 and 1.
    """

    sums: Values
    sizes: Values
    are_within_one: bool = False
    method: Method = Method.CLUSTERS

    @property
    def n(self) -> int:
        """Pairs."""
        return int(self.sizes.sum())

    @property
    def difference(self) -> float:
        """Change of the mean of all pairs."""
        return float(self.sums.sum() / self.sizes.sum())

    @cached_property
    def p(self) -> float:
        """Of a permutation test that swaps the two runs for all pairs of a cluster at once."""
        return Means(self.sums).p

    def interval(self, alpha: float) -> Interval | None:
        """As of Means, of whole clusters: drawn together, or with the variance of cluster-robust standard errors."""
        return _interval(self._draws, alpha, are_within_one=self.are_within_one)

    @cached_property
    def _draws(self) -> Draws:
        return Draws(self.sums, self.sizes, RESAMPLES)

    def detectable(self, alpha: float, power: float = POWER) -> float | None:
        """Of the paired t-test on clusters, each weighed by its size; None if it would find none."""
        share = len(self.sums) / self.sizes.sum()
        return Means((self.sums - self.difference * (self.sizes - self.sizes.mean())) * share).detectable(alpha, power)


@dataclass(frozen=True)
class Unpaired:
    """Two scores of which only the standard errors are known; pairs would tell more."""

    difference: float
    stderr: float
    method: Method = Method.STDERR
    n: None = None

    @property
    def p(self) -> float | None:
        """Of a z-test; None where the standard error is 0."""
        return float(2 * stats.norm.sf(abs(self.difference) / self.stderr)) if self.stderr else None

    def interval(self, alpha: float) -> Interval | None:
        """Normal interval; None where the standard error is 0."""
        half = float(stats.norm.isf(alpha / 2)) * self.stderr
        return Interval(self.difference - half, self.difference + half) if self.stderr else None

    def detectable(self, alpha: float, power: float = POWER) -> float | None:
        """(z of alpha + z of power) standard errors; None where the standard error is 0."""
        return float(stats.norm.isf(alpha / 2) + stats.norm.isf(1 - power)) * self.stderr or None


@dataclass(frozen=True)
class Untested:
    """Two scores of which nothing says how far chance moves them."""

    difference: float
    method: Method = Method.NONE
    n: None = None
    p: None = None

    def interval(self, alpha: float) -> None:
        """None."""

    def detectable(self, alpha: float, power: float = POWER) -> None:
        """None."""


def paired(baseline: Values, candidate: Values, clusters: Sequence[str] = ()) -> Shares | Means | Clustered:
    """The estimate for values of the same samples, at least one: of shares where all are 0 or 1, else of means.

    `clusters`: which samples belong together; none where each is for itself.
    """
    both = np.concatenate((baseline, candidate))
    within_one = bool(((both >= 0) & (both <= 1)).all())
    if clusters:
        places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
        which = np.array([places[name] for name in clusters])
        sums = np.bincount(which, weights=candidate - baseline).astype(np.float64)
        return Clustered(sums, np.bincount(which).astype(np.float64), are_within_one=within_one)
    if np.isin(both, (0.0, 1.0)).all():
        return Shares(len(baseline), int(np.sum(candidate > baseline)), int(np.sum(candidate < baseline)))
    return Means(candidate - baseline, are_within_one=within_one)


def _interval(draws: Draws, alpha: float, *, are_within_one: bool) -> Interval | None:
    found = of_mean(draws.sums, draws.sizes, alpha, draws)
    each = draws.sums / draws.sizes
    if found is None and are_within_one and are_alike(each):
        return _adjusted(float(each.sum()), float((each**2).sum()), len(each), alpha)
    return None if found is None else Interval(*found)


def _adjusted(total: float, squares: float, n: int, alpha: float) -> Interval:
    """Adjusted Wald interval of differences between -1 and 1, given their sum and that of their squares.

    What adjusts it is one more pair that rises by 1 and one that falls by 1.
    """
    mean = total / (n + 2)
    half = float(stats.norm.isf(alpha / 2)) * math.sqrt(((squares + 2) / (n + 2) - mean**2) / (n + 2))
    return Interval(max(-1.0, mean - half), min(1.0, mean + half))


def unpaired(baseline: float, candidate: float, errors: tuple[float | None, float | None]) -> Unpaired | Untested:
    """The estimate from two values and their standard errors."""
    difference = candidate - baseline
    if errors[0] is None or errors[1] is None:
        return Untested(difference)
    return Unpaired(difference, math.hypot(errors[0], errors[1]))


def holm(ps: list[float | None], alpha: float) -> list[float | None]:
    """Each p corrected, by Holm, for there being as many tests as there are numbers."""
    known = [p for p in ps if p is not None]
    corrected = iter(cast("list[float]", multipletests(known, alpha=alpha, method="holm")[1]) if known else ())
    return [None if p is None else float(next(corrected)) for p in ps]
