"""The features of unguided trajectories, the rule, and what is said of it."""

import math

import numpy as np
import pytest
import xarray as xr
from small_store import recorded

from gradscope.auditing import prediction
from gradscope.auditing.prediction import FEATURES, VARIABLES, Prediction, Rule, features, gap_closed, predict, sentence
from gradscope.errors import GradscopeError

RULE = Rule(
    features={"gradient_cosine": -10.0, "diversity": -2.0},
    intercept=6.0,
    guides=14,
    tested=12,
    auc=0.97,
    auc_interval=[0.91, 1.0],
    about="made up",
)


def control(n=6, times=5, classes=4, seed=0, **fixed) -> xr.Dataset:
    """Unguided trajectories of two guides at two inputs, with random diagnostics."""
    rng = np.random.default_rng(seed)
    dims = ("classifier", "classifier_input", "sample", "timestep")
    arrays = {name: rng.normal(size=(2, 2, n, times)) for name in VARIABLES}
    arrays["predicted_class"] = rng.integers(0, classes, (2, 2, n, times))
    arrays["gradient_cosine"][..., 0] = np.nan  # of the first step
    arrays |= fixed
    coords = {"classifier": ["a", "b"], "classifier_input": ["x_t", "x0"]}
    named = [f"class {k}" for k in range(classes)]
    return xr.Dataset({name: (dims, values) for name, values in arrays.items()}, coords, {"classes": named})


def cell(ds, name="a", kind="x_t"):
    return ds.sel(classifier=name, classifier_input=kind)


def test_every_feature_is_that_of_plain_loops():
    ds = cell(control())
    found = features(ds)
    assert set(found) == set(FEATURES)
    for name in ("gradient_cosine", "gradient_first_cosine", "score_cosine", "high_frequency_share"):
        assert found[name] == pytest.approx(np.nanmean(ds[name].values))
    assert found["entropy"] == pytest.approx(ds["entropy"].values.mean() / math.log(4))
    classes = ds["predicted_class"].values.tolist()
    kept = [row[k] == row[k + 1] for row in classes for k in range(4)]
    foreseen = [row[k] == row[4] for row in classes for k in range(4)]
    assert found["persistence"] == pytest.approx(sum(kept) / 24)
    assert found["foresight"] == pytest.approx(sum(foreseen) / 24)
    total = 0.0
    for k in range(5):
        column = [row[k] for row in classes]
        for c in set(column):
            share = column.count(c) / 6
            total -= share * math.log(share, 4) / 5
    assert found["diversity"] == pytest.approx(total)


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_a_guide_that_always_says_one_class_has_no_diversity_and_one_of_all_classes_has_all(classes):
    shape = (2, 2, 2 * classes, 5)
    same = control(n=2 * classes, classes=classes, predicted_class=np.ones(shape, dtype=int))
    assert features(cell(same))["diversity"] == 0
    assert features(cell(same))["persistence"] == features(cell(same))["foresight"] == 1
    each = np.broadcast_to((np.arange(2 * classes) % classes)[:, None], shape)
    assert features(cell(control(n=2 * classes, classes=classes, predicted_class=each)))["diversity"] == pytest.approx(
        1
    )


def test_the_order_of_dimensions_changes_nothing():
    ds = control()
    turned = ds.transpose("timestep", "sample", ...)
    assert features(cell(turned)) == pytest.approx(features(cell(ds)))


def test_the_probability_is_the_logistic_of_the_features():
    ds = control(seed=3)
    found = predict(ds, RULE)
    assert [(p.classifier, p.classifier_input) for p in found] == [("a", "x_t"), ("a", "x0"), ("b", "x_t"), ("b", "x0")]
    for p in found:
        every = features(cell(ds, p.classifier, p.classifier_input))
        assert p.features == {name: every[name] for name in RULE.features}
        z = 6 - 10 * every["gradient_cosine"] - 2 * every["diversity"]
        assert p.probability == pytest.approx(1 / (1 + math.exp(-z)))
        assert p.fails == (z > 0)


def test_the_control_of_a_store_is_taken_as_it_is():
    ds = recorded().sel(guidance_scale=0.0, stabilizer="none")
    found = {(p.classifier, p.classifier_input): p for p in predict(ds, RULE)}
    healthy, noise = found["robust", "x_t"], found["non_robust", "x_t"]
    assert healthy.features["gradient_cosine"] > 0.5 > noise.features["gradient_cosine"]
    assert noise.probability > healthy.probability


def test_a_store_is_asked_for_its_control(monkeypatch):
    monkeypatch.setattr(prediction, "read_rule", lambda: RULE)
    ds = recorded()
    found = prediction.predict_failures(ds)
    wanted = predict(ds.sel(guidance_scale=0.0, stabilizer="none"), RULE)
    assert found["probability"].tolist() == [p.probability for p in wanted]
    assert found["classifier"].tolist() == ["robust", "robust", "non_robust", "non_robust"]
    assert found.attrs["rule"] == RULE.model_dump()
    with pytest.raises(GradscopeError, match=r"^guidance_scale: .* needs unguided .*; this store has 0\.5$"):
        prediction.predict_failures(ds.isel(guidance_scale=[1]))
    with pytest.raises(GradscopeError, match="the probe `belief` records it"):
        prediction.predict_failures(ds.drop_vars("predicted_class"))


def test_a_feature_that_is_not_known_gives_no_prediction():
    ds = control(gradient_cosine=np.full((2, 2, 6, 5), np.nan))
    p = predict(ds, RULE)[0]
    assert math.isnan(p.probability)
    assert not p.fails
    assert sentence(p, RULE).startswith("a at x_t: no prediction: cosine of successive gradients nan, ")


def test_the_sentence_says_what_and_why():
    values = {"gradient_cosine": 0.29, "diversity": 0.11}
    assert sentence(Prediction("mine", "x_t", 0.9, values), RULE) == (
        "mine will probably not guide at x_t: cosine of successive gradients 0.29, entropy of the classes predicted "
        "over samples, divided by log(classes) 0.11 along unguided trajectories (probability of failure 0.90; rule "
        "fitted on 14 guides, AUC 0.97 [0.91, 1.00] on 12 others)"
    )
    assert sentence(Prediction("mine", "x0", 0.2, values), RULE).startswith("mine will probably guide at x0: ")


@pytest.mark.parametrize(
    ("accuracy", "unguided", "share"), [(0.25, 0.25, 0), (1, 0.25, 1), (0.6, 0.2, 0.5), (0, 0.5, -1)]
)
def test_the_gap_that_guidance_closes(accuracy, unguided, share):
    assert gap_closed(accuracy, unguided) == pytest.approx(share)


def test_the_committed_rule_is_one():
    rule = prediction.read_rule()
    assert set(rule.features) <= set(FEATURES)
    assert 1 <= len(rule.features) <= 3
    assert rule.auc_interval[0] <= rule.auc <= rule.auc_interval[1]
