"""Cells of two stores, computed again with scipy, statsmodels and plain loops; and the verdict in one sentence."""

import json
import re

import numpy as np
import pytest
from different_cells import ADAM, AT_ADAM, AT_GOOD, TIMESTEPS, mid_p, store, verdicts
from scipy import stats
from small_store import GOOD
from statsmodels.stats.proportion import confint_proportions_2indep

from gradscope.analysis import compare
from gradscope.analysis.configurations import configuration_differences
from gradscope.analysis.independent import independent_means, independent_shares
from gradscope.analysis.two_cells import TwoCells
from gradscope.analysis.verdict import verdict


def seeded(samples=80, seed=0, first=0, **attributes):
    """A store whose samples have the seeds `first`, `first` + 1, ..."""
    ds = store(samples, seed).assign_coords(seed=("sample", np.arange(samples) + first))
    return ds.assign_coords(sample=np.arange(samples)).assign_attrs(attributes)


def row(comparison, name):
    return comparison.scalars.set_index("diagnostic").loc[name]


def test_samples_of_the_same_seeds_and_labels_are_pairs():
    one, two = seeded(), seeded(seed=1)
    found = compare(one, GOOD, ADAM, two)
    assert (found.samples, found.unpaired, found.judged) == (80, "", (80, 80))
    a, b = (np.nanmean(ds["gradient_cosine"].values[at].astype(float), axis=1)
            for ds, at in ((one, AT_GOOD), (two, AT_ADAM)))  # fmt: skip
    wanted = stats.ttest_rel(b, a)
    got = row(found, "gradient_cosine")
    assert (got["estimate"], got["p"]) == pytest.approx(((b - a).mean(), wanted.pvalue))
    assert (got["low"], got["high"]) == pytest.approx(tuple(wanted.confidence_interval()))
    assert found.accuracy.p == pytest.approx(mid_p(verdicts(one, AT_GOOD), verdicts(two, AT_ADAM)))
    assert found.curves["gradient_cosine"]
    same = compare(one, GOOD, ADAM, one)
    assert same.scalars.equals(compare(one, GOOD, ADAM).scalars)
    assert compare(one, GOOD, GOOD, two).accuracy.estimate != 0  # the same cell of two stores is no error


def test_partners_are_found_in_any_order_and_in_larger_stores():
    one, two = seeded(), seeded(120, seed=1)
    order = np.random.default_rng(0).permutation(120)
    shuffled = two.isel(sample=order).assign_coords(sample=np.arange(120))
    pair = TwoCells(one, GOOD, ADAM, shuffled)
    assert pair.paired
    assert shuffled["seed"].values[pair.rows[1]].tolist() == one["seed"].values[pair.rows[0]].tolist()
    found, wanted = compare(one, GOOD, ADAM, shuffled), compare(one, GOOD, ADAM, two.isel(sample=slice(80)))
    np.testing.assert_allclose(found.scalars["estimate"], wanted.scalars["estimate"])
    assert found.accuracy == wanted.accuracy


@pytest.mark.parametrize(
    ("first", "labels", "reason"), [(1000, 0, "no samples"), (0, 1, "no samples"), (40, 0, "40 of 80")]
)
def test_other_seeds_or_labels_are_no_pairs(first, labels, reason):
    one, two = seeded(), seeded(seed=1, first=first)
    two = two.assign_coords(label=(two["label"] + labels) % 4)
    found = compare(one, GOOD, ADAM, two)
    assert found.unpaired.startswith(f"{reason} ")
    assert found.curves == {}
    assert "one store" in found.missing["distance"]


