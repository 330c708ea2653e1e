"""The heat map of means against the analysis, and the list of figures."""

from itertools import pairwise

import numpy as np
import pytest
from small_store import BAD, GOOD, of_points

import gradscope.plots
from gradscope.analysis import compare_all
from gradscope.analysis.cells import cell_name
from gradscope.analysis.classifier_free import NEEDS as PARTS
from gradscope.analysis.signatures import find
from gradscope.errors import GradscopeError
from gradscope.plots import FIGURES, effects
from gradscope.plots.alarm_scale import alarm_scale
from gradscope.plots.curve_grid import curve_numbers
from gradscope.plots.heatmap import flagged_spans, heatmap, stability, stability_numbers


@pytest.mark.parametrize("name", ["gradient_cosine", "gradient_norm"])
def test_means_equal_those_of_the_curves(ds, name):
    ds[name][0, 0, 0, 1, 2:5, 3] = [np.nan, np.inf, 0]
    numbers, expected = stability_numbers(ds, name), curve_numbers(ds, name)
    for column in ("classifier", "guidance_scale", "timestep", "n"):
        assert numbers[column].tolist() == expected[column].tolist()
    np.testing.assert_allclose(numbers["mean"], expected["mean"])
    figure, whole = stability(ds, name), heatmap(ds, name)
    np.testing.assert_allclose(figure.data[0].z, whole.data[0].z)
    assert list(figure.data[0].x) == ds["timestep"].values.tolist()
    assert figure.layout.meta == {"timestep": True}
    assert figure.layout.xaxis.range[0] > figure.layout.xaxis.range[1]


def test_a_tensor_has_no_heat_map(ds):
    with pytest.raises(GradscopeError, match="x_t is not a diagnostic"):
        stability(ds, "x_t")


ARGUMENTS = {
    "accuracy": {},
    "belief": {"cells": [GOOD], "sample": 0},
    "confusion": {"cell": GOOD},
    "curves": {"name": "log_prob", "cells": [GOOD, BAD]},
    "difference": {"name": "log_prob", "a": GOOD, "b": BAD},
    "effects": {},
    "finals": {"cell": GOOD},
    "forest": {"a": GOOD, "b": BAD},
    "guidance_parts": {"cells": [GOOD, BAD]},
    "magnitudes": {"cell": GOOD},
    "pairs": {"name": "log_prob", "a": GOOD, "b": BAD},
    "paths": {"cells": [GOOD, BAD], "sample": 0},
    "ridgelines": {"name": "log_prob", "cells": [GOOD]},
    "spectrum": {"cell": GOOD},
    "stability": {"name": "log_prob"},
    "what_was_seen": {"cell": GOOD},
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_its_numbers_from_the_variables_that_it_needs(ds, name):
    figure, arguments = FIGURES[name], ARGUMENTS[name]
    ds = of_points(ds) if name in ("finals", "paths") else ds
    ds = ds.assign({part: ds["gradient_norm"] for part in PARTS}) if name == "guidance_parts" else ds
    small = [str(v) for v in ds.data_vars if "timestep" not in ds[v].dims] + ["written"]
    enough = ds[list({*small, *(v for v in figure.needs(arguments) if v in ds)})]
    drawn = figure.draw(figure.numbers(enough, **arguments))
    assert drawn.data
    assert drawn == getattr(gradscope.plots, name)(ds, **arguments)
    assert drawn.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"


def test_effects_are_those_of_the_analysis(ds):
    table = compare_all(ds)
    assert sum(len(trace.x) for trace in effects(ds).data) == len(table)


def colour_at(scale, share):
    """The colour of a share of the range, as plotly interpolates it; at a jump, that of its upper side."""
    stops = [(at, np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)) for at, colour in scale]
    for (a, low), (b, high) in pairwise(stops):
        if a <= share < b or share == b == 1:
            return low + (share - a) / (b - a) * (high - low)
    raise AssertionError(f"nothing at {share}")


def is_alarming(colour):
    """Red: alarm. Blue-grey is not."""
    return colour[0] > colour[2] + 30


@pytest.mark.parametrize(
    ("name", "low", "high", "fails"),
    [
        ("gradient_lag_cosine", -0.2, 0.9, lambda x: x < 0.4),
        ("gradient_lag_cosine", 0.5, 0.9, lambda x: False),
        ("gradient_lag_cosine", -0.5, 0.3, lambda x: True),
        ("gradient_lag_cosine", 0.2, 1.0, lambda x: x < 0.4 or x > 0.9999),
        ("clipped_fraction", 0.2, 1.0, lambda x: x > 0.9),
        ("zero_fraction", 0.0, 0.5, lambda x: False),
        ("effective_strength", -4.0, 1.0, lambda x: x < -3 or x > 0),
        ("effective_strength", -2.0, -1.0, lambda x: False),
        ("effective_strength", 0.5, 1.0, lambda x: True),
    ],
)
def test_the_failing_side_of_a_threshold_is_red_and_the_other_is_not(name, low, high, fails):
    logarithmic = name == "effective_strength"
    scale = alarm_scale(name, np.array([[low, np.nan], [high, np.inf]]), logarithmic)
    assert (scale["zmin"], scale["zmax"]) == (low, high)
    stops = scale["colorscale"]
    assert (stops[0][0], stops[-1][0]) == (0, 1)
    for share in np.linspace(0, 1, 101):
        value = low + share * (high - low)
        if min(abs(value - t) for t in (0.4, 0.9999, 0.9, -3, 0)) < 1e-6:
            continue
        assert is_alarming(colour_at(stops, share)) == fails(value), (share, value)


