"""Accuracies, confusion and effects: their numbers by plain NumPy, and that the figures draw these."""

import json

import numpy as np
import pandas as pd
import pytest
from small_store import CLASSES, GOOD, SAMPLES, SHAPE, accuracy, recorded
from statsmodels.stats.proportion import proportion_confint

from gradscope import plots
from gradscope.analysis import compare_all
from gradscope.errors import GradscopeError

AT_GOOD = (0, 0, 0, 1)


def test_accuracies_count_finished_samples_with_wilsons_bounds(ds):
    ds["written"][(*AT_GOOD, 1, -1)] = 0
    numbers = plots.accuracy_numbers(ds)
    assert numbers.attrs["chance"] == 0.25
    for row, at in zip(numbers.to_dict("records"), np.ndindex(SHAPE), strict=True):
        assert row["n"] == SAMPLES - (at == AT_GOOD)
        for who in ("own", "judge"):
            share, low, high = accuracy(ds, who, at)
            assert (row[who], row[f"{who}_low"], row[f"{who}_high"]) == pytest.approx((share, low, high))
            n = SAMPLES - (at == AT_GOOD) - (who == "judge" and at == (0, 0, 0, 0))
            assert (low, high) == pytest.approx(proportion_confint(round(share * n), n, method="wilson"))


def test_accuracies_are_drawn_with_chance_and_control(ds):
    numbers = plots.accuracy_numbers(ds)
    figure = plots.accuracy(ds)
    judge, own, chance, control = figure.data
    guided = numbers[numbers["guidance_scale"] > 0]
    np.testing.assert_array_equal(judge.x, guided["judge"])
    np.testing.assert_allclose(judge.x + judge.error_x.array, guided["judge_high"])
    np.testing.assert_allclose(own.x - own.error_x.arrayminus, guided["own_low"])
    assert judge.marker.pattern.shape != own.marker.pattern.shape
    assert set(chance.x) == {0.25}
    assert set(control.x) == {numbers["judge"][0]}
    assert control.name.startswith("unguided control")
    without = plots.accuracy(ds.drop_vars("judge_prediction"))
    assert [trace.name for trace in without.data] == ["own", "chance 0.25"]
    with pytest.raises(GradscopeError, match="own_prediction is not in this store; `gradscope evaluate STORE` adds it"):
        plots.accuracy(recorded())


def test_a_judge_that_is_also_a_guide_is_marked(ds):
    assert [trace.name for trace in plots.accuracy(ds).data][0] == "judge"
    ds.attrs["evaluation"] = json.dumps({"also_guides": {"judge": ["robust"]}})
    assert [trace.name for trace in plots.accuracy(ds).data][0] == "judge (also a guide)"


def test_confusion_counts_the_classes_that_the_judge_sees(ds):
    counts = plots.confusion_numbers(ds, GOOD)
    assert counts.index.tolist() == counts.columns.tolist() == CLASSES
    for i, target in enumerate(CLASSES):
        for j, seen in enumerate(CLASSES):
            here = (ds["label"].values == i) & (ds["judge_prediction"].values[AT_GOOD] == j)
            assert counts.loc[target, seen] == here.sum()
    (trace,) = plots.confusion(ds, GOOD).data
    np.testing.assert_allclose(trace.z, counts.to_numpy() / counts.to_numpy().sum(axis=1, keepdims=True))
    with pytest.raises(GradscopeError, match="confusion is not in this store; `gradscope evaluate STORE` adds it"):
        plots.confusion(recorded(), GOOD)


def test_effects_are_the_rows_of_the_comparison(ds):
    table = compare_all(ds)
    figure = plots.draw_effects(table)
    assert [trace.name for trace in figure.data] == ["against none", "against x_t", "against x_t, none"]
    assert len({trace.marker.symbol for trace in figure.data}) == 3
    drawn = pd.concat(
        pd.DataFrame({"name": t.y, "x": t.x, "high": t.x + t.error_x.array, "low": t.x - t.error_x.arrayminus})
        for t in figure.data
    )
    expected = table.sort_values("against", key=lambda names: names.str.len(), kind="stable")
    for column, name in {"x": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}.items():
        assert sorted(drawn[column]) == pytest.approx(sorted(expected[name]))
    assert drawn["name"].tolist()[-2:] == ["robust: x0 + adam", "non_robust: x0 + adam"]
    assert {"robust: adam (x_t)", "robust: x0 (none)"} < set(drawn["name"])


def test_names_are_not_read_as_markup(ds):
    ds = ds.assign_coords(classifier=["<b>a</b>", "<script>"])
    assert plots.accuracy(ds).data[0].y[-1].startswith("&lt;script&gt;")
    classes = ds.assign_coords({"class": ["<i>", "b", "c", "d"]})
    assert plots.confusion(classes, GOOD | {"classifier": "<script>"}).data[0].y[0] == "&lt;i&gt;"
