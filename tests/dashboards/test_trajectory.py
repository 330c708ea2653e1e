"""The trajectory page without a browser: what it hands to it, and what it draws."""

import json
import math
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import small_store
from dash.development.base_component import Component

from dashboards import create_app
from dashboards.data.library import Library
from dashboards.pages.trajectory import page
from dashboards.pages.trajectory.browser_data import description, readout_names, sample_numbers, with_focus
from dashboards.pages.trajectory.figures import figures
from dashboards.state import default
from dashboards.widgets.swatches import swatch
from gradscope.plots import cells as style
from gradscope.plots.style import DASHES
from gradscope.store import CELL_DIMS

GAP = (0, 1, 0, 1)
"""A cell of which sample 2 is written up to step 6,"""
ODD = {("gradient_norm", 1): np.nan, ("gradient_norm", 2): np.inf, ("entropy", 3): -np.inf}
"""with values that are no numbers."""


@pytest.fixture(scope="module")
def run(stored):
    return Library([stored]).run(None)


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    """A store with a gap, and with all that the figure of the belief needs."""
    ds = small_store.evaluated()
    ds["entropy"] = -ds["log_prob"]
    ds["written"][(*GAP, 2, slice(6, None))] = 0
    for (name, step), value in ODD.items():
        ds[name][(*GAP, 2, step)] = value
    path = small_store.save(ds, tmp_path_factory.mktemp("holed") / "holed.zarr")
    return Library([path]).run(None), ds


VIEW = {"store": "5f0c", "page": "trajectory", "url": "trajectory?store=5f0c"}


def number(at):
    return int(np.ravel_multi_index(at, small_store.SHAPE))


def parts(component):
    """A component and all below it."""
    yield component
    for child in getattr(component, "_traverse", list)():
        if isinstance(child, Component):
            yield child


def ids(component):
    found = [getattr(part, "id", None) for part in parts(component)]
    return {json.dumps(each, sort_keys=True) if isinstance(each, dict) else each for each in found if each is not None}


def test_what_the_browser_is_told_of_a_run(run):
    view = default(run, "trajectory")
    about = json.loads(json.dumps(description(run, view), allow_nan=False))
    ds = run.ds
    assert about["timesteps"] == ds["timestep"].values.tolist()
    assert about["timesteps"][about["at"]["step"]] == view.timestep
    assert about["tensor_samples"] == small_store.TENSORS
    assert about["kept"] == "tensors are kept for samples 0 to 3 of 0 to 15"
    assert [tensor["name"] for tensor in about["tensors"]] == ["gradient", "update", "x_t", "pred_original_sample"]
    assert [tensor["diverging"] for tensor in about["tensors"]] == [True, True, False, False]
    assert about["targets"] == [small_store.CLASSES[label] for label in ds["label"].values]
    named = [f"{c['row']}, {c['column']}" for c in about["cells"]]
    assert named == [c["name"] for c in about["cells"]]
    assert named[number((1, 0, 1, 1))] == "non_robust, x_t, adam, 0.5"
    assert len(named) == 16


@pytest.mark.parametrize(
    ("cells", "cell", "shown"),
    [((1, 3, 5), 3, (1, 3, 5)), ((1, 3, 5), 2, (1, 2, 3, 5)), (tuple(range(16)), 40, (*range(15), 40))],
)
def test_the_focused_cell_is_always_shown(cells, cell, shown):
    assert with_focus(cells, cell) == shown


def test_numbers_of_one_sample_are_those_of_the_store(holed):
    run, ds = holed
    told = json.loads(json.dumps(sample_numbers(run, number(GAP), 2), allow_nan=False))
    assert (told["cell"], told["sample"], told["written"]) == (number(GAP), 2, 6)
    assert set(told["values"]) == set(readout_names(run)) >= {"gradient_norm", "gradient_cosine", "log_prob"}
    for name, values in told["values"].items():
        stored = ds[name].values[(*GAP, 2)]
        assert values[6:] == [None] * (small_store.TIMESTEPS - 6)
        for step, value in enumerate(values[:6]):
            if name == "predicted_class":
                assert value == small_store.CLASSES[int(stored[step])]
            elif math.isfinite(stored[step]):
                assert value == pytest.approx(float(stored[step]), rel=5.1e-4, abs=0)
            else:
                assert value == {"nan": "NaN"}.get(str(stored[step]), str(stored[step]))
    assert told["values"]["gradient_norm"][1:3] == ["NaN", "inf"]
    assert told["values"]["entropy"][3] == "-inf"


def test_each_figure_is_of_the_cells_shown_and_of_the_sample(holed):
    run, _ = holed
    cell = number((1, 0, 0, 1))
    found = figures(run, cell=cell, sample=2, cells=[1, cell], variables=["log_prob", "gradient_norm"])
    assert list(found) == ["curve-0", "curve-1", "belief"]
    assert [figure.title for figure in found.values()] == ["log_prob", "gradient_norm", "belief of sample 2"]
    numbers = found["curve-0"].call.numbers(run)
    own = numbers[numbers["value"].notna()]
    assert set(map(tuple, own[list(CELL_DIMS)].values)) == {tuple(small_store.BAD.values())}
    np.testing.assert_allclose(own["value"], run.ds["log_prob"].sel(small_store.BAD).isel(sample=2), rtol=1e-6)
    assert len(set(map(tuple, numbers[list(CELL_DIMS)].values))) == 2


