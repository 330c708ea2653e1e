"""Curves: means and quantiles by a loop over timesteps, and that the figure draws these."""

import numpy as np
import pytest
import xarray as xr
from small_store import BAD, CELLS, GOOD, SAMPLES, TIMESTEPS

from gradscope.errors import GradscopeError
from gradscope.plots.curves import curves, curves_numbers, draw_curves, summarised
from gradscope.plots.style import DASHES, PALETTE
from gradscope.store import CELL_DIMS

AT_GOOD = (0, 0, 0, 1)
ADAM = GOOD | {"stabilizer": "adam", "classifier_input": "x0"}


def means(figure):
    return [trace for trace in figure.data if trace.mode == "lines+markers"]


def bands(figure):
    return [trace for trace in figure.data if trace.fill == "toself"]


def test_numbers_are_means_and_quantiles_of_the_finite_samples(ds):
    ds["log_prob"][(*AT_GOOD, slice(0, 3), 4)] = [np.nan, np.inf, -np.inf]
    ds["log_prob"][(*AT_GOOD, slice(None), 7)] = np.nan
    numbers = curves_numbers(ds, "log_prob", [BAD, GOOD])
    assert numbers["classifier"].tolist() == ["non_robust"] * TIMESTEPS + ["robust"] * TIMESTEPS
    assert numbers["timestep"].tolist() == 2 * ds["timestep"].values.tolist()
    assert numbers.attrs["label"] == "log_prob [nat]"
    for k, row in enumerate(numbers[TIMESTEPS:].to_dict("records")):
        values = ds["log_prob"].values[AT_GOOD][:, k]
        finite = values[np.isfinite(values)]
        assert row["n"] == len(finite) == {4: SAMPLES - 3, 7: 0}.get(k, SAMPLES)
        if len(finite):
            assert row["mean"] == pytest.approx(np.mean(finite))
            for key, share in (("q05", 0.05), ("q25", 0.25), ("q75", 0.75), ("q95", 0.95)):
                assert row[key] == pytest.approx(np.quantile(finite, share))
        else:
            assert np.isnan([row["mean"], row["q05"], row["q95"]]).all()
        assert np.isnan(row["value"])


def test_quantiles_are_numpys_for_any_number_of_samples():
    rng = np.random.default_rng(0)
    for samples in (1, 2, 3, 7, 64):
        values = rng.normal(size=(samples, 9))
        values[rng.random(values.shape) < 0.2] = np.nan
        values[0] = rng.normal(size=9)
        found = summarised(values)
        np.testing.assert_allclose(found["mean"], np.nanmean(values, axis=0))
        expected = np.nanquantile(values, (0.05, 0.25, 0.75, 0.95), axis=0)
        np.testing.assert_allclose([found[key] for key in ("q05", "q25", "q75", "q95")], expected)


def test_the_style_of_a_cell_does_not_depend_on_the_other_cells(ds):
    for cells in ([BAD], [BAD, GOOD], [GOOD, ADAM, BAD]):
        figure = curves(ds, "log_prob", cells)
        line = next(trace for trace in means(figure) if trace.name.startswith("non_robust"))
        assert (line.line.color, line.line.dash, line.meta) == (PALETTE[1], DASHES[0], {"cell": 9})
    adam = curves(ds, "log_prob", [ADAM]).data[-1]
    bad, control = (curves(ds, "log_prob", [cell]).data[-1] for cell in (BAD, BAD | {"guidance_scale": 0.0}))
    assert (adam.line.color, adam.line.dash) == (PALETTE[0], DASHES[1])
    assert adam.marker.symbol != bad.marker.symbol
    assert control.line.width < bad.line.width
    assert adam.marker.maxdisplayed < 12


def test_each_cell_has_a_line_and_two_bands(ds):
    numbers = curves_numbers(ds, "log_prob", [GOOD, BAD])
    figure = draw_curves(numbers)
    assert len(figure.data) == 6
    rows = numbers[:TIMESTEPS]
    line, outer, inner = means(figure)[0], *bands(figure)[:2]
    np.testing.assert_array_equal(line.x, rows["timestep"])
    np.testing.assert_array_equal(line.y, rows["mean"].astype(np.float32))
    np.testing.assert_array_equal(outer.y[:-1], [*rows["q95"], *rows["q05"][::-1]])
    np.testing.assert_array_equal(inner.y[:-1], [*rows["q75"], *rows["q25"][::-1]])
    assert figure.layout.meta == {"timestep": True}
    assert figure.layout.xaxis.range[0] > figure.layout.xaxis.range[1]
    assert figure.layout.yaxis.title.text == "log_prob [nat]"


