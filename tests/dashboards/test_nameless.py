"""Stores without names of classes, as a user's own sampler may record: every page shows the classes' numbers."""

import json

import numpy as np
import pytest
import small_store
from dash_client import texts
from plotly.io.json import to_json_plotly

from dashboards import pages
from dashboards.data.open_run import OpenRun
from dashboards.state import default
from dashboards.widgets.export import Call
from dashboards.widgets.verdicts import verdicts
from gradscope.analysis.verdicts import class_names

CELLS = [small_store.GOOD, small_store.BAD]


@pytest.fixture(scope="module", params=["empty", "absent", "judged"])
def run(request, tmp_path_factory):
    ds = small_store.recorded()
    ds["entropy"] = -ds["log_prob"]
    ds.attrs = {key: value for key, value in ds.attrs.items() if key != "classes"}
    if request.param == "empty":
        ds.attrs["classes"] = []
    if request.param == "judged":  # by a judge of more classes than the labels have
        for who in ("own_prediction", "judge_prediction"):
            ds[who] = small_store.evaluated()[who]
            ds[who][0, 0, 0, 0, 1] = 7
        ds["predicted_class"][0, 0, 0, 1, 0, 3] = 9
    return OpenRun(small_store.save(ds, tmp_path_factory.mktemp(request.param) / "a.zarr"))


def test_the_numbers_are_those_of_the_labels(run):
    assert class_names(run.ds) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("page", list(pages.PAGES))
def test_every_page_opens(run, page):
    assert texts(pages.PAGES[page].layout(run, default(run).to(page)))


def test_verdicts_have_the_numbers_of_the_classes(run):
    cell = run.ds.isel(classifier=0, classifier_input=0, stabilizer=0, guidance_scale=0).compute()
    table = verdicts(cell)
    assert table["label"].tolist() == [str(label) for label in run.ds["label"].values]
    for who in ("own", "judge"):
        there = f"{who}_prediction" in run.ds
        seen = [str(k) if k >= 0 else "" for k in cell[f"{who}_prediction"].values] if there else [""] * len(table)
        assert table[who].tolist() == seen


def test_pairs_have_the_numbers_of_their_classes(run):
    a, b = CELLS
    numbers = Call("pairs", {"name": "gradient_cosine", "a": a, "b": b, "selected": []}).numbers(run)
    assert numbers["class"].tolist() == [str(label) for label in run.ds["label"].values[numbers["sample"]]]


def test_the_guides_belief_is_drawn(run):
    call = Call("belief", {"cells": CELLS, "sample": 0})
    seen = call.numbers(run)["predicted_class"]
    drawn = json.loads(to_json_plotly(call.draw(run)))
    entries = {str(trace["name"]) for trace in drawn["data"] if trace.get("legend") == "legend2"}
    target = int(run.ds["label"][0])
    expected = {f"{k} {k}" for k in set(seen[seen >= 0]) - {target}} | {f"{target} {target}, the target"}
    assert entries == expected
    assert np.isin(target, seen) or len(entries) > 1