def test_the_page_has_a_place_for_everything(run):
    made = page.layout(run, default(run, "trajectory"))
    there = ids(made)
    assert there >= {"play", "scrubber", "where", "cells", "focus", "readout", "keys", "maps-note", "nonfinite"}
    assert there >= {"curve-0", "curve-1", "curve-2", "belief", "frame-belief", "menu-curve-0", "title-curve-0"}
    for key in ("cell", "sample", "cells", "variables", "limits"):
        assert json.dumps({"key": key, "type": "control"}, sort_keys=True) in there
    tensors = [part for part in parts(made) if getattr(part, "className", "") == "map"]
    assert [getattr(part, "data-tensor") for part in tensors] == list(run.tensors)
    assert all(part.role == "img" and getattr(part, "aria-label") for part in tensors)
    variables = {name for part in parts(made) if (name := getattr(part, "data-variable", None))}
    assert variables == set(readout_names(run))


def test_a_store_without_tensors_or_belief_says_what_records_them(tmp_path):
    ds = small_store.recorded().drop_vars(["gradient", "update", "x_t", "pred_original_sample", "predicted_class"])
    run = Library([small_store.save(ds, tmp_path / "scalars.zarr")]).run(None)
    view = default(run, "trajectory")
    about = description(run, view)
    assert (about["tensors"], about["tensor_samples"]) == ([], 0)
    assert "the probe `gradient` records it" in about["kept"]
    made = page.layout(run, view)
    assert [part for part in parts(made) if getattr(part, "className", "") == "map"] == []
    assert any("the probe `belief` records it" in str(getattr(part, "children", "")) for part in parts(made))
    assert "belief" not in figures(run, cell=0, sample=0, cells=[0], variables=["log_prob"])


def asked(client, outputs, **inputs):
    """The answer to a callback of the page."""
    body = {
        "output": "..{}..".format("...".join(outputs)) if len(outputs) > 1 else outputs[0],
        "outputs": [dict(zip(("id", "property"), output.split("."), strict=True)) for output in outputs],
        "inputs": [
            {"id": "trajectory-cursor", "property": "data", "value": inputs},
            {"id": "version", "property": "data", "value": None},
        ],
        "state": [{"id": "view", "property": "data", "value": VIEW}],
        "changedPropIds": ["trajectory-cursor.data"],
    }
    if len(outputs) == 1:
        body["outputs"] = body["outputs"][0]
    answer = client.post("/_dash-update-component", json=body)
    assert answer.status_code == 200, answer.data
    return answer.get_json()["response"]


def test_a_place_is_filled_or_hidden(stored):
    client = create_app([stored]).server.test_client()
    at = {"cell": 1, "sample": 3, "cells": [1, 9], "variables": ["log_prob"]}
    names = ("frame-{}.hidden", "title-{}.children", "caption-{}.children", "menu-{}.children", "{}.figure", "{}.style")
    first = asked(client, [name.format("curve-0") for name in names], **at)
    assert first["frame-curve-0"]["hidden"] is False
    assert first["title-curve-0"]["children"] == "log_prob"
    figure = first["curve-0"]["figure"]
    assert figure["layout"]["meta"]["timestep"] is True
    assert figure["layout"]["showlegend"] is False
    assert {trace["meta"]["cell"] for trace in figure["data"] if "meta" in trace} == {1, 9}
    second = asked(client, [name.format("curve-1") for name in names], **at)
    assert second == {"frame-curve-1": {"hidden": True}}
    told = asked(client, ["trajectory-numbers.data"], **at)["trajectory-numbers"]["data"]
    assert (told["cell"], told["sample"], told["written"]) == (1, 3, small_store.TIMESTEPS)


@pytest.mark.parametrize("dash", DASHES)
@pytest.mark.parametrize("symbol", style._SYMBOLS)
def test_a_swatch_has_the_look_of_the_lines(dash, symbol):
    kind, _, text = swatch(style.Look("#0072B2", dash, symbol, 2.0)).partition(",")
    assert kind == "data:image/svg+xml"
    svg = ElementTree.fromstring(unquote(text))
    group, line, marker = svg[0], svg[0][0], svg[0][1][0]
    assert group.get("stroke") == group.get("fill") == "#0072B2"
    assert group.get("stroke-width") == "2"
    assert (line.get("stroke-dasharray") is None) == (dash == "solid")
    assert (marker.get("fill") == "none") == symbol.endswith("-open")


def test_cells_that_look_different_have_different_swatches(run):
    known = style.coordinates(run.ds)
    assert len({swatch(style.look(known, cell)) for cell in run.cells}) == 16
