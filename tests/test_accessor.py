"""The methods of ``ds.gradscope`` give the results of the functions."""

import subprocess
import sys

import pandas as pd
import pytest
import xarray as xr
from small_store import BAD, GOOD, evaluated, save

import gradscope
from gradscope import accessor, plots
from gradscope.analysis import compare, compare_all, curves, summary
from gradscope.analysis.signatures import find, signatures, untested
from gradscope.plots.heatmap import flagged_spans
from gradscope.reporting.report import report, to_json

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ds():
    return evaluated().isel(classifier_input=[0], guidance_scale=[1])


def test_tables_are_those_of_the_functions(ds):
    assert isinstance(ds.gradscope, accessor.Accessor)
    xr.testing.assert_identical(ds.gradscope.summary(), summary(ds))
    pd.testing.assert_frame_equal(ds.gradscope.signatures(), signatures(ds))
    assert ds.gradscope.untested() == untested(ds)
    xr.testing.assert_identical(ds.gradscope.curves(["log_prob"]), curves(ds, ["log_prob"]))
    assert ds.gradscope.compare(BAD, GOOD).asdict() == compare(ds, BAD, GOOD).asdict()
    pd.testing.assert_frame_equal(ds.gradscope.compare_all(), compare_all(ds))
    pd.testing.assert_frame_equal(ds.gradscope.compare_all("adam"), compare_all(ds, "adam"))
    assert to_json(ds.gradscope.report()) == to_json(report(ds))


def test_figures_are_those_of_the_functions(ds):
    lag = "gradient_lag_cosine"
    assert flagged_spans(find(ds), lag)
    pairs = [
        (ds.gradscope.plot_curve("log_prob"), plots.curve(ds, "log_prob")),
        (ds.gradscope.plot_heatmap("log_prob"), plots.heatmap(ds, "log_prob")),
        (ds.gradscope.plot_heatmap(lag), plots.heatmap(ds, lag, flagged_spans(find(ds), lag))),
        (ds.gradscope.plot_trajectories([GOOD], 1, 3), plots.trajectories(ds, [GOOD], 1, 3)),
        (ds.gradscope.plot_accuracy(), plots.accuracy(ds)),
        (ds.gradscope.plot_confusion(GOOD), plots.confusion(ds, GOOD)),
    ]
    for plotted, drawn in pairs:
        assert plotted.to_json() == drawn.to_json()


def test_the_page_is_written(ds, tmp_path):
    ds.gradscope.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert ds.attrs["run_id"] in page


def test_opening_a_store_registers_it_without_torch(tmp_path):
    path = save(evaluated().isel(classifier=[0], classifier_input=[0]), tmp_path / "a.zarr")
    code = (
        "import sys, gradscope; ds = gradscope.open(sys.argv[1])\n"
        "print(ds.gradscope.untested(), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == f"{gradscope.open(path).gradscope.untested()} False"
