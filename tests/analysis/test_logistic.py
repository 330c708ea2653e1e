"""Logistic rules and the AUC: against plain counting and another optimiser."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from gradscope.analysis.logistic import auc, chosen, fit_logistic, grouped_interval, leave_one_out


def drawn(n=60, features=3, seed=0):
    """Features in different units, the first of which decides."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features)) * [1, 100, 0.01][:features] + [5, -300, 0][:features]
    return x, x[:, 0] + 0.5 * rng.normal(size=n) > 5


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("features", [1, 3])
def test_the_fit_is_the_minimum_of_the_penalised_likelihood(penalty, features):
    x, events = drawn(features=features)
    z = torch.from_numpy((x - x.mean(axis=0)) / x.std(axis=0))
    w, b = torch.zeros(features, dtype=torch.float64, requires_grad=True), torch.zeros(1, dtype=torch.float64)
    b.requires_grad_()
    optimizer = torch.optim.LBFGS([w, b], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = (
            torch.nn.functional.binary_cross_entropy_with_logits(
                z @ w + b, torch.from_numpy(events).double(), reduction="sum"
            )
            + 0.5 * penalty * (w**2).sum()
        )
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        wanted = torch.sigmoid(z @ w + b).numpy()
    rule = fit_logistic(x, events, penalty)
    np.testing.assert_allclose(rule(x), wanted, atol=1e-5)


def test_features_that_separate_and_constant_ones_have_finite_weights():
    x = np.column_stack([np.arange(10.0), np.ones(10)])
    rule = fit_logistic(x, np.arange(10) >= 5)
    assert np.isfinite([rule.intercept, *rule.weights]).all()
    assert ((rule(x) > 0.5) == (np.arange(10) >= 5)).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_auc_counts_pairs(seed):
    rng = np.random.default_rng(seed)
    scores, events = rng.integers(0, 6, 30).astype(float), rng.random(30) > 0.6
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[events] for b in scores[~events]]
    assert auc(scores, events) == pytest.approx(np.mean(pairs))
    u = mannwhitneyu(scores[events], scores[~events]).statistic
    assert auc(scores, events) == pytest.approx(u / (events.sum() * (~events).sum()))


def test_the_auc_of_one_group_is_unknown():
    assert np.isnan(auc([1.0, 2.0], [True, True]))
    assert np.isnan(auc([1.0, 2.0], [False, False]))


def test_a_group_is_predicted_by_the_others_alone():
    x, events = drawn()
    groups = [f"kind {i % 4}" for i in range(60)]
    out = leave_one_out(x, events, groups)
    for kind in range(4):
        inside = np.arange(60) % 4 == kind
        np.testing.assert_allclose(out[inside], fit_logistic(x[~inside], events[~inside])(x[inside]), rtol=1e-9)


def test_a_group_without_which_all_are_equal_gets_their_share():
    x = np.arange(6.0)[:, None]
    out = leave_one_out(x, np.array([True, False, True, True, True, True]), ["a", "a", "b", "b", "c", "c"])
    assert out[:2].tolist() == [1.0, 1.0]


def test_selection_takes_the_feature_that_decides_and_no_noise():
    x, events = drawn(n=200)
    assert chosen(x[:, ::-1], events, [str(i % 10) for i in range(200)])[0] == 2
    assert len(chosen(x, events, [str(i % 10) for i in range(200)], most=1)) == 1
    rng = np.random.default_rng(3)
    pure = chosen(rng.normal(size=(300, 2)), rng.random(300) > 0.5, [str(i % 10) for i in range(300)])
    assert len(pure) < 2


def test_selection_ends_where_the_scores_separate():
    """Both columns separate, and both together would have a lower loss: the penalty shrinks each alone."""
    events = np.arange(40) % 2 == 0
    x = np.where(events, 1.0, -1.0)[:, None] + 0.1 * np.random.default_rng(0).normal(size=(40, 2))
    groups = [str(i // 10) for i in range(40)]
    assert len(chosen(x, events, groups)) == 1
    assert auc(leave_one_out(x[:, :1], events, groups), events) == 1


@pytest.mark.slow
def test_the_interval_draws_kinds_then_guides():
    """With one kind it is that over guides; cases of a guide stay together, so doubling them changes nothing."""
    rng = np.random.default_rng(1)
    events = rng.random(40) > 0.5
    scores = events + rng.normal(size=40)
    guides = [f"g{i}" for i in range(40)]
    one = grouped_interval(scores, events, [["same"] * 40, guides])
    twice = grouped_interval(np.tile(scores, 2), np.tile(events, 2), [["same"] * 80, guides * 2])
    assert one == pytest.approx(twice)
    assert one[0] < auc(scores, events) < one[1]
    values = []
    for _ in range(2000):
        rows = rng.integers(0, 40, 40)
        if 0 < events[rows].sum() < 40:
            values.append(auc(scores[rows], events[rows]))
    assert one == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.02)
    kinds = [f"k{i // 20}" for i in range(40)]
    apart = grouped_interval(np.where(np.arange(40) < 20, scores, -scores), events, [kinds, guides])
    assert apart[1] - apart[0] > one[1] - one[0]
