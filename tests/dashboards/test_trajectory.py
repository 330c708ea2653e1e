"""The Trajectory page without a browser: the data that it hands to the browser, and the figures that it draws."""

import json
import math
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import small_store
from dash_client import ask, parts, texts
from small_store import BAD, CELLS

from dashboards.data.finding_key import finding_key
from dashboards.data.open_run import OpenRun
from dashboards.data.shown_sample import needed, shown_sample
from dashboards.pages.trajectory import page
from dashboards.pages.trajectory.banner import NEIGHBOURS
from dashboards.pages.trajectory.browser_data import description, readout_names, sample_numbers, with_focus
from dashboards.pages.trajectory.figures import ON_EVERY_PAGE, PATH, figures
from dashboards.state import default
from dashboards.widgets.export import Call
from dashboards.widgets.swatches import swatch
from gradscope.plots import cell_style as style
from gradscope.plots.style import DASHES
from gradscope.store import CELL_DIMS

GAP = (0, 1, 0, 1)
"""A cell whose sample 2 is written up to step 6."""
NOT_FINITE = {("gradient_norm", 1): np.nan, ("gradient_norm", 2): np.inf, ("entropy", 3): -np.inf}
"""Values of that sample, by diagnostic and step."""
VIEW = {"store": "5f0c", "page": "trajectory", "url": "trajectory?store=5f0c"}


@pytest.fixture(scope="module")
def gap(tmp_path_factory):
    """A store with a gap, and with all variables that the figure of the belief needs; and its content."""
    ds = small_store.evaluated()
    ds["entropy"] = -ds["log_prob"]
    ds["written"][(*GAP, 2, slice(6, None))] = 0
    for (name, step), value in NOT_FINITE.items():
        ds[name][(*GAP, 2, step)] = value
    return OpenRun(small_store.save(ds, tmp_path_factory.mktemp("gap") / "gap.zarr")), ds


def number(index):
    return int(np.ravel_multi_index(index, small_store.SHAPE))


def ids(made):
    return {
        json.dumps(part["id"], sort_keys=True) if isinstance(part["id"], dict) else part["id"]
        for part in made
        if part.get("id")
    }


def test_the_description_of_a_run(run):
    state = default(run, "trajectory")
    about = json.loads(json.dumps(description(run, state), allow_nan=False))
    ds = run.ds
    assert about["timesteps"] == ds["timestep"].values.tolist()
    assert about["timesteps"][about["at"]["step"]] == state.timestep
    assert about["tensor_samples"] == small_store.TENSORS
    assert about["kept"] == "tensors are kept for samples 0 to 3 of 0 to 15"
    assert [tensor["name"] for tensor in about["tensors"]] == ["gradient", "update", "x_t", "pred_original_sample"]
    assert [tensor["diverging"] for tensor in about["tensors"]] == [True, True, False, False]
    assert about["targets"] == [small_store.CLASSES[label] for label in ds["label"].values]
    names = [f"{cell['row']}, {cell['column']}" for cell in about["cells"]]
    assert names == [cell["name"] for cell in about["cells"]]
    assert names[number((1, 0, 1, 1))] == "non_robust, x_t, adam, s = 0.5"
    assert len(names) == len({cell["swatch"] for cell in about["cells"]}) == 16


@pytest.mark.parametrize(
    ("cells", "cell", "shown"),
    [((1, 3, 5), 3, (1, 3, 5)), ((1, 3, 5), 2, (1, 2, 3, 5)), (tuple(range(16)), 40, (*range(15), 40))],
)
def test_the_focused_cell_is_always_shown(cells, cell, shown):
    assert with_focus(cells, cell) == shown


def test_numbers_of_one_sample_are_those_of_the_store(gap):
    run, ds = gap
    numbers = json.loads(json.dumps(sample_numbers(run, number(GAP), 2), allow_nan=False))
    assert (numbers["cell"], numbers["sample"], numbers["written"]) == (number(GAP), 2, 6)
    assert set(numbers["values"]) == set(readout_names(run)) >= {"gradient_norm", "gradient_cosine", "log_prob"}
    for name, values in numbers["values"].items():
        stored = ds[name].values[(*GAP, 2)]
        assert values[6:] == [None] * (small_store.TIMESTEPS - 6)
        for step, value in enumerate(values[:6]):
            if name == "predicted_class":
                assert value == small_store.CLASSES[int(stored[step])]
            elif math.isfinite(stored[step]):
                assert value == pytest.approx(float(stored[step]), rel=5.1e-4, abs=0)
            else:
                assert value == {"nan": "NaN"}.get(str(stored[step]), str(stored[step]))
    assert numbers["values"]["gradient_norm"][1:3] == ["NaN", "inf"]
    assert numbers["values"]["entropy"][3] == "-inf"


