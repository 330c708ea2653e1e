"""Tests, intervals and permutations against other libraries, published numbers and plain loops."""

from math import comb

import numpy as np
import pytest
import statsmodels.stats.contingency_tables as tables
from scipy import stats
from statsmodels.stats.multitest import multipletests

from gradscope.analysis.means import mean_interval
from gradscope.analysis.statistics import (
    MINIMUM_SAMPLES,
    cluster_permutation,
    holm,
    mcnemar,
    paired_mean,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_paired_mean_agrees_with_scipy_and_with_a_loop_over_ranks(rng):
    x = rng.normal(0.3, 1, 80)
    test, wanted = paired_mean(x), stats.ttest_1samp(x, 0)
    assert test.n == 80
    assert test.p == pytest.approx(wanted.pvalue)
    assert (test.low, test.high) == pytest.approx(tuple(wanted.confidence_interval()))
    ranks = {i: rank for rank, i in enumerate(np.argsort(np.abs(x)), start=1)}
    balance = sum(ranks[i] if x[i] > 0 else -ranks[i] for i in range(80))
    assert test.effect == pytest.approx(balance / sum(range(1, 81)))
    assert test.estimate == pytest.approx(x.mean())
    assert test.note == ""


def test_ranks_of_zeros_follow_pratt(rng):
    """Zeros have ranks but favour neither side."""
    x = np.concatenate([np.zeros(40), rng.normal(0.35, 1, 60)])
    ranks = stats.rankdata(np.abs(x))
    assert paired_mean(x).effect == pytest.approx((np.sign(x) * ranks).sum() / (100 * 101 / 2))
    none = paired_mean(np.zeros(100))
    assert (none.p, none.effect, none.estimate, none.low, none.high) == (1, 0, 0, 0, 0)
    always = paired_mean(np.ones(100))
    assert (always.p, always.effect, always.low, always.high) == (0, 1, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("n", [64, 100, 1000])
def test_p_and_interval_do_not_contradict_each_other(n, rng):
    """An exact p with Newcombe's interval, and Wilcoxon's p with a bootstrap of the mean, used to contradict."""
    for gained in range(20):
        for lost in range(20):
            test = mcnemar(*pairs(n - gained - lost, gained, lost, 0))
            assert (test.p < 0.05) == (test.low > 0 or test.high < 0), (gained, lost)
            assert test.low <= test.estimate <= test.high
    for shift in np.linspace(0, 0.4, 30):
        test = paired_mean(rng.exponential(size=n) - 1 + shift)
        assert (test.p < 0.05) == (test.low > 0 or test.high < 0)


def test_too_few_samples_have_an_estimate_and_no_p(rng):
    for test in (paired_mean(rng.normal(1, 1, 40)), mcnemar(rng.random(40) < 0.2, rng.random(40) < 0.8)):
        assert np.isnan(test.p)
        assert test.note == "insufficient samples: 40 of 64"
        assert test.low > 0
        assert test.effect > 0
    assert np.isfinite(paired_mean(rng.normal(size=MINIMUM_SAMPLES)).p)
    for test in (paired_mean([]), mcnemar([], [])):
        assert test.n == 0
        assert np.isnan([test.estimate, test.low, test.high, test.effect, test.p]).all()


def test_pairs_that_are_not_finite_are_counted(rng):
    x = rng.normal(size=66)
    test = paired_mean([*x, np.nan, np.inf])
    assert test.n == 66
    assert test.estimate == pytest.approx(x.mean())
    assert test.note == "2 of 68 pairs not finite"
    assert paired_mean([*x[:40], np.nan]).note == "insufficient samples: 40 of 64; 1 of 41 pairs not finite"


def pairs(both, gained, lost, neither):
    a = [True] * both + [False] * gained + [True] * lost + [False] * neither
    b = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return a, b


def test_mcnemars_p_is_the_mid_p_of_the_discordant_pairs():
    test = mcnemar(*pairs(30, 17, 6, 20))
    tail = (sum(comb(23, k) for k in range(18, 24)) + comb(23, 17) / 2) / 2**23
    assert test.p == pytest.approx(2 * tail)
    assert test.p < tables.mcnemar([[30, 17], [6, 20]], exact=True).pvalue
    assert test.estimate == pytest.approx((17 - 6) / 73)
    assert test.effect == pytest.approx(17 / 23 - 0.5)
    assert test.effect_name == "Cohen's g"
    same = mcnemar(*pairs(50, 0, 0, 50))
    assert (same.p, same.effect, same.estimate) == (1, 0, 0)
    assert (same.low, same.high) == pytest.approx((-0.037, 0.037), abs=1e-3)
    swapped = mcnemar(*reversed(pairs(30, 17, 6, 20)))
    assert (swapped.low, swapped.high, swapped.effect) == pytest.approx((-test.high, -test.low, -test.effect))


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((36, 12, 2, 0), 0.0569, 0.3404), ((18, 12, 2, 18), 0.0562, 0.3290), ((53, 0, 0, 1), -0.0729, 0.0729)],
)
def test_mcnemars_interval_is_near_newcombes_published_ones(counts, low, high):
    """Stat. Med. 17, 2635-2650, 1998, method 10: another method, applied to the same shares."""
    test = mcnemar(*pairs(*counts))
    assert (test.low, test.high) == pytest.approx((low, high), abs=0.03)


