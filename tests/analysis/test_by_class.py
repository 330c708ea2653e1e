"""Selections of one target class."""

import numpy as np
import pytest
import small_store

from gradscope.analysis import compare, summary
from gradscope.analysis.by_class import class_sizes, of_class
from gradscope.analysis.signatures import find
from gradscope.analysis.synthetic import trajectories
from gradscope.errors import GradscopeError


def test_samples_of_a_class_keep_their_diagnostics_and_verdicts():
    ds = small_store.evaluated()
    one = of_class(ds, 2)
    rows = [i for i, label in enumerate(ds["label"].values) if label == 2]
    assert one["sample"].values.tolist() == rows
    np.testing.assert_array_equal(one["log_prob"], ds["log_prob"].values[..., rows, :])
    right = ds["judge_prediction"].values[1, 0, 1, 1][rows] == 2
    assert float(summary(one).judge_accuracy[1, 0, 1, 1]) == right.mean()
    assert one.attrs["target_class"] == "soccer ball"
    assert {"fd_extractor", "fd_extractor_replicates", "coverage", "confusion"} & set(one.data_vars) == set()
    found = compare(one, small_store.GOOD, small_store.BAD)
    assert found.missing["distance"] == "distances are those of all classes together"


def test_a_class_without_samples_is_refused():
    with pytest.raises(GradscopeError, match="no sample has the class 9; one of: 0, 1, 2, 3"):
        of_class(small_store.evaluated(), 9)
    few = small_store.evaluated().isel(sample=slice(3))
    assert class_sizes(few) == {0: ("baseball", 1), 1: ("basketball", 1), 2: ("soccer ball", 1)}


@pytest.mark.parametrize("label", [0, 3])
def test_a_finding_that_concerns_one_class_names_it(label):
    ds = trajectories(samples=64, timesteps=40).assign_attrs(classes=["ant", "bee", "cat", "dog"])
    noisy = trajectories("white_noise", samples=64, timesteps=40, seed=1)
    mine = ds["label"] == label
    ds["gradient_lag_cosine"] = noisy["gradient_lag_cosine"].where(mine, ds["gradient_lag_cosine"])
    ds["judge_prediction"] = ds["judge_prediction"].where(~mine, (ds["label"] + 1) % 4)
    name = ds.attrs["classes"][label]
    of_one = {found.signature: found for found in find(ds) if found.target_class}
    assert set(of_one) >= {"unstable", "class_failure"}
    for found in of_one.values():
        assert found.target_class == name
        assert f"class {name}" in found.evidence
