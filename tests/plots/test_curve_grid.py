"""Curves in a grid and heat maps of all cells: their numbers by plain NumPy, and that the figures draw these."""

import numpy as np
import pytest
from small_store import CELLS, SAMPLES, SHAPE, TIMESTEPS, evaluated

from gradscope import open_many, plots
from gradscope.analysis.cells import cells
from gradscope.analysis.direction_signatures import FOLLOWS
from gradscope.analysis.signatures import CURVES
from gradscope.errors import GradscopeError
from gradscope.plots.style import DASHES, PALETTE
from gradscope.store import CELL_DIMS
from probes import CATALOGUE

AT_GOOD = (0, 0, 0, 1)


def of_cell(numbers, at):
    keep = np.logical_and.reduce([numbers[dim] == CELLS[dim][i] for dim, i in zip(CELL_DIMS, at, strict=True)])
    return numbers[keep].reset_index(drop=True)


def lines(figure):
    return [trace for trace in figure.data if trace.mode == "lines" and trace.fill is None]


def bands(figure):
    return [trace for trace in figure.data if trace.fill == "toself"]


def differ(ds):
    """Make the means of all cells differ, also of unguided ones."""
    ds["log_prob"][...] -= np.random.default_rng(0).uniform(0, 0.1, ds["log_prob"].shape)


def test_curve_numbers_are_means_and_quantiles_over_samples(ds):
    ds["log_prob"][(*AT_GOOD, 2, 5)] = np.nan
    numbers = plots.curve_numbers(ds, "log_prob")
    assert len(numbers) == 16 * TIMESTEPS
    about = {"name": "log_prob", "label": "log_prob [nat]", "logarithmic": False, "on_a_grid": False}
    assert numbers.attrs == about | {"coordinates": CELLS}
    for at in np.ndindex(SHAPE):
        rows, values = of_cell(numbers, at), ds["log_prob"].values[at]
        assert rows["timestep"].tolist() == ds["timestep"].values.tolist()
        for k in range(TIMESTEPS):
            finite = values[:, k][np.isfinite(values[:, k])]
            row = rows.loc[k]
            assert row["n"] == len(finite) == SAMPLES - (at == AT_GOOD and k == 5)
            assert row["mean"] == pytest.approx(finite.mean())
            assert (row["q05"], row["q95"]) == pytest.approx(tuple(np.quantile(finite, (0.05, 0.95))))
            half = 1.96 * finite.std() / len(finite) ** 0.5
            assert (row["mean"] - row["low"], row["high"] - row["mean"]) == pytest.approx((half, half), rel=0.5)


def test_curves_draw_the_numbers(ds):
    differ(ds)
    numbers = plots.curve_numbers(ds, "log_prob")
    figure = plots.curve(ds, "log_prob")
    drawn = lines(figure)
    assert len(drawn) == 16
    colours, dashes = (
        dict(zip(CELLS["classifier"], PALETTE, strict=False)),
        dict(zip(["none", "adam"], DASHES, strict=False)),
    )
    for line, (scale, kind, classifier, stabilizer) in zip(drawn, np.ndindex(SHAPE), strict=True):
        at = (classifier, kind, stabilizer, scale)
        rows = of_cell(numbers, at)
        np.testing.assert_array_equal(line.x, rows["timestep"])
        np.testing.assert_array_equal(line.y, rows["mean"])
        assert line.line.color == colours[CELLS["classifier"][at[0]]]
        assert line.line.dash == dashes[CELLS["stabilizer"][at[2]]]
        assert line.yaxis == {(0, 0): "y", (1, 0): "y2", (0, 1): "y3", (1, 1): "y4"}[at[1], at[3]]
    assert sorted(line.name for line in drawn if line.showlegend) == [
        "non_robust, adam", "non_robust, no stabiliser", "robust, adam", "robust, no stabiliser",
    ]  # fmt: skip
    assert {axis.autorange for axis in figure.select_xaxes()} == {"reversed"}
    assert figure.layout.yaxis.title.text == "log_prob [nat]"
    assert figure.layout.xaxis3.title.text == "timestep t, in sampling order"
    interval = bands(figure)[1]
    rows = of_cell(numbers, (0, 0, 0, 0))
    np.testing.assert_array_equal(interval.x[:-1], [*rows["timestep"], *rows["timestep"][::-1]])
    np.testing.assert_array_equal(interval.y[:-1], [*rows["high"], *rows["low"][::-1]])