def test_the_colour_bar_names_the_thresholds():
    bar = alarm_scale("gradient_lag_cosine", np.array([0.0, 0.8]), False)["colorbar"]
    assert dict(zip(bar["tickvals"], bar["ticktext"], strict=True)) == {
        0.4: "unstable below 0.4",
        0.8: "0.8 (▴ frozen above 0.9999)",
        0.0: "0",
    }
    bar = alarm_scale("effective_strength", np.array([-2.0, 0.5]), True)["colorbar"]
    assert dict(zip(bar["tickvals"], bar["ticktext"], strict=True)) == {
        -2.0: "0.01 (▾ inert below 0.001)",
        0.0: "off_manifold above 1",
        0.5: "3.16",
    }
    plain = alarm_scale("gradient_cosine", np.full(3, 0.5), False)
    assert plain["colorscale"] == "Cividis"
    assert plain["zmin"] < 0.5 < plain["zmax"]
    nothing = alarm_scale("gradient_cosine", np.full(3, np.nan), False)
    assert (nothing["zmin"], nothing["zmax"]) == (0, 1)


def test_spans_of_findings_are_outlined_in_their_rows(ds):
    t = ds["timestep"].values.tolist()
    ds["gradient_lag_cosine"] = ds["gradient_cosine"]
    found = find(ds)
    spans = flagged_spans(found, "gradient_lag_cosine")
    expected = [f for f in found if f.signature in ("unstable", "frozen")]
    assert [(s["cell"], s["first"], s["last"], s["name"]) for s in spans] == [
        (f.cell, f.first_timestep, f.last_timestep, f.signature) for f in expected
    ]
    assert len(spans) == 4  # each guided cell of the guide that follows noise
    figure = stability(ds, "gradient_lag_cosine", spans)
    rows = list(figure.data[0].y)
    shapes = list(figure.layout.shapes)
    assert len(shapes) == 2 * len(spans)  # white around black
    ends = [t[0] + (t[0] - t[1]) / 2, *((a + b) / 2 for a, b in pairwise(t)), t[-1] - (t[-2] - t[-1]) / 2]
    for span, (outer, inner) in zip(spans, zip(shapes[::2], shapes[1::2], strict=True), strict=True):
        row = rows.index(cell_name(span["cell"]))
        for shape in (outer, inner):
            assert (shape.y0, shape.y1) == (row - 0.5, row + 0.5)
            assert (shape.x0, shape.x1) == (ends[t.index(span["first"])], ends[t.index(span["last"]) + 1])
    whole = heatmap(ds, "gradient_lag_cosine", spans)
    shown = [int(x) for x in whole.data[0].x]
    shape = whole.layout.shapes[0]
    assert (shape.x0, shape.x1) == (shown.index(spans[0]["first"]) - 0.5, shown.index(spans[0]["last"]) + 0.5)
    assert stability(ds, "gradient_lag_cosine").layout.shapes == ()
    elsewhere = [spans[0] | {"cell": GOOD | {"classifier": "other"}}, spans[0] | {"first": 123456}]
    assert stability(ds, "gradient_lag_cosine", elsewhere).layout.shapes == ()


def test_rows_of_unguided_cells_with_the_same_means_are_one(ds):
    ds["log_prob"] = ds["log_prob"] + np.random.default_rng(0).normal(0, 0.1, ds["log_prob"].shape)
    ds["log_prob"][:, :, 1, 0] = ds["log_prob"].values[:, :, 0, 0]
    figure = stability(ds, "log_prob")
    rows = list(figure.data[0].y)
    assert len(rows) == len(set(rows)) == 4 + 8
    assert rows[0] == "robust, x_t, unguided"
    assert figure.data[0].meta["cells"][:3] == [0, 1, 3]
    ds["log_prob"][..., 0, :, :] = ds["log_prob"].values[0, 0, 0, 0]
    assert list(stability(ds, "log_prob").data[0].y)[0] == "unguided"
    assert len(stability(ds, "log_prob").data[0].y) == 1 + 8


def test_timesteps_off_a_diagnostics_grid_are_left_out(ds):
    t = ds["timestep"].values
    ds["gradient_lag_cosine"] = ds["gradient_cosine"].where(ds["timestep"].isin(t[1::3]))
    figure = stability(ds, "gradient_lag_cosine")
    assert list(figure.data[0].x) == t[1::3].tolist()
    assert figure.layout.xaxis.range == stability(ds, "gradient_cosine").layout.xaxis.range