def test_mcnemars_interval_covers(rng):
    """95 % of the intervals contain the true difference of correlated verdicts with known shares."""
    covered = 0
    for _ in range(400):
        difficulty = rng.random(64)
        a, b = difficulty < 0.5 + 0.2 * rng.random(64), difficulty < 0.7 + 0.2 * rng.random(64)
        test = mcnemar(a, b)
        covered += test.low <= 0.2 <= test.high
    assert 0.93 <= covered / 400 <= 0.995


def test_holm_agrees_with_statsmodels(rng):
    p = rng.random(20) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    gaps = np.insert(p, [0, 5, 20], np.nan)
    known = np.isfinite(gaps)
    np.testing.assert_allclose(holm(gaps)[known], multipletests(p, method="holm")[1])
    assert np.isnan(holm(gaps)[~known]).all()
    assert holm([]).shape == (0,)


def by_hand(difference, signs, level=0.05):
    """Clusters as (first, last, mass) and p, with scipy's t-test in a loop over the given sign vectors."""

    def clusters(x):
        t = stats.ttest_1samp(x, 0).statistic
        critical = stats.t.ppf(1 - level / 2, len(x) - 1)
        found, current = [], None
        for k, value in enumerate(t):
            side = np.sign(value) if abs(value) > critical else 0
            if current and side == current[3]:
                current[1], current[2] = k, current[2] + value
            else:
                current = [k, k, value, side]
                found.append(current)
        return [c for c in found if c[3]]

    largest = [max((abs(c[2]) for c in clusters(s[:, None] * difference)), default=0) for s in signs]
    return [(*c[:3], (1 + sum(m >= abs(c[2]) for m in largest)) / (len(signs) + 1)) for c in clusters(difference)]


def test_cluster_permutation_agrees_with_a_loop(rng):
    difference = 0.7 * np.cumsum(rng.normal(size=(70, 12)), axis=1) * rng.normal(size=(70, 1)) + 0.2
    difference[:, 3:6] += rng.normal(0.8, 1, (70, 3))
    found = cluster_permutation(difference, permutations=2000)
    expected = by_hand(difference, rng.choice([-1, 1], (500, 70)))
    assert [(c.first, c.last) for c in found] == [e[:2] for e in expected]
    np.testing.assert_allclose([c.mass for c in found], [e[2] for e in expected])
    np.testing.assert_allclose([c.p for c in found], [e[3] for e in expected], atol=0.05)
    for cluster in found:
        assert cluster.estimate == pytest.approx(difference[:, cluster.first : cluster.last + 1].mean())


def test_cluster_permutation_keeps_its_level(rng):
    """About 5 % of null curves with memory have a cluster with p <= 0.05: 5 to 27 of 300 draws (p > 0.999)."""
    false = 0
    for seed in range(300):
        noise = rng.normal(size=(64, 30))
        for k in range(1, 30):
            noise[:, k] = 0.8 * noise[:, k - 1] + 0.6 * noise[:, k]
        clusters = cluster_permutation(noise * rng.exponential(size=(64, 1)), permutations=199, seed=seed)
        false += any(cluster.p <= 0.05 for cluster in clusters)
    assert 5 <= false <= 27