def test_bands_have_gaps_where_values_are_missing(ds):
    ds["log_prob"][(*AT_GOOD, slice(None), 4)] = np.nan
    figure = plots.curve(ds.isel(classifier=[0], classifier_input=[0], stabilizer=[0], guidance_scale=[1]), "log_prob")
    t = ds["timestep"].values
    expected = [*t[:4], *t[:4][::-1], np.nan, *t[5:], *t[5:][::-1], np.nan]
    for band in bands(figure):
        np.testing.assert_array_equal(band.x, expected)


def test_a_cell_without_values_is_empty(ds):
    differ(ds)
    ds["log_prob"][AT_GOOD] = np.nan
    numbers = of_cell(plots.curve_numbers(ds, "log_prob"), AT_GOOD)
    assert numbers["n"].tolist() == [0] * TIMESTEPS
    assert numbers[["mean", "low", "high", "q05", "q95"]].isna().all(axis=None)
    assert len(lines(plots.curve(ds, "log_prob"))) == 16


def test_the_threshold_of_a_signature_is_drawn_with_its_curve(ds):
    ds["gradient_lag_cosine"] = ds["gradient_cosine"]
    layout = plots.curve(ds, "gradient_lag_cosine").layout
    assert layout.shapes == ()
    named = [(a.text, a.y, a.yref) for a in layout.annotations if a.xref == "paper" and a.x == 1]
    both = (("unstable<br>below 0.4", 0.4), ("frozen<br>above 0.9999", 0.9999))
    assert named == [(*one, axis) for axis in ("y", "y3") for one in both]  # beside each row
    texts = {a.text for a in plots.curve(ds, "gradient_cosine").layout.annotations}
    assert texts == {"x_t, unguided", "x0, unguided", "x_t, s = 0.5", "x0, s = 0.5"}  # it has no threshold


def test_unguided_cells_with_the_same_means_are_one_curve_of_their_panel(ds):
    ds["log_prob"][:, :, 1, 0] = ds["log_prob"].values[:, :, 0, 0]
    drawn = lines(plots.curve(ds, "log_prob"))
    assert len(drawn) == 4 + 8
    assert sorted(line.name for line in drawn if line.showlegend) == [
        "non_robust, adam", "non_robust, no stabiliser", "non_robust, unguided",
        "robust, adam", "robust, no stabiliser", "robust, unguided",
    ]  # fmt: skip


def test_every_threshold_of_the_table_belongs_to_a_signature_that_needs_this_variable():
    by_name = {signature.name: signature for signature in CURVES}
    for row in CATALOGUE.values():
        for name, value in row.thresholds.items():
            if name == "unrelated_update":  # it tests the mean over all steps
                assert value == FOLLOWS
                continue
            wanted = np.log10(value) if name == "noise_dominated" else value
            assert by_name[name].threshold == pytest.approx(wanted, rel=1e-12)
            assert row.name in by_name[name].needs


def test_attributes_in_the_store_say_how_to_draw_the_diagnostic_of_a_users_probe(ds):
    """A diagnostic that spans orders of magnitude gets a logarithmic axis."""
    peak = ds["gradient_norm"].assign_attrs(long_name="largest element", units="1")
    plain, own = ds.assign(peak=peak), ds.assign(peak=peak.assign_attrs(logarithmic=1))
    assert plots.curve(plain, "peak").layout.yaxis.type != "log"
    assert plots.curve(own, "peak").layout.yaxis.type == "log"
    assert plots.heatmap(own, "peak").data[0].colorbar.title.text == "log10 peak<br> "


