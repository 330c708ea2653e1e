"""The Distributions page without a browser."""

import json

import pytest
import small_store
from dash_client import ask, parts, texts

from dashboards import create_app
from dashboards.pages import distributions as page
from dashboards.pages.compare import page as compare
from dashboards.state import default
from dashboards.widgets.export import Call

PARTS = ("frame-{}.hidden", "reason-{}.children", "title-{}.children", "menu-{}.children", "{}.figure")


def answer(client, run, figure, *inputs):
    name = f"distributions-{figure}"
    view = {"store": run.key, "page": "distributions", "url": default(run).to("distributions").url()}
    inputs = [*inputs] if any(key == "label" for key, _ in inputs) else [*inputs, ("label", "all")]
    values = [({"type": "control", "key": key}, "value", value) for key, value in inputs]
    outputs = [part.format(name) for part in PARTS]
    found = ask(client, outputs, [*values, ("version", "data", None)], [("view", "data", view)])
    return {key.replace(name, ""): value for key, value in found.items()}


def test_the_layout_shows_at_most_four_cells(run):
    state = default(run).to("distributions", cells=(1, 3, 5, 7, 9, 11), cell=9)
    made = parts(page.layout(run, state))
    controls = {part["id"]["key"]: part for part in made if isinstance(part.get("id"), dict)}
    assert controls["cells"]["value"] == ["1", "3", "5", "7"]
    assert controls["cells"]["maxValues"] == 4
    assert "at most 4" in controls["cells"]["label"]
    assert controls["cell"]["value"] == "9"
    assert controls["variables"]["value"] == state.variables[0]
    graphs = {part["id"] for part in made if part["type"] == "Graph"}
    assert graphs == {"distributions-ridgelines", "distributions-magnitudes", "distributions-spectrum"}


def test_ridgelines_are_of_the_chosen_cells_and_diagnostic(client, run):
    found = answer(client, run, "ridgelines", ("cells", ["9", "1"]), ("variables", "log_prob"))
    assert found["frame-"]["hidden"] is False
    assert found["title-"]["children"] == "log_prob over samples"
    call = Call("ridgelines", {"name": "log_prob", "cells": [small_store.BAD, small_store.GOOD]})
    assert found[""]["figure"]["data"] == json.loads(call.draw(run).to_json())["data"]
    numbers = call.numbers(run)
    assert set(numbers["classifier"]) == {"robust", "non_robust"}


def test_figures_are_of_the_chosen_class(client, run):
    found = answer(client, run, "ridgelines", ("cells", ["9", "1"]), ("variables", "log_prob"), ("label", "3"))
    call = Call("ridgelines", {"name": "log_prob", "cells": [small_store.BAD, small_store.GOOD]}, 3)
    assert found[""]["figure"]["data"] == json.loads(call.draw(run).to_json())["data"]
    assert call.numbers(run)["n"].max() == 4
    spectrum = answer(client, run, "magnitudes", ("cell", "9"), ("label", "2"))
    assert spectrum[""]["figure"]["data"] != answer(client, run, "magnitudes", ("cell", "9"))[""]["figure"]["data"]


def test_without_cells_the_page_asks_for_one(client, run):
    found = answer(client, run, "ridgelines", ("cells", []), ("variables", "log_prob"))
    assert found["frame-"]["hidden"] is True
    assert "Choose a cell above." in texts(found["reason-"]["children"])


@pytest.mark.parametrize("figure", page.OF_TENSORS)
def test_figures_of_the_gradients_are_of_the_focused_cell(client, run, figure):
    found = answer(client, run, figure, ("cell", "9"))
    assert found["frame-"]["hidden"] is False
    call = Call(figure, {"cell": small_store.BAD})
    assert found[""]["figure"]["data"] == json.loads(call.draw(run).to_json())["data"]
    other = Call(figure, {"cell": small_store.GOOD})
    assert found[""]["figure"]["data"] != json.loads(other.draw(run).to_json())["data"]


@pytest.mark.parametrize("figure", page.OF_TENSORS)
def test_without_gradients_the_page_says_what_records_them(opened, figure):
    ds = small_store.recorded().drop_vars(["gradient", "update", "x_t", "pred_original_sample"])
    ds["written"] = ds["written"].clip(max=1)
    run = opened(ds)
    found = answer(create_app([run.path]).server.test_client(), run, figure, ("cell", "9"))
    assert found["frame-"]["hidden"] is True
    assert f"{page.OF_TENSORS[figure]}: gradient is not in this store" in texts(found["reason-"]["children"])
    assert "the probe `gradient` records it" in texts(found["reason-"]["children"])


def test_a_store_in_which_nothing_is_written_says_so(opened):
    ds = small_store.recorded()
    ds["written"][:] = 0
    run = opened(ds)
    client = create_app([run.path]).server.test_client()
    found = answer(client, run, "ridgelines", ("cells", ["1"]), ("variables", "log_prob"))
    assert found["frame-"]["hidden"] is True
    assert "log_prob" in texts(found["reason-"]["children"])
    assert answer(client, run, "spectrum", ("cell", "1"))["frame-"]["hidden"] is True


@pytest.mark.parametrize("page", [page, compare])
def test_a_store_without_diagnostics_says_what_records_them(opened, page):
    run = opened(small_store.recorded()[["written", "image"]])
    assert "add norms, cosines or belief to `probes`" in texts(page.layout(run, default(run)))