def test_cluster_permutation_finds_known_effects(rng):
    hits = 0
    for seed in range(50):
        difference = rng.normal(size=(80, 40))
        difference[:, 10:20] += 0.5
        difference[:, 25:32] -= 0.5
        found = [c for c in cluster_permutation(difference, permutations=199, seed=seed) if c.p <= 0.05]
        up = max((c for c in found if c.mass > 0), key=lambda c: c.mass, default=None)
        down = min((c for c in found if c.mass < 0), key=lambda c: c.mass, default=None)
        hits += bool(up and 9 <= up.first <= 13 and 16 <= up.last <= 20) and bool(down and 24 <= down.first <= 28)
    assert hits >= 45


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_clusters_do_not_depend_on_the_scale(rng, scale):
    difference = rng.normal(0.2, 1, (64, 20))
    plain, scaled = cluster_permutation(difference), cluster_permutation(scale * difference)
    assert [(c.first, c.last, c.p) for c in plain] == [(c.first, c.last, c.p) for c in scaled]
    np.testing.assert_allclose([c.estimate for c in scaled], [c.estimate * scale for c in plain])


def test_cluster_permutation_skips_values_that_are_not_finite(rng):
    difference = rng.normal(1, 1, (70, 10))
    difference[:, 0] = np.nan
    difference[:10, 5] = np.nan  # 60 samples are left
    difference[:3, 6] = np.inf
    (cluster,) = cluster_permutation(difference)
    assert (cluster.first, cluster.last, cluster.p) == (1, 9, 1 / 2001)
    assert cluster.note == "3 of 560 values not finite"
    kept = [stats.ttest_1samp(difference[3 * (k == 6) :, k], 0).statistic for k in (1, 2, 3, 4, 6, 7, 8, 9)]
    assert cluster.mass == pytest.approx(sum(kept))
    assert cluster_permutation(np.full((70, 10), np.nan)) == []
    assert cluster_permutation(np.zeros((70, 10))) == []
    assert cluster_permutation(np.empty((0, 10))) == []
    (constant,) = cluster_permutation(np.ones((70, 10)))
    assert np.isfinite(constant.mass)


def test_clusters_of_too_few_samples_have_no_p(rng):
    (cluster,) = cluster_permutation(rng.normal(2, 1, (40, 5)))
    assert (cluster.first, cluster.last) == (0, 4)
    assert np.isnan(cluster.p)
    assert cluster.note == "insufficient samples: 40 of 64"


def test_mean_interval_agrees_with_scipy(rng):
    x = rng.exponential(size=(90, 4))
    mean, low, high, n = mean_interval(x)
    wanted = stats.ttest_1samp(x, 0).confidence_interval()
    np.testing.assert_allclose(mean, x.mean(axis=0))
    np.testing.assert_allclose([low, high], wanted)
    assert n.tolist() == [90] * 4
    assert mean_interval(x[:, 0]).mean.shape == ()
    narrow = mean_interval(x.T.reshape(2, 2, 90), axis=2, level=0.8)
    np.testing.assert_allclose(narrow.low.ravel(), stats.ttest_1samp(x, 0).confidence_interval(0.8).low)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e250])
def test_mean_interval_does_not_depend_on_the_scale(rng, scale):
    x = rng.normal(size=(8, 3))
    np.testing.assert_allclose(mean_interval(scale * x).low, scale * mean_interval(x).low)
    same = mean_interval(np.full((8, 1), 0.1 * scale))
    assert same.low == same.high == same.mean


def test_mean_interval_counts_only_finite_values(rng):
    x = rng.normal(size=(50, 5))
    x[:20, 1] = np.nan
    x[1:, 2] = np.inf
    x[:, 3] = np.nan
    x[2:, 4] = np.nan
    mean, low, high, n = mean_interval(x)
    assert n.tolist() == [50, 30, 1, 0, 2]
    np.testing.assert_allclose(mean, [x[:, 0].mean(), x[20:, 1].mean(), x[0, 2], np.nan, x[:2, 4].mean()])
    assert np.isnan([low[2], high[2], low[3], high[3]]).all()
    assert (low[1], high[1]) == pytest.approx(tuple(stats.ttest_1samp(x[20:, 1], 0).confidence_interval()))


@pytest.mark.parametrize("n", [4, 8, 16])
def test_intervals_of_means_of_few_samples_cover(n, rng):
    """The percentile bootstrap covered 0.89 at N = 8."""
    _, low, high, _ = mean_interval(rng.normal(size=(n, 4000)))
    assert 0.94 <= ((low <= 0) & (high >= 0)).mean() <= 0.96
