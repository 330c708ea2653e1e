"""The Guidance page, its table and its figure, derived again from the store's arrays by scipy."""

import numpy as np
import pytest
import watched_store
from dash_client import parts, show, texts
from scipy import stats

from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.pages.guidance import page
from dashboards.state import default
from dashboards.widgets.export import Call
from gradscope.analysis.classifier_free import CHANGE, PARALLEL, PERPENDICULAR, SHARE
from gradscope.errors import GradscopeError
from gradscope.plots.guidance_parts import draw_guidance_parts, guidance_parts_numbers


@pytest.fixture
def run(opened):
    return opened(watched_store.classifier_free())


def of_cell(at):
    """Each quantity of a cell, ``(samples, timesteps)``."""
    ds = watched_store.classifier_free()
    values = {name: ds[name].values[at].astype(float) for name in (PARALLEL, PERPENDICULAR, CHANGE)}
    squares = values[PARALLEL] ** 2 + values[PERPENDICULAR] ** 2
    return values | {SHARE: np.sqrt(values[PARALLEL] ** 2 / squares)}


def interval(values):
    """Mean and Student's interval of the numbers that are known."""
    known = values[np.isfinite(values)]
    low, high = stats.t.interval(0.95, len(known) - 1, known.mean(), stats.sem(known))
    return known.mean(), low, high


def test_the_table_is_that_of_the_arrays(run):
    made = page.table_rows(run, default(run, "guidance"))
    for row, at in zip(made, np.ndindex(2, 2, 2, 2), strict=True):
        assert (row["n"], row["weight"]) == (16, 7.5)
        for name, values in of_cell(at).items():
            expected = interval(np.nanmean(values, axis=1))
            found = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            if at == (0, 0, 0, 0) and name in (PARALLEL, SHARE):
                assert found == [0, 0, 0]
                continue
            np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert "variables=gradient_parallel_norm,gradient_perpendicular_norm,prediction_change" in row["href"]


def test_a_class_restricts_table_and_figure(run):
    chosen = watched_store.classifier_free()["label"].values == 2
    rows = page.table_rows(run, default(run, "guidance").to("guidance", label=2))
    cell = dict(run.cell(7))
    numbers = Call("guidance_parts", {"cells": [cell]}, 2).numbers(run)
    for name, values in of_cell((0, 1, 1, 1)).items():
        expected = interval(np.nanmean(values[chosen], axis=1))
        np.testing.assert_allclose(
            [rows[7][name], rows[7][f"{name}_low"], rows[7][f"{name}_high"]], expected, rtol=1e-6
        )
        means = [interval(values[chosen, step])[0] for step in range(values.shape[1])]
        np.testing.assert_allclose(numbers[numbers["quantity"] == name]["mean"], means, rtol=1e-6)
    assert rows[7]["n"] == chosen.sum() == 4
    assert "label=2" in rows[7]["href"]


def test_the_figure_is_that_of_the_arrays(run):
    names = page.names(run)
    numbers = guidance_parts_numbers(run.scalars(*names), [dict(run.cell(7)), dict(run.cell(0))])
    for number, at in ((7, (0, 1, 1, 1)), (0, (0, 0, 0, 0))):
        cell = run.cell(number)
        own = numbers[np.logical_and.reduce([numbers[dim] == value for dim, value in cell.items()])]
        for name, values in of_cell(at).items():
            found = own[own["quantity"] == name]
            for step, row in enumerate(found.itertuples()):
                assert row.n == np.isfinite(values[:, step]).sum()
                if number or name in (PERPENDICULAR, CHANGE):
                    np.testing.assert_allclose([row.mean, row.low, row.high], interval(values[:, step]), rtol=1e-6)


def test_norms_share_an_axis_that_holds_every_mean(run):
    numbers = guidance_parts_numbers(run.scalars(*page.names(run)), [dict(cell) for cell in run.cells[1:4]])
    figure = draw_guidance_parts(numbers)
    assert figure.layout.yaxis.type == figure.layout.yaxis2.type == figure.layout.yaxis4.type == "log"
    assert figure.layout.yaxis.range == figure.layout.yaxis2.range
    low, high = figure.layout.yaxis.range
    norms = numbers[numbers["quantity"].isin([PARALLEL, PERPENDICULAR])]["mean"]
    assert 10**low < norms[norms > 0].min() <= norms.max() < 10**high
    assert [trace.name for trace in figure.data if trace.showlegend] == [
        "robust, x_t, no stabiliser, s = 0.5", "robust, x_t, adam, unguided", "robust, x_t, adam, s = 0.5",
    ]  # fmt: skip


def test_a_cell_whose_gradients_are_zero_is_drawn_without_error(run):
    zero = watched_store.classifier_free()
    for name in (PARALLEL, PERPENDICULAR, CHANGE):
        zero[name] *= 0
    numbers = guidance_parts_numbers(zero, [dict(run.cell(0))])
    assert numbers[numbers["quantity"] == SHARE]["n"].eq(0).all()
    draw_guidance_parts(numbers)


def test_the_page_is_for_classifier_free_guidance_alone(run, opened):
    assert page.missing(run) == ""
    client = app_of(Library([run.path]), "/").server.test_client()
    client.get("/_dash-dependencies")
    found = show(client, "guidance", cells="3")
    assert found["view"]["data"]["url"].endswith("&cells=3&label=all")
    assert "arXiv 2410.02416" in texts(found["page"]["children"])
    other = opened(watched_store.classifier(), "other.zarr")
    assert page.missing(other) == "other.zarr is not of classifier-free guidance"
    without = opened(watched_store.classifier_free().drop_vars(PARALLEL), "without.zarr")
    assert "gradient_parallel_norm is not in this store" in page.missing(without)
    with pytest.raises(GradscopeError, match="gradient_parallel_norm is not in this store"):
        guidance_parts_numbers(without.ds, [dict(without.cell(0))])
    assert not [part for part in parts(page.layout(without, default(without, "guidance"))) if "rowData" in part]