def test_each_figure_is_of_the_shown_cells_and_of_the_sample(gap):
    run, _ = gap
    cell = number((1, 0, 0, 1))
    found = figures(run, cell=cell, sample=2, cells=[1, cell], variables=["log_prob", "gradient_norm"])
    assert list(found) == ["curve-0", "curve-1", "belief"]
    assert [figure.title for figure in found.values()] == ["log_prob", "gradient_norm", "belief of sample 2"]
    numbers = found["curve-0"].call.numbers(run)
    own = numbers[numbers["value"].notna()]
    assert set(map(tuple, own[list(CELL_DIMS)].values)) == {tuple(small_store.BAD.values())}
    np.testing.assert_allclose(own["value"], run.ds["log_prob"].sel(small_store.BAD).isel(sample=2), rtol=1e-6)
    assert len(set(map(tuple, numbers[list(CELL_DIMS)].values))) == 2


def test_the_page_has_an_element_for_each_part(run):
    made = parts(page.layout(run, default(run, "trajectory")))
    expected = {
        "finding-banner",
        "zoom",
        "map-value",
        "play",
        "scrubber",
        "where",
        "cells",
        "focus",
        "readout",
        "keys",
        "maps-note",
        "nonfinite",
    }
    expected |= {"curve-0", "curve-1", "curve-2", "belief", "frame-belief", "menu-curve-0", "title-curve-0"}
    controls = ("cell", "sample", "cells", "variables", "limits", "scale", "channel")
    expected |= {json.dumps({"key": key, "type": "control"}, sort_keys=True) for key in controls}
    assert ids(made) >= expected
    maps = [part for part in made if part.get("className") == "map"]
    assert [part["data-tensor"] for part in maps] == [*run.tensors, run.tensors[0]]  # the last one is enlarged
    assert all(part["role"] == "img" and part["aria-label"] for part in maps)
    assert {part["data-variable"] for part in made if "data-variable" in part} == set(readout_names(run))


def test_a_store_without_tensors_or_belief_says_what_records_them(opened):
    run = opened(small_store.recorded()[["gradient_norm", "log_prob", "written"]])
    state = default(run, "trajectory")
    about = description(run, state)
    assert (about["tensors"], about["tensor_samples"]) == ([], 0)
    assert "the probe `gradient` records it" in about["kept"]
    made = page.layout(run, state)
    assert [part for part in parts(made) if part.get("className") == "map"] == []
    assert "the probe `belief` records it" in texts(made)
    assert "belief" not in figures(run, cell=0, sample=0, cells=[0], variables=["log_prob"])


def test_the_figures_are_drawn_or_hidden_by_one_request(client):
    cursor = {"cell": 1, "sample": 3, "cells": [1, 9], "variables": ["log_prob"]}
    names = ("frame-{}.hidden", "title-{}.children", "caption-{}.children", "menu-{}.children", "{}.figure", "{}.style")

    def answer(outputs):
        label = ({"type": "control", "key": "label"}, "value", "all")
        inputs = [("trajectory-cursor", "data", cursor), label, ("version", "data", None)]
        return ask(client, outputs, inputs, [("view", "data", VIEW)], "trajectory-cursor.data")

    first = answer([*(name.format(id) for id in ON_EVERY_PAGE for name in names), "trajectory-numbers.data"])
    numbers = first.pop("trajectory-numbers")["data"]
    assert (numbers["cell"], numbers["sample"], numbers["written"]) == (1, 3, small_store.TIMESTEPS)
    assert first["frame-curve-0"]["hidden"] is False
    assert first["title-curve-0"]["children"] == "log_prob"
    figure = first["curve-0"]["figure"]
    assert figure["layout"]["meta"]["timestep"] is True
    assert figure["layout"]["showlegend"] is False
    assert {trace["meta"]["cell"] for trace in figure["data"] if "meta" in trace} == {1, 9}
    hidden = {key: value for key, value in first.items() if "curve-0" not in key}
    assert hidden == {f"frame-{id}": {"hidden": True} for id in ON_EVERY_PAGE[1:]}
    assert answer([name.format(PATH) for name in names]) == {f"frame-{PATH}": {"hidden": True}}


