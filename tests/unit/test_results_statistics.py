"""Figures against scipy and statsmodels called directly, and against simulation of what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from benchmarks import coverage
from launcher.results import means, statistics
from launcher.results.statistics import Interval, Means, Method, Shares, Untested, holm, paired, unpaired

RNG = np.random.default_rng(7)
BASE, NEW = (RNG.random(60) < 0.6).astype(float), (RNG.random(60) < 0.4).astype(float)
SCORES = RNG.normal(0.5, 0.2, 60)
OTHERS = SCORES + RNG.normal(0.03, 0.1, 60)


def test_mcnemar_is_statsmodels_on_the_same_samples() -> None:
    table = [[np.sum((a == BASE) & (b == NEW)) for b in (0, 1)] for a in (0, 1)]

    found = paired(BASE, NEW)

    assert found.method is Method.MCNEMAR
    assert found.p == mcnemar(table, exact=True).pvalue
    assert found.p == pytest.approx(stats.binomtest(int(table[0][1]), int(table[0][1] + table[1][0])).pvalue)
    assert found.difference == pytest.approx(NEW.mean() - BASE.mean())


def test_the_permutation_test_is_scipys_on_the_same_samples() -> None:
    def mean_difference(new: np.ndarray, base: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean(new, axis=axis) - np.mean(base, axis=axis)

    seed = np.random.default_rng(means.SEED)
    tested = stats.permutation_test((OTHERS - SCORES,), np.mean, permutation_type="samples", rng=seed)
    swapped = stats.permutation_test((OTHERS, SCORES), mean_difference, permutation_type="samples", rng=1)

    found = paired(SCORES, OTHERS)

    assert found.method is Method.PERMUTATION and found.p == tested.pvalue
    assert found.p == pytest.approx(swapped.pvalue, abs=0.01), "flipping signs is swapping within pairs"


def test_the_interval_of_differences_without_skew_is_scipys_t() -> None:
    both_ways = np.concatenate((OTHERS - SCORES, SCORES - OTHERS)) + 0.03
    theirs = stats.ttest_1samp(both_ways, 0).confidence_interval(0.95)

    found = Means(both_ways)

    assert found.interval(0.05) == Interval(pytest.approx(theirs.low), pytest.approx(theirs.high))
    assert found.interval(0.01).low < theirs.low  # type: ignore[union-attr]


def test_the_interval_of_many_differences_is_the_one_that_scipy_bootstraps() -> None:
    many = np.random.default_rng(8).exponential(1, means.MANY) - 0.9

    theirs = [
        stats.bootstrap(
            (many,),
            np.mean,
            n_resamples=statistics.RESAMPLES,
            confidence_level=1 - alpha,
            method="percentile",
            rng=np.random.default_rng(means.SEED),
        ).confidence_interval
        for alpha in (0.05, 0.01)
    ]
    found = Means(many)

    for alpha, expected in zip((0.05, 0.01), theirs, strict=True):
        assert found.interval(alpha) == Interval(pytest.approx(expected.low), pytest.approx(expected.high))


def test_skewed_differences_are_stretched_as_far_as_a_studentised_bootstrap_reaches() -> None:
    skewed = np.random.default_rng(5).exponential(1, 30)
    draws = skewed[np.random.default_rng(6).integers(30, size=(20_000, 30))]
    errors = draws.std(axis=1, ddof=1) / 30**0.5
    lowest = np.quantile((draws.mean(axis=1) - skewed.mean()) / errors, 0.025)
    theirs = skewed.mean() - lowest * skewed.std(ddof=1) / 30**0.5
    symmetric = stats.ttest_1samp(skewed, 0).confidence_interval(0.95)

    found = Means(skewed).interval(0.05)

    assert found is not None and found.low == pytest.approx(symmetric.low)
    assert symmetric.high < found.high == pytest.approx(theirs, rel=0.1)


@pytest.mark.parametrize(
    "truth", [truth for truth in coverage.TRUTHS if "rose" not in truth.name], ids=lambda truth: truth.name
)
def test_intervals_of_few_samples_and_clusters_hold_the_truth_as_often_as_they_say(truth: coverage.Truth) -> None:
    assert coverage.coverage(truth, 10, draws=250).held > 0.9


def test_many_pairs_are_permuted_faster_and_as_well() -> None:
    differences = np.random.default_rng(3).normal(0.0, 1, 2_000) + 0.015
    expected = stats.ttest_1samp(differences, 0).pvalue

    assert Means(differences).p == pytest.approx(expected, abs=0.02)
    assert 0.01 < expected < 0.5


def test_few_pairs_are_enumerated_so_that_p_is_exact() -> None:
    assert Means(np.array([0.1, 0.2, 0.3])).p == 2 / 2**3


def test_holm_is_statsmodels_and_leaves_out_what_was_not_tested() -> None:
    corrected = holm([0.01, None, 0.04, 0.03], 0.05)

    assert corrected == [*multipletests([0.01], method="holm")[1] * 3, None, 0.06, 0.06]
    assert holm([None], 0.05) == [None]


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.02, 0.02), (0.1, 0.05), (0.3, 0.1)])
@pytest.mark.parametrize("n", [20, 200])
def test_the_interval_of_shares_holds_the_truth_as_often_as_it_says(rates: tuple[float, float], n: int) -> None:
    draws = np.random.default_rng(11).multinomial(n, [*rates, 1 - sum(rates)], size=1_000)
    kinds, counts = np.unique(draws, axis=0, return_counts=True)

    held = 0
    for (rose, fell, _), count in zip(kinds, counts, strict=True):
        found = Shares(n, int(rose), int(fell)).interval(0.05)
        held += count * (found.low <= rates[0] - rates[1] <= found.high)

    assert held / 1_000 > 0.93


@pytest.mark.parametrize(("n", "rose", "fell"), [(100, 8, 4), (400, 30, 30), (1_000, 40, 20), (50, 0, 0)])
def test_a_difference_as_large_as_stated_is_found_with_the_stated_power(n: int, rose: int, fell: int) -> None:
    detectable = Shares(n, rose, fell).detectable(0.05)
    assert detectable is not None
    differing = max((rose + fell) / n, detectable)
    rates = ((differing + detectable) / 2, (differing - detectable) / 2)
    draws = np.random.default_rng(5).multinomial(n, [*rates, 1 - differing], size=2_000)
    kinds, counts = np.unique(draws, axis=0, return_counts=True)

    found = sum(c * (Shares(n, int(k[0]), int(k[1])).p < 0.05) for k, c in zip(kinds, counts, strict=True))

    assert found / 2_000 == pytest.approx(0.8, abs=0.04)


def test_the_detectable_difference_of_means_is_that_of_the_paired_t_test() -> None:
    differences = OTHERS - SCORES
    effect = TTestPower().solve_power(nobs=60, alpha=0.05, power=0.8)

    detectable = Means(differences).detectable(0.05)

    assert detectable == pytest.approx(effect * differences.std(ddof=1))
    draws = np.random.default_rng(2).normal(detectable, differences.std(ddof=1), (2_000, 60))
    assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.04)


def test_nothing_that_differs_is_no_proof_of_equality() -> None:
    same = Shares(20, 0, 0)

    assert same.p == 1.0 and same.difference == 0.0
    assert same.interval(0.05).high > 0.1


def test_too_few_samples_show_nothing_at_all() -> None:
    assert Shares(5, 5, 0).p > 0.05 and Shares(5, 5, 0).detectable(0.05) is None
    assert Means(np.array([0.1, 0.2])).interval(0.05) is None
    assert Means(np.array([0.1])).detectable(0.05) is None
    assert Means(np.zeros(12)).p == 1.0


def test_unpaired_scores_are_compared_by_their_standard_errors() -> None:
    found = unpaired(0.5, 0.6, (0.03, 0.04))

    assert found.method is Method.STDERR and found.p == pytest.approx(2 * stats.norm.sf(2.0))
    assert found.interval(0.05) == Interval(pytest.approx(0.1 - 0.05 * 1.959964), pytest.approx(0.1 + 0.05 * 1.959964))
    assert found.detectable(0.05) == pytest.approx(0.05 * 2.801585, rel=1e-5)


def test_without_a_standard_error_there_is_only_the_difference() -> None:
    for found in (unpaired(0.5, 0.6, (0.03, None)), unpaired(0.5, 0.6, (0.0, 0.0))):
        assert found.difference == pytest.approx(0.1)
        assert (found.p, found.interval(0.05), found.detectable(0.05)) == (None, None, None)
    assert isinstance(unpaired(0.5, 0.6, (None, None)), Untested)


def test_clusters_that_move_as_a_whole_are_not_taken_for_many_independent_samples() -> None:
    """Ten questions a passage that are right or wrong together: chance differences of passages are no regression."""
    random = np.random.default_rng(11)
    names = np.repeat([f"passage {number}" for number in range(40)], 10).tolist()
    found = {"alone": 0, "together": 0}
    for _ in range(60):
        base, new = (np.repeat(random.integers(0, 2, 40), 10).astype(float) for _ in range(2))
        found["alone"] += (paired(base, new).p or 0.0) < 0.05
        found["together"] += (paired(base, new, names).p or 0.0) < 0.05

    assert found["together"] <= 8, "about one in twenty"
    assert found["alone"] >= 24, "which is what taking them for independent does"


def test_the_interval_of_clusters_of_equal_size_is_that_of_their_means() -> None:
    names = [f"{number // 3}" for number in range(60)]
    found = paired(SCORES, OTHERS, names)
    means = np.add.reduceat(OTHERS - SCORES, np.arange(0, 60, 3)) / 3
    alone = Means(means).interval(0.05)

    assert (found.method, found.n) == (Method.CLUSTERS, 60)
    assert found.difference == pytest.approx(np.mean(OTHERS - SCORES))
    assert alone is not None and found.interval(0.05) == Interval(pytest.approx(alone.low), pytest.approx(alone.high))
    assert found.detectable(0.05) == pytest.approx(Means(means).detectable(0.05))


def test_scores_between_0_and_1_that_do_not_differ_are_no_certainty() -> None:
    assert paired(SCORES.clip(0, 1), SCORES.clip(0, 1)).interval(0.05) == Shares(60, 0, 0).interval(0.05)
    assert paired(SCORES * 9, SCORES * 9).interval(0.05) is None, "nothing says how far they could differ"


def test_scores_between_0_and_1_that_all_fall_as_far_have_surely_fallen() -> None:
    found = paired(np.full(40, 0.75), np.full(40, 0.25)).interval(0.05)

    assert found is not None and -0.6 < found.low < -0.5 < found.high < -0.3


def test_clusters_of_one_sample_each_are_samples() -> None:
    alone = paired(SCORES, OTHERS, [str(number) for number in range(60)])

    assert alone.p == Means(OTHERS - SCORES).p
    assert alone.detectable(0.05) == pytest.approx(Means(OTHERS - SCORES).detectable(0.05))


def test_clusters_of_right_and_wrong_answers_that_do_not_differ_are_no_certainty() -> None:
    answers = np.tile([1.0, 0.0], 50)

    found = paired(answers, answers, [str(place // 10) for place in range(100)])

    assert found.method is Method.CLUSTERS
    assert found.interval(0.05) == Shares(10, 0, 0).interval(0.05)


def test_few_clusters_have_no_interval() -> None:
    assert paired(SCORES, OTHERS, ["a"] * 30 + ["b"] * 30).interval(0.05) is None