def test_a_line_skips_timesteps_at_which_no_cell_has_values(ds):
    """gradient_lag_cosine is defined at some steps only: with the others its line would consist of gaps."""
    ds["gradient_lag_cosine"] = ds["gradient_cosine"].where(ds["timestep"].isin(ds["timestep"].values[1::3]))
    ds["gradient_lag_cosine"][(*AT_GOOD, slice(None), 4)] = np.nan
    there = ds["timestep"].values[1::3]
    for trace in lines(plots.curve(ds, "gradient_lag_cosine")):
        assert trace.x.tolist() == there.tolist()
    gaps = [int(np.isnan(trace.y).sum()) for trace in lines(plots.curve(ds, "gradient_lag_cosine"))]
    assert sorted(gaps) == [0] * 15 + [1]  # a gap in one cell stays


def test_zeros_leave_room_on_a_logarithmic_axis(ds):
    ds["effective_strength"][..., 0, :, :] = 0
    ds["effective_strength"][(*AT_GOOD, slice(0, 3))] = 0
    numbers = plots.curve_numbers(ds, "effective_strength")
    figure = plots.draw_curve(numbers)
    assert len(lines(figure)) == 8  # cells of scale 0 have no value above 0
    assert figure.layout.yaxis.type == "log"
    bottom = 10 ** figure.layout.yaxis.range[0]
    smallest = numbers["mean"][numbers["mean"] > 0].min()
    assert bottom == pytest.approx(0.01 * smallest)
    for band in bands(figure):
        assert np.nanmin(band.y) >= 0.999 * bottom
    hover = of_cell(numbers, AT_GOOD)[["low", "high", "q05", "q95", "n"]]
    np.testing.assert_array_equal(lines(figure)[0].customdata, hover)  # the hover text is not cut off
    mean = of_cell(numbers, AT_GOOD)["mean"]
    np.testing.assert_array_equal(lines(figure)[0].y, mean.where(mean > 0))
    only_zeros = plots.curve(ds.isel(guidance_scale=[0]), "effective_strength")
    assert only_zeros.layout.yaxis.type != "log"


def test_a_diagnostic_that_was_not_recorded_is_refused(ds):
    with pytest.raises(GradscopeError, match="entropy is not in this store; the probe `belief` records it"):
        plots.curve(ds.drop_vars("entropy"), "entropy")


def test_heat_maps_show_the_means(ds):
    ds["gradient_norm"][(*AT_GOOD, slice(None), 3)] = 0
    guided = ds.isel(guidance_scale=[1])
    for name, transform in (("gradient_cosine", np.asarray), ("gradient_norm", np.log10)):
        (trace,) = plots.heatmap(guided, name).data
        with np.errstate(divide="ignore"):
            expected = transform(guided[name].mean("sample").values.reshape(8, TIMESTEPS))
        np.testing.assert_allclose(trace.z, np.where(np.isfinite(expected), expected, np.nan))
        assert trace.y[1] == "robust, x_t, adam, s = 0.5"
        assert trace.meta["cells"] == list(range(8))
        shown = trace.z[np.isfinite(trace.z)]
        assert (trace.zmin, trace.zmax) == (shown.min(), shown.max())
        assert trace.colorscale[0][1] == "#00224e"  # no threshold: neither end is alarming
        assert list(trace.x) == [str(t) for t in ds["timestep"].values]


def test_names_are_not_read_as_markup(ds):
    ds = ds.assign_coords(classifier=["<b>a</b>", "<script>"])
    assert lines(plots.curve(ds, "log_prob"))[0].name == "&lt;b&gt;a&lt;/b&gt;, no stabiliser"
    assert plots.heatmap(ds, "log_prob").data[0].y[-1].startswith("&lt;script&gt;")


def test_lines_of_two_runs_look_different():
    guided = evaluated().sel(guidance_scale=[0.5])
    runs = open_many({"one": guided, "two": guided.assign_attrs(run_id="2222")})
    for draw in (plots.curve(runs, "log_prob"), plots.curves(runs, "log_prob", list(cells(runs)))):
        shown = [trace for trace in draw.data if trace.showlegend is not False and trace.mode and trace.name]
        looks = {(t.line.color, t.line.dash, t.line.width, t.marker.symbol) for t in shown}
        assert len(looks) == len(shown) > 1
        assert any(trace.name.endswith("run two") for trace in shown)
