"""Verdicts re-derived sample by sample."""

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.evaluation.judge import predict, verdicts
from gradscope.intervals import transfer_ratio, wilson

CELLS, SAMPLES, CLASSES = (2, 1, 2, 2), 40, 4
LABEL = np.arange(SAMPLES) % CLASSES


class Brightest(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))


def test_the_class_is_that_of_the_largest_logit_and_there_is_none_without_finite_image_and_logits():
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 3, 4, 4))).float()
    wanted = images.numpy().mean(axis=(2, 3)).argmax(axis=1)
    np.testing.assert_array_equal(predict(Brightest(), images), wanted)
    images[1, 2, 1, 1] = torch.nan
    images[4, 0, 0, 0] = torch.inf
    images[5] = 3e38  # the sum overflows
    found = predict(Brightest(), images)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, [wanted[0], -1, wanted[2], wanted[3], -1, -1])


@pytest.fixture
def predictions():
    """The guide sees the target nearly always, in the last cell never; the judge half the time; some see nothing."""
    rng = np.random.default_rng(0)
    right = np.broadcast_to(LABEL, (*CELLS, SAMPLES))
    wrong = rng.integers(0, CLASSES, right.shape)
    own = np.where(rng.random(right.shape) < 0.95, right, wrong)
    judge = np.where(rng.random(right.shape) < 0.5, right, wrong)
    own[1, 0, 1, 1] = (LABEL + 1) % CLASSES
    for cell, sample in (((0, 0, 0, 0), 3), ((1, 0, 0, 1), 6)):
        own[cell][sample] = judge[cell][sample] = -1
    judge[0, 0, 1, 0, :7] = -1
    own[0, 0, 0, 1] = judge[0, 0, 0, 1] = -1
    return {"own": own, "judge": judge}


def test_accuracies_count_the_samples_that_have_a_class(predictions):
    ds = verdicts(predictions, LABEL, CLASSES)
    for name, prediction in predictions.items():
        np.testing.assert_array_equal(ds[f"{name}_prediction"], prediction)
        for cell in np.ndindex(CELLS):
            seen = [(p, y) for p, y in zip(prediction[cell], LABEL, strict=True) if p >= 0]
            hits = sum(p == y for p, y in seen)
            wanted = hits / len(seen) if seen else np.nan
            np.testing.assert_allclose(ds[f"{name}_accuracy"].values[cell], wanted)
            np.testing.assert_allclose(ds[f"{name}_accuracy_interval"].values[cell], wilson(hits, len(seen)))
    assert np.isnan(ds.own_accuracy.values[0, 0, 0, 1])


def test_the_judges_verdict_by_class(predictions):
    ds = verdicts(predictions, LABEL, CLASSES)
    prediction = predictions["judge"]
    for cell in np.ndindex(CELLS):
        for k in range(CLASSES):
            of_class = [p for p, y in zip(prediction[cell], LABEL, strict=True) if y == k and p >= 0]
            counts = [of_class.count(j) for j in range(CLASSES)]
            np.testing.assert_array_equal(ds.confusion.values[cell][k], counts)
            np.testing.assert_allclose(
                ds.class_accuracy.values[cell][k], counts[k] / len(of_class) if of_class else np.nan
            )
            bounds = wilson(counts[k], len(of_class))
            np.testing.assert_allclose(ds.class_accuracy_interval.values[cell][k], bounds)
    assert ds.confusion.dims[-2:] == ("class", "judge_class")


def test_the_transfer_ratio_is_of_samples_that_both_have_seen(predictions):
    ds = verdicts(predictions, LABEL, CLASSES)
    for cell in np.ndindex(CELLS):
        own, judge = (p[cell] for p in predictions.values())
        both = (own >= 0) & (judge >= 0)
        wanted = transfer_ratio((own == LABEL)[both], (judge == LABEL)[both], 1 / CLASSES)
        np.testing.assert_allclose(ds.transfer_ratio.values[cell], wanted[0])
        np.testing.assert_allclose(ds.transfer_ratio_interval.values[cell], wanted[1:])
    nothing = [(0, 0, 0, 1), (1, 0, 1, 1)]  # no sample, and a guide below chance
    assert [cell for cell in np.ndindex(CELLS) if np.isnan(ds.transfer_ratio.values[cell])] == nothing
    assert 0.3 < float(ds.transfer_ratio[1, 0, 0, 0]) < 0.9


@pytest.mark.parametrize("who", [["own"], ["judge"], []])
def test_whoever_is_not_there_gives_no_verdict(predictions, who):
    found = verdicts({name: predictions[name] for name in who}, LABEL, CLASSES)
    wanted = {f"{name}_{what}" for name in who for what in ("prediction", "accuracy", "accuracy_interval")}
    by_judge = {"class_accuracy", "class_accuracy_interval", "confusion"} if "judge" in who else set()
    assert set(found.data_vars) == wanted | by_judge
