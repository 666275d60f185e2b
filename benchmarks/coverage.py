"""How often 95 % intervals hold the truth: python -m benchmarks.coverage [--draws N] [--bootstrap] [--json].

Samples of known distributions are drawn again and again, with a fixed seed, and the intervals that results, compare and
gate make from them are counted that hold the true mean. Draws of which nothing is known (all samples alike) are left
out and said in the last column. `--bootstrap` shows scipy's percentile bootstrap of the same draws beside it.
"""

from __future__ import annotations

import argparse
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from launcher.results import means
from launcher.results.samples import SampleSet
from launcher.results.statistics import Estimate, Values, paired

SEED = 1
SIZES = (10, 20, 50, 200)
Draw = Callable[[np.random.Generator, int], Values]


@dataclass(frozen=True)
class Truth:
    """Something that samples are drawn of: values of the baseline and the candidate, or of one run alone.

    `mean`: of a score, or of candidate minus baseline. `clustered`: whether each sample is one cluster's worth.
    """

    name: str
    mean: float
    draw: Callable[[np.random.Generator, int], tuple[Values, list[str]]]
    is_score: bool = False


@dataclass(frozen=True)
class Row:
    """`held`: share of intervals that hold the truth; `width`: their mean width; `unknown`: draws without one."""

    name: str
    n: int
    held: float
    width: float
    unknown: int
    bootstrap: float | None = None


def _scores(random: np.random.Generator, n: int) -> Values:
    """F1 and the like: some 0, some 1, the rest between."""
    kind = random.random(n)
    return np.where(kind < 0.35, 0.0, np.where(kind < 0.6, 1.0, random.beta(2, 2, n)))


def _good_scores(random: np.random.Generator, n: int) -> Values:
    kind = random.random(n)
    return np.where(kind < 0.1, 0.0, np.where(kind < 0.75, 1.0, random.beta(3, 1.5, n)))


def _mostly_equal(random: np.random.Generator, n: int) -> Values:
    """Differences of two runs that give six of ten answers alike."""
    return np.where(random.random(n) < 0.6, 0.0, random.normal(0, 0.3, n))


def _alone(draw: Draw) -> Callable[[np.random.Generator, int], tuple[Values, list[str]]]:
    return lambda random, n: (draw(random, n), [])


def _clusters(n: int, random: np.random.Generator, *, even: bool) -> Values:
    return np.repeat(np.arange(n), 4 if even else random.integers(1, 9, n))


def _clustered(*, even: bool) -> Callable[[np.random.Generator, int], tuple[Values, list[str]]]:
    """`n` clusters of 4, or of 1 to 8, numbers that share most of what moves them."""

    def draw(random: np.random.Generator, n: int) -> tuple[Values, list[str]]:
        which = _clusters(n, random, even=even)
        values: Values = random.normal(0, 1, n)[which] + random.normal(0, 0.5, len(which))
        return values, [str(one) for one in which]

    return draw


def _clustered_answers(random: np.random.Generator, n: int) -> tuple[Values, list[str]]:
    """Answers about `n` texts, of which some are easy: 70 % right."""
    which = _clusters(n, random, even=False)
    easy = random.beta(2.1, 0.9, n)
    return (random.random(len(which)) < easy[which]).astype(float), [str(one) for one in which]


def _pairs(rose: float, fell: float) -> Callable[[np.random.Generator, int], tuple[Values, list[str]]]:
    return _alone(lambda random, n: random.choice([1.0, -1.0, 0.0], p=[rose, fell, 1 - rose - fell], size=n))