@pytest.mark.parametrize(("label", "inside"), [(3, True), (1, False)])
def test_curves_of_a_class_are_means_over_its_samples(run, evaluated, label, inside):
    shown = figures(run, cell=1, sample=3, cells=[1, 9], variables=["log_prob"], label=label)["curve-0"]
    name = small_store.CLASSES[label]
    grey = "grey: sample 3" if inside else "sample 3 is of another class"
    assert shown.caption.endswith(f"of the samples of class {name} (N = 4); {grey}")
    numbers = shown.call.numbers(run)
    mine = evaluated["log_prob"].values[0, 0, 0, 1][evaluated["label"].values == label]
    np.testing.assert_allclose(numbers["mean"][: small_store.TIMESTEPS], mine.mean(axis=0), rtol=1e-6)
    lines = [trace.name for trace in shown.call.draw(run).data if trace.name]
    assert any(name.startswith("sample 3 of ") for name in lines) is inside
    assert Call.decode(shown.call.encode()) == shown.call
    assert "of_class" in shown.call.python(run)


def test_a_swatch_has_the_look_of_the_lines():
    for dash in DASHES:
        for symbol in style._SYMBOLS:
            kind, _, text = swatch(style.Look("#0072B2", dash, symbol, 2.0)).partition(",")
            assert kind == "data:image/svg+xml"
            svg = ElementTree.fromstring(unquote(text))
            group, line, marker = svg[0], svg[0][0], svg[0][1][0]
            assert group.get("stroke") == group.get("fill") == "#0072B2"
            assert group.get("stroke-width") == "2"
            assert (line.get("stroke-dasharray") is None) == (dash == "solid")
            assert (marker.get("fill") == "none") == symbol.endswith("-open")


def test_the_banner_of_a_finding_says_what_it_is_and_how_its_position_was_chosen(client, run):
    finding = next(f for f in run.findings() if f.signature == "unstable")
    key = finding_key(run, finding)
    asked = ["finding-banner.children", "trajectory-span.data"]

    def answer(key):
        return ask(client, asked, [("trajectory-finding", "data", key)], [("view", "data", VIEW)])

    found = answer(key)
    shown = shown_sample(needed(run), finding, 3 * 8 * 8)
    text = texts(found["finding-banner"]["children"])
    for part in (finding.evidence, finding.advice, f"{shown.place}: {shown.why}", f"Back to {shown.place}"):
        assert part in text
    assert found["trajectory-span"]["data"] == [finding.first_timestep, finding.last_timestep]
    none = answer("")
    assert (none["finding-banner"]["children"], none["trajectory-span"]["data"]) == ([], None)
    assert "This store has no finding 0.nothing." in texts(answer("0.nothing")["finding-banner"]["children"])


def test_the_banner_leads_to_comparisons_with_cells_that_do_not_fail(client, run, state_of):
    alarms = [tuple(f.cell.values()) for f in run.findings() if f.severity == "alarm"]
    assert tuple(BAD.values()) in alarms
    finding = next(f for f in run.findings() if f.cell == BAD)
    asked, key = ["finding-banner.children", "trajectory-span.data"], finding_key(run, finding)
    found = ask(client, asked, [("trajectory-finding", "data", key)], [("view", "data", VIEW)])
    links = [part for part in parts(found["finding-banner"]["children"]) if "compare?" in part.get("href", "")]
    wanted = {
        tuple((BAD | {dim: value}).values())
        for dim, values in CELLS.items()
        for value in values
        if value not in (BAD[dim], 0.0)
    }
    shown = [state_of(link["href"]) for link in links]
    assert {tuple(run.cells[state.other].values()) for state in shown} == wanted - set(alarms)
    assert 0 < len(shown) <= NEIGHBOURS
    assert all(run.cells[state.cell] == BAD for state in shown)
