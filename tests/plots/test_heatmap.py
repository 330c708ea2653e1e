"""The heat map of means against the analysis, and the list of figures."""

import numpy as np
import pytest
from small_store import BAD, GOOD, of_points

import gradscope.plots
from gradscope.analysis import compare_all
from gradscope.analysis.classifier_free import NEEDS as PARTS
from gradscope.errors import GradscopeError
from gradscope.plots import FIGURES, effects
from gradscope.plots.curve_grid import curve_numbers
from gradscope.plots.heatmap import heatmap, stability, stability_numbers


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