def test_with_many_cells_only_the_focused_one_has_bands(ds):
    cells = [GOOD | {"stabilizer": s, "classifier_input": c} for s in ("none", "adam") for c in ("x_t", "x0")]
    assert bands(curves(ds, "log_prob", cells)) == []
    figure = curves(ds, "log_prob", cells, sample=5, focus=BAD)
    assert len(means(figure)) == 5  # the focused cell is shown too
    assert {band.legendgroup for band in bands(figure)} == {"non_robust, x_t, no stabiliser, s = 0.5"}
    own = figure.data[-1]
    assert own.name == "sample 5 of non_robust, x_t, no stabiliser, s = 0.5"
    np.testing.assert_array_equal(own.y, ds["log_prob"].values[1, 0, 0, 1, 5].astype(np.float32))
    assert len(means(curves(ds, "log_prob", [GOOD, GOOD], sample=5, focus=GOOD))) == 1


def test_zeros_and_vanishing_values_leave_room_on_a_logarithmic_axis(ds):
    ds["gradient_norm"][(*AT_GOOD, slice(0, 4))] = 0
    ds["gradient_norm"][(*AT_GOOD, slice(4, 6))] = 1e-30
    numbers = curves_numbers(ds, "gradient_norm", [GOOD])
    figure = draw_curves(numbers)
    assert figure.layout.yaxis.type == "log"
    bottom = 0.01 * numbers["mean"].min()
    low, high = 10 ** np.array(figure.layout.yaxis.range)
    assert low < bottom < high
    assert low > 0.5 * bottom
    for band in bands(figure):
        assert np.nanmin(band.y) >= 0.999 * bottom
    np.testing.assert_array_equal(means(figure)[0].customdata, numbers[["q05", "q95", "n"]].astype(np.float32))
    ds["gradient_norm"][...] = 0
    assert curves(ds, "gradient_norm", [GOOD]).layout.yaxis.type != "log"


def test_a_cell_without_values_says_so(ds):
    ds["log_prob"][...] = np.nan
    figure = curves(ds, "log_prob", [GOOD])
    assert [annotation.text for annotation in figure.layout.annotations] == ["no values"]


def test_the_threshold_of_a_signature_is_drawn_with_its_curve(ds):
    ds["gradient_lag_cosine"] = ds["gradient_cosine"] * np.linspace(0, 1, TIMESTEPS)
    figure = curves(ds, "gradient_lag_cosine", [GOOD])
    assert figure.layout.shapes == ()  # no line through the curves
    assert figure.layout.margin.r >= 100  # room for the names
    assert [(a.text, a.x, a.xref, a.xanchor) for a in figure.layout.annotations] == [
        ("unstable<br>below 0.4", 1, "paper", "left"),
        ("frozen<br>above 0.9999", 1, "paper", "left"),
    ]
    assert [(a.y, a.yref) for a in figure.layout.annotations] == [(0.4, "y"), (0.9999, "y")]
    assert curves(ds, "gradient_cosine", [GOOD]).layout.annotations == ()  # no signature has a threshold for it


def test_a_threshold_far_from_the_values_is_named_at_the_end_of_the_axis(ds):
    ds["gradient_lag_cosine"] = 0.98 + 0.001 * ds["gradient_cosine"]
    below, above = curves(ds, "gradient_lag_cosine", [GOOD]).layout.annotations
    assert (below.text, below.y, below.yref) == ("▾ unstable<br>below 0.4", 0, "y domain")
    assert (above.text, above.y, above.yref) == ("▴ frozen<br>above 0.9999", 1, "y domain")
    ds["effective_strength"][...] = 0.01 * (1 + np.arange(TIMESTEPS))
    figure = curves(ds, "effective_strength", [GOOD])
    assert figure.layout.yaxis.type == "log"
    low, high = (a for a in figure.layout.annotations)
    assert (low.text[:1], high.text[:1]) == ("▾", "▴")
    ds["effective_strength"][...] = np.geomspace(1e-5, 10, TIMESTEPS)
    inside = curves(ds, "effective_strength", [GOOD]).layout.annotations
    assert [a.y for a in inside] == pytest.approx([-3, 0])  # places of annotations on such an axis are logarithms