TRUTHS = (
    Truth("answers, 70 % right", 0.7, _alone(lambda random, n: (random.random(n) < 0.7).astype(float)), is_score=True),
    Truth(
        "answers, 95 % right", 0.95, _alone(lambda random, n: (random.random(n) < 0.95).astype(float)), is_score=True
    ),
    Truth("normal", 0.0, _alone(lambda random, n: random.normal(0, 1, n)), is_score=True),
    Truth("uniform", 0.5, _alone(lambda random, n: random.random(n)), is_score=True),
    Truth("exponential", 1.0, _alone(lambda random, n: random.exponential(1, n)), is_score=True),
    Truth(
        "lognormal, sigma 0.8",
        float(np.exp(0.32)),
        _alone(lambda random, n: random.lognormal(0, 0.8, n)),
        is_score=True,
    ),
    Truth("0, 1 and between", 0.25 + 0.4 / 2, _alone(_scores), is_score=True),
    Truth("0, 1 and between, mostly 1", 0.65 + 0.25 * 2 / 3, _alone(_good_scores), is_score=True),
    Truth("clusters of 4", 0.0, _clustered(even=True), is_score=True),
    Truth("clusters of 1 to 8", 0.0, _clustered(even=False), is_score=True),
    Truth("answers in clusters of 1 to 8", 0.7, _clustered_answers, is_score=True),
    Truth("pairs of answers, 20 % rose, 10 % fell", 0.1, _pairs(0.2, 0.1)),
    Truth("pairs of answers, 5 % rose, 5 % fell", 0.0, _pairs(0.05, 0.05)),
    Truth("differences, normal", 0.0, _alone(lambda random, n: random.normal(0, 1, n))),
    Truth("differences, six of ten 0", 0.0, _alone(_mostly_equal)),
    Truth("differences in clusters of 1 to 8", 0.0, _clustered(even=False)),
)


def rows(draws: int, sizes: tuple[int, ...] = SIZES, *, bootstrap: bool = False) -> Iterator[Row]:
    """One for each distribution and number of samples, or of clusters."""
    for truth in TRUTHS:
        for n in sizes:
            yield coverage(truth, n, draws, bootstrap=bootstrap)


def coverage(truth: Truth, n: int, draws: int, *, bootstrap: bool = False) -> Row:
    """Counted over `draws` of `n` samples or clusters each."""
    random = np.random.default_rng(SEED)
    drawn = [truth.draw(random, n) for _ in range(draws)]
    found = [_interval(truth, *one) for one in drawn]
    known = [one for one in found if one is not None]
    return Row(
        truth.name,
        n,
        held=_held(truth, known),
        width=float(np.mean([high - low for low, high in known])),
        unknown=draws - len(known),
        bootstrap=_held(truth, [_bootstrap(*one) for one in drawn if np.ptp(one[0])]) if bootstrap else None,
    )


def _held(truth: Truth, known: list[tuple[float, float]]) -> float:
    return float(np.mean([low - 1e-12 <= truth.mean <= high + 1e-12 for low, high in known]))


def _interval(truth: Truth, values: Values, clusters: list[str]) -> tuple[float, float] | None:
    """As `nv-eval results`, or `nv-eval compare`, makes it."""
    if not truth.is_score:
        found = _estimate(values, clusters).interval(means.ALPHA)
        return None if found is None else (found.low, found.high)
    kept = SampleSet("t", "none", Path("none"), values={"m": array("d", values)}, clusters=clusters)
    bounds = means.interval(kept, "m", float(values.mean()))
    return None if bounds is None or bounds[0] is None or bounds[1] is None else bounds[:2]


def _estimate(differences: Values, clusters: list[str]) -> Estimate:
    """Of two runs with these differences: 1, 0 and -1 are those of right and wrong answers."""
    baseline = (
        np.where(differences < 0, 1.0, 0.0) if np.isin(differences, (-1.0, 0.0, 1.0)).all() else 0.0 * differences
    )
    return paired(baseline, baseline + differences, clusters)


def _bootstrap(values: Values, clusters: list[str]) -> tuple[float, float]:
    if clusters:
        _, which = np.unique(clusters, return_inverse=True)
        sums, sizes = np.bincount(which, weights=values), np.bincount(which).astype(float)
    else:
        sums, sizes = values, np.ones_like(values)

    def mean(sums: Values, sizes: Values, axis: int = -1) -> Values:
        found: Values = sums.sum(axis=axis) / sizes.sum(axis=axis)
        return found

    found = stats.bootstrap(
        (sums, sizes), mean, paired=True, vectorized=True, n_resamples=999, method="percentile", rng=SEED
    ).confidence_interval
    return float(found.low), float(found.high)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000, help="of each; default: 1000")
    parser.add_argument("--bootstrap", action="store_true", help="scipy's percentile bootstrap beside it; minutes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    found = rows(args.draws, bootstrap=args.bootstrap)
    if args.json:
        print(json.dumps([asdict(row) for row in found]))
        return 0
    print(f"{'':42}{'n':>5}{'held':>8}{'width':>9}{'unknown':>9}{'  bootstrap' if args.bootstrap else ''}")
    for row in found:
        beside = "" if row.bootstrap is None else f"{row.bootstrap:>11.3f}"
        print(f"{row.name:42}{row.n:>5}{row.held:>8.3f}{row.width:>9.3f}{row.unknown:>9}{beside}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
