"""The strips of classes, the words in them, and the curves below."""

import numpy as np
import pytest
from small_store import BAD, CLASSES, GOOD, TIMESTEPS

from gradscope.errors import GradscopeError
from gradscope.plots.belief import belief, belief_numbers, draw_belief
from gradscope.plots.style import PALETTE, pastel


def test_numbers_are_those_of_the_sample(ds):
    numbers = belief_numbers(ds, [GOOD, BAD], sample=6)
    assert len(numbers) == 2 * TIMESTEPS
    assert numbers.attrs["target"] == ds["label"].values[6] == 2
    assert numbers.attrs["classes"] == CLASSES
    for name in ("predicted_class", "log_prob", "entropy"):
        np.testing.assert_array_equal(numbers[name][:TIMESTEPS], ds[name].values[0, 0, 0, 1, 6])
        np.testing.assert_array_equal(numbers[name][TIMESTEPS:], ds[name].values[1, 0, 0, 1, 6])


def test_only_the_target_has_full_colour(ds):
    ds["predicted_class"][0, 0, 0, 1, 6] = [2, 2, 2, 2, 2, 2, 0, 0, 3, -1]
    figure = belief(ds, [GOOD], sample=6)
    strip = figure.data[0]
    ends, colours = zip(*strip.colorscale, strict=True)
    shown = []
    for z in np.asarray(strip.z, dtype=float)[0]:
        at = (z - strip.zmin) / (strip.zmax - strip.zmin)
        inside = [k for k in range(0, len(ends), 2) if ends[k] - 1e-9 <= at <= ends[k + 1] + 1e-9]
        shown.append(colours[inside[0]] if np.isfinite(z) else None)
    assert shown[:6] == [PALETTE[2]] * 6
    assert shown[6:] == [pastel(PALETTE[0], 0.35)] * 2 + [pastel(PALETTE[3], 0.35), None]
    assert list(strip.text[0]) == ["soccer ball"] * 6 + ["baseball"] * 2 + ["volleyball", ""]


def test_stretches_have_a_name_or_a_number_if_there_is_room(ds):
    ds["predicted_class"][0, 0, 0, 1, 6] = [2, 2, 2, 2, 2, 0, 0, 1, 3, -1]
    words = belief(ds, [GOOD], sample=6).data[1]
    t = ds["timestep"].values
    assert list(words.text) == ["✓ soccer ball", "baseball", "1", "3"]
    np.testing.assert_allclose(words.x, [t[2], (t[5] + t[6]) / 2, t[7], t[8]])
    assert set(words.y) == {0}


def test_the_classes_that_appear_are_in_the_legend_with_the_target(ds):
    ds["predicted_class"][...] = 1
    key = [trace.name for trace in belief(ds, [GOOD, BAD], sample=6).data if trace.legend == "legend2"]
    assert key == ["1 basketball", "2 soccer ball, the target"]


def test_the_legend_has_the_most_frequent_of_many_classes(ds):
    ds = ds.drop_dims(["class", "judge_class"]).assign_attrs(classes=[f"class {k}" for k in range(1000)])
    ds["predicted_class"][0, 0, 0, 1, 6] = np.arange(990, 1000)
    ds["predicted_class"][1, 0, 0, 1, 6] = [500, 500, 501, 502, 503, 504, 505, 506, 507, 508]
    key = [trace.name for trace in belief(ds, [GOOD, BAD], sample=6).data if trace.legend == "legend2"]
    assert "500 class 500" in key
    assert "2 class 2, the target" in key
    assert len(key) <= 13


def test_curves_have_the_style_of_their_cells(ds):
    numbers = belief_numbers(ds, [GOOD, BAD], sample=0)
    figure = draw_belief(numbers)
    lines = list(figure.select_traces({"mode": "lines+markers"}))
    assert [line.line.color for line in lines] == [PALETTE[0], PALETTE[1]] * 2
    np.testing.assert_array_equal(lines[3].y, numbers["entropy"][TIMESTEPS:].astype(np.float32))
    assert [figure.layout[axis].title.text for axis in ("yaxis2", "yaxis3")] == ["log_prob [nat]", "entropy [nat]"]
    assert list(figure.layout.yaxis.ticktext) == [
        "robust, x_t, no stabiliser, s = 0.5",
        "non_robust, x_t, no stabiliser, s = 0.5",
    ]
    assert figure.layout.meta == {"timestep": True}


def test_missing_diagnostics_and_samples_are_refused(ds):
    with pytest.raises(GradscopeError, match="entropy is not in this store; the probe `belief` records it"):
        belief(ds.drop_vars("entropy"), [GOOD], sample=0)
    with pytest.raises(GradscopeError, match="sample: there is no 16"):
        belief(ds, [GOOD], sample=16)


def test_a_sample_without_values_is_empty(ds):
    ds["predicted_class"][...] = -1
    figure = belief(ds, [GOOD], sample=0)
    assert np.isnan(np.asarray(figure.data[0].z, dtype=float)).all()
    assert [trace.name for trace in figure.data if trace.legend == "legend2"] == ["0 baseball, the target"]