def test_unguided_cells_with_the_same_means_are_one_line(ds):
    unguided = [GOOD | {"guidance_scale": 0.0, "stabilizer": s, "classifier_input": c}
                for s in ("none", "adam") for c in ("x_t", "x0")]  # fmt: skip
    same = ds["log_prob"].values[0, 0, 0, 0]
    ds["log_prob"][0, 0, 1, 0] = same
    names = [trace.name for trace in means(curves(ds, "log_prob", [GOOD, *unguided]))]
    apart = ["robust, x0, no stabiliser, unguided", "robust, x0, adam, unguided"]
    assert sorted(names) == sorted(["robust, x_t, no stabiliser, s = 0.5", "robust, x_t, unguided", *apart])
    ds["log_prob"][0, :, :, 0] = same
    figure = curves(ds, "log_prob", [GOOD, *unguided], sample=2, focus=unguided[3])
    one = next(trace for trace in means(figure) if trace.name == "robust, unguided")
    assert one.meta == {"cell": 6}  # the focused one
    assert figure.data[-1].name.startswith("sample 2 of ")
    ds["log_prob"][0, :, :, 1] = same  # guided cells are never folded
    assert len(means(curves(ds, "log_prob", [GOOD, ADAM]))) == 2


def test_the_label_under_the_mouse_is_opaque_and_of_the_nearest_curve(ds):
    layout = curves(ds, "log_prob", [GOOD, BAD]).layout
    assert (layout.hovermode, layout.hoverdistance) == ("closest", -1)
    assert layout.hoverlabel.bgcolor == "#1f2328"
    for trace in means(curves(ds, "log_prob", [GOOD, BAD])):
        assert trace.hovertemplate.startswith(f"<b>{trace.name}</b><br>")
        assert trace.hovertemplate.endswith("<extra></extra>")
    hostile = ds.assign_coords(classifier=["%{x}", "b"])
    (trace,) = means(curves(hostile, "log_prob", [GOOD | {"classifier": "%{x}"}]))
    assert "%{x}, x_t" not in trace.hovertemplate


def test_a_line_skips_timesteps_at_which_no_cell_has_values(ds):
    ds["gradient_lag_cosine"] = ds["gradient_cosine"].where(ds["timestep"].isin(ds["timestep"].values[1::3]))
    figure = curves(ds, "gradient_lag_cosine", [GOOD])
    line = next(trace for trace in figure.data if trace.mode == "lines+markers")
    assert line.x.tolist() == ds["timestep"].values[1::3].tolist()
    assert np.isfinite(line.y).all()
    assert figure.layout.xaxis.range == curves(ds, "gradient_cosine", [GOOD]).layout.xaxis.range


def test_the_figure_of_a_long_run_is_small():
    cells = {dim: CELLS[dim] for dim in CELL_DIMS[:3]} | {"guidance_scale": [0.5]}
    shape = (2, 2, 2, 1, 8, 1000)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    long = xr.Dataset(
        {"log_prob": ((*CELL_DIMS, "sample", "timestep"), values)}, coords=cells | {"timestep": np.arange(1000)[::-1]}
    )
    eight = [{"classifier": a, "classifier_input": b, "stabilizer": c} for a in cells["classifier"]
             for b in cells["classifier_input"] for c in cells["stabilizer"]]  # fmt: skip
    figure = curves(long, "log_prob", eight, sample=3, focus=eight[0])
    assert len(figure.data) == 8 + 2 + 1
    assert len(figure.to_json()) < 400_000


def test_unknown_names_are_refused(ds):
    with pytest.raises(GradscopeError, match="update_snr is not in this store"):
        curves(ds, "update_snr", [GOOD])
    with pytest.raises(GradscopeError, match="gradient is not a diagnostic over samples and timesteps"):
        curves(ds, "gradient", [GOOD])
    with pytest.raises(GradscopeError, match="cells: got an empty list"):
        curves(ds, "log_prob", [])
    with pytest.raises(GradscopeError, match="sample: there is no 99; 0 to 15"):
        curves(ds, "log_prob", [GOOD], sample=99, focus=GOOD)
    with pytest.raises(GradscopeError, match="unknown classifier 'robst'; did you mean 'robust'"):
        curves(ds, "log_prob", [GOOD | {"classifier": "robst"}])


def test_names_are_not_read_as_markup(ds):
    ds = ds.assign_coords(classifier=["<b>a</b>", "b"])
    figure = curves(ds, "log_prob", [GOOD | {"classifier": "<b>a</b>"}])
    assert means(figure)[0].name == "&lt;b&gt;a&lt;/b&gt;, x_t, no stabiliser, s = 0.5"
