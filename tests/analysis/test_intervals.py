"""Bootstrap helpers against scipy and plain loops; Wilson's interval is tested with the summary."""

import numpy as np
import pytest
from scipy import stats

from gradscope.intervals import bootstrap, exact, over_groups, resampled, transfer_ratio, wilson


def test_resampled_counts_are_those_of_draws_with_replacement():
    counts = resampled(7, 2000, seed=1)
    assert counts.shape == (2000, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.08)
    assert counts.var() == pytest.approx(7 * (1 / 7) * (6 / 7), rel=0.05)  # binomial
    np.testing.assert_array_equal(counts, resampled(7, 2000, seed=1))
    assert (counts != resampled(7, 2000, seed=2)).any()


def test_the_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(0).exponential(size=80)
    replicates = resampled(80, 4000) @ values / 80
    wanted = stats.bootstrap([values], np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert bootstrap(values.mean(), replicates) == pytest.approx(tuple(wanted), abs=0.02)


def test_the_bias_of_resampling_is_removed():
    """Replicates that are all too large by the same amount give the same interval."""
    replicates = np.random.default_rng(0).normal(size=500)
    assert bootstrap(2.0, replicates + 10) == pytest.approx(bootstrap(2.0, replicates))
    low, high = bootstrap(2.0, replicates)
    assert low == pytest.approx(2 + np.percentile(replicates, 2.5) - replicates.mean())
    assert high == pytest.approx(2 + np.percentile(replicates, 97.5) - replicates.mean())


def test_a_replicate_that_is_not_finite_leaves_no_interval():
    assert np.isnan(bootstrap(1.0, [1.0, np.nan, 2.0])).all()
    assert np.isnan(bootstrap(1.0, [1.0, np.inf])).all()


@pytest.mark.parametrize("level", [0.95, 0.9999])
def test_exact_intervals_are_scipys(level):
    for k, n in ((0, 16), (3, 16), (16, 16), (40, 64)):
        wanted = stats.binomtest(k, n).proportion_ci(level, method="exact")
        assert [float(bound) for bound in exact(k, n, level)] == pytest.approx([wanted.low, wanted.high])
    assert np.isnan(exact(0, 0, level)).all()


def pair(n: int, own: float, judge: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(n) < own, rng.random(n) < judge


def test_the_transfer_ratio_is_paired_and_near_scipys_bootstrap():
    guide, judge = pair(200, 0.95, 0.5)
    ratio, low, high = transfer_ratio(guide, judge, 0.25)
    assert ratio == pytest.approx((judge.mean() - 0.25) / (guide.mean() - 0.25))

    def statistic(a, b, axis):
        return (b.mean(axis=axis) - 0.25) / (a.mean(axis=axis) - 0.25)

    wanted = stats.bootstrap(
        [guide, judge], statistic, paired=True, method="percentile", n_resamples=4000, rng=1
    ).confidence_interval
    assert (low, high) == pytest.approx(tuple(wanted), abs=0.02)


def test_a_guide_that_the_judge_confirms_every_time_may_be_wrong_on_others():
    """The interval was [1, 1]. With a judge that confirms 98 of 100 samples, 0.73 of them at N = 64 held the ratio."""
    always = np.ones(64, dtype=bool)
    ratio, low, high = transfer_ratio(always, always, 0.25)
    assert ratio == 1
    assert 0.93 < low < 0.97
    assert 1 < high < 1.07


@pytest.mark.slow
@pytest.mark.parametrize(("guide", "follows"), [(1.0, 0.98), (0.9, 0.95), (0.9, 0.5), (0.6, 0.3)])
def test_the_transfer_ratios_interval_covers(guide, follows):
    rng, true = np.random.default_rng(0), (guide * follows - 0.25) / (guide - 0.25)
    held = 0
    for _ in range(400):
        own = rng.random(64) < guide
        _, low, high = transfer_ratio(own, own & (rng.random(64) < follows), 0.25)
        held += not (true < low or true > high)
    assert held / 400 >= 0.92


def test_without_success_above_chance_there_is_no_ratio():
    guide, judge = pair(64, 0.3, 0.9)
    assert np.isnan(transfer_ratio(guide, judge, 0.25)).all()
    assert np.isnan(transfer_ratio([], [], 0.25)).all()


def test_a_bound_is_missing_where_too_many_draws_are_undefined():
    """5 of 8, chance 0.25: Wilson's bound is 0.31, but in one of a hundred draws the guide is at chance."""
    guide, judge = np.arange(8) < 5, np.arange(8) < 4
    assert stats.beta(5 + 1, 3 + 1).cdf(0.25) > 0.005
    ratio, low, high = transfer_ratio(guide, judge, 0.25, level=0.999)
    assert ratio == pytest.approx((4 / 8 - 1 / 4) / (5 / 8 - 1 / 4))
    assert np.isnan([low, high]).all()
    assert np.isfinite(transfer_ratio(guide, judge, 0.25)).all()


@pytest.mark.parametrize("groups", [2, 3, 6, 12])
@pytest.mark.parametrize(("mean", "spread"), [(0.5, 0.0), (0.5, 0.15), (0.8, 0.1), (0.9, 0.0), (0.95, 0.03)])
def test_the_interval_over_groups_covers_the_groups_mean(groups, mean, spread):
    """Guides' accuracies are drawn from a beta distribution, then their samples; Wilson's alone covers far less."""
    rng = np.random.default_rng(groups)
    covered, covered_by_wilson, runs = 0, 0, 2000
    for _ in range(runs):
        if spread:
            size = mean * (1 - mean) / spread**2 - 1
            p = rng.beta(mean * size, (1 - mean) * size, groups)
        else:
            p = np.full(groups, mean)
        k = rng.binomial(128, p)
        _, low, high = over_groups(k, np.full(groups, 128))
        covered += low <= mean <= high
        low, high = wilson(k.sum(), 128 * groups)
        covered_by_wilson += low <= mean <= high
    assert covered / runs > 0.93
    if spread >= 0.1:
        assert covered_by_wilson / runs < 0.6


def test_the_interval_over_groups_is_students_or_wilsons():
    shares = np.array([0.9, 0.5, 0.7])
    mean, low, high = over_groups(shares * 100, [100] * 3)
    wanted = stats.ttest_1samp(shares, 0).confidence_interval(0.95)
    assert (mean, low, high) == (pytest.approx(0.7), pytest.approx(wanted.low), pytest.approx(min(wanted.high, 1)))
    for k, n in [([70, 70], [100, 100]), ([7], [10]), ([0, 0, 0], [9, 9, 9])]:
        _, low, high = over_groups(k, n)
        found = stats.binomtest(sum(k), sum(n)).proportion_ci(0.95, method="wilson")
        assert (low, high) == (pytest.approx(found.low), pytest.approx(found.high))