def test_stores_that_name_no_seed_or_one_seed_twice_are_not_paired():
    one = seeded()
    assert "does not name the seed" in compare(one, GOOD, ADAM, store(seed=1)).unpaired
    twice = seeded(seed=1).assign_coords(seed=("sample", np.arange(80) // 8))
    assert "several samples" in compare(one, GOOD, ADAM, twice).unpaired


def test_unpaired_means_are_welchs():
    one, two = seeded(70), seeded(100, seed=1, first=1000)
    one["gradient_cosine"][(*AT_GOOD, 3)] = np.nan
    found = compare(one, GOOD, ADAM, two)
    a, b = (ds["gradient_cosine"].values[at].astype(float)[:, 1:] for ds, at in ((one, AT_GOOD), (two, AT_ADAM)))
    a, b = np.delete(a, 3, axis=0).mean(axis=1), b.mean(axis=1)
    wanted = stats.ttest_ind(b, a, equal_var=False)
    got = row(found, "gradient_cosine")
    assert (got["mean_a"], got["mean_b"], got["n"]) == (pytest.approx(a.mean()), pytest.approx(b.mean()), 169)
    assert (got["estimate"], got["p"]) == pytest.approx((b.mean() - a.mean(), wanted.pvalue))
    assert (got["low"], got["high"]) == pytest.approx(tuple(wanted.confidence_interval()))
    larger = sum(float(y > x) - float(y < x) for x in a for y in b) / (len(a) * len(b))
    assert got["effect"] == pytest.approx(larger)


@pytest.mark.parametrize(
    ("hits", "sizes"), [((40, 90), (64, 100)), ((0, 9), (70, 64)), ((64, 70), (64, 70)), ((30, 30), (64, 200))]
)
def test_unpaired_shares_have_newcombes_interval_and_its_p(hits, sizes):
    a, b = (np.arange(n) < k for k, n in zip(hits, sizes, strict=True))
    test = independent_shares(a, b)

    def newcombe(alpha):
        return confint_proportions_2indep(hits[1], sizes[1], hits[0], sizes[0], method="newcomb", alpha=alpha)

    assert (test.low, test.high) == pytest.approx(newcombe(0.05), abs=1e-12)
    if test.estimate:
        assert min(np.abs(newcombe(test.p))) == pytest.approx(0, abs=1e-9)  # at its own p, the interval ends at 0
    else:
        assert test.p == 1
    back = independent_shares(b, a)
    assert (back.estimate, back.low, back.high, back.p) == pytest.approx(
        (-test.estimate, -test.high, -test.low, test.p)
    )
    assert (test.p < 0.05) == (test.low > 0 or test.high < 0)


def test_few_or_equal_samples_have_no_spurious_p():
    assert np.isnan(independent_shares([True] * 63, [False] * 100).p)
    assert independent_shares([True] * 63, [False] * 100).note == "insufficient samples: 63 and 100, each needs 64"
    assert np.isnan(independent_means([], [1.0]).estimate)
    equal = independent_means(np.ones(64), np.ones(64))
    assert (equal.estimate, equal.low, equal.high, equal.p) == (0, 0, 0, 1)
    assert independent_shares([False] * 300, [True] * 300).p < 1e-12


def test_other_timesteps_have_means_over_their_own():
    one = seeded()
    two = seeded(seed=1).isel(timestep=slice(0, TIMESTEPS, 2))
    found = compare(one, GOOD, ADAM, two)
    assert found.curves == {}
    a, b = (np.nanmean(ds["gradient_cosine"].values[at].astype(float), axis=1)
            for ds, at in ((one, AT_GOOD), (two, AT_ADAM)))  # fmt: skip
    got = row(found, "gradient_cosine")
    assert (got["estimate"], got["p"]) == pytest.approx(((b - a).mean(), stats.ttest_rel(b, a).pvalue))
    assert "each over its own timesteps" in got["note"]
    steps = TwoCells(one, GOOD, ADAM, two).steps
    assert one["timestep"].values[steps[0]].tolist() == two["timestep"].values[steps[1]].tolist()
    assert len(steps[0]) == TIMESTEPS // 2


def test_accuracies_of_other_judges_are_not_compared():
    judges = [{"evaluation": json.dumps({"judge": "j", "weights_sha256": {"judge": c * 64}})} for c in "ab"]
    found = compare(seeded(**judges[0]), GOOD, ADAM, seeded(seed=1, **judges[1]))
    assert found.accuracy is None
    assert found.missing["accuracy"] == "the stores have other judges, j aaaaaaaaaaaa and j bbbbbbbbbbbb"
    assert verdict(found) == f"No verdict: {found.missing['accuracy']}."
    assert compare(seeded(**judges[0]), GOOD, ADAM, seeded(seed=1, **judges[0])).accuracy is not None


def numbers(sentence):
    """Estimate, bounds and p of a verdict."""
    found = re.search(r"accuracy (\S+) \[(\S+), (\S+)\] \(b − a\), \w+'s p (?:below )?([\d.e-]+)", sentence)
    return [float(text.replace("−", "-")) for text in found.groups()]


@pytest.mark.parametrize("first", [0, 1000], ids=["paired", "unpaired"])
def test_the_verdict_agrees_with_its_interval_and_its_p(first):
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 0.45, 0.5, 0.6, 1.0):
        one, two = seeded(), seeded(96, seed=1, first=first)
        label = two["label"].values
        two["judge_prediction"][AT_ADAM] = np.where(rng.random(96) < share, label, (label + 1) % 4)
        found = compare(one, GOOD, ADAM, two)
        estimate, low, high, p = numbers(verdict(found))
        test = found.accuracy
        assert (estimate, low, high) == pytest.approx((test.estimate, test.low, test.high), abs=0.00501)  # rounded
        if low > 0:
            assert verdict(found).startswith("b is better: ")
        elif high < 0:
            assert verdict(found).startswith("a is better: ")
        else:
            assert verdict(found).startswith("No difference that N = ")
        assert (p < 0.05) == (low > 0 or high < 0)
        assert ("unpaired: other samples" in verdict(found)) == bool(first)
        assert ("N = 80 and 96" in verdict(found)) == bool(first)


def test_the_verdict_of_few_samples_claims_nothing():
    sentence = verdict(compare(store(40), GOOD, ADAM))
    assert sentence.startswith("Too few samples: judge's accuracy +0.")
    assert sentence.endswith("N = 40; insufficient samples: 40 of 64.")
    unfinished = store()
    unfinished["written"][AT_ADAM] = 0
    assert verdict(compare(unfinished, GOOD, ADAM)) == "No verdict: the judge has seen no sample of both cells."
    assert verdict(compare(store(), GOOD, ADAM)) in repr(compare(store(), GOOD, ADAM))


def test_differences_of_configurations_have_flat_keys():
    a = {
        "sampling": {"seed": 0, "samples": 64},
        "stabilizers": {"none": {}, "adam": {"betas": [0.9, 0.999]}},
        "judge": "j",
    }
    b = {"sampling": {"seed": 1, "samples": 64}, "stabilizers": {"none": {}}, "judge": "j", "extra": None}
    stores = [store().assign_attrs(configuration=json.dumps(c), weights_sha256=json.dumps({"denoiser": h * 64}))
              for c, h in ((a, "a"), (b, "b"))]  # fmt: skip
    found = configuration_differences(*stores).set_index("key")
    assert found.T.to_dict("list") == {
        "sampling.seed": ["0", "1"],
        "stabilizers.adam.betas": ["[0.9, 0.999]", ""],
        "extra": ["", "null"],
        "weights.denoiser": ["a" * 12, "b" * 12],
    }
    assert configuration_differences(stores[0], stores[0]).empty
    assert configuration_differences(store(), store()).empty
