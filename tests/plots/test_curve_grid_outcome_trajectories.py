"""The numbers behind the figures, re-derived with plain NumPy; and that these are what is drawn."""

import json

import numpy as np
import pandas as pd
import pytest
from small_store import BAD, CELLS, CLASSES, GOOD, SAMPLES, SHAPE, TENSORS, TIMESTEPS, accuracy, evaluated, recorded
from statsmodels.stats.proportion import proportion_confint

from gradscope import plots
from gradscope.analysis import compare_all
from gradscope.analysis.curve_signatures import CURVES
from gradscope.analysis.direction_signatures import FOLLOWS
from gradscope.errors import GradscopeError
from gradscope.plots.style import DASHES, PALETTE
from gradscope.store import CELL_DIMS
from probes import CATALOGUE

AT_GOOD, AT_BAD = (0, 0, 0, 1), (1, 0, 0, 1)


@pytest.fixture
def ds():
    return evaluated()


def of_cell(numbers, at):
    keep = np.logical_and.reduce([numbers[dim] == CELLS[dim][i] for dim, i in zip(CELL_DIMS, at, strict=True)])
    return numbers[keep].reset_index(drop=True)


def lines(figure):
    return [trace for trace in figure.data if trace.mode == "lines" and trace.fill is None]


def bands(figure):
    return [trace for trace in figure.data if trace.fill == "toself"]


def test_curve_numbers_are_means_and_quantiles_over_samples(ds):
    ds["log_prob"][(*AT_GOOD, 2, 5)] = np.nan
    numbers = plots.curve_numbers(ds, "log_prob")
    assert len(numbers) == 16 * TIMESTEPS
    assert numbers.attrs == {"name": "log_prob", "label": "log_prob", "logarithmic": False, "on_a_grid": False}
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


def test_curves_are_drawn_as_they_are(ds):
    ds["log_prob"].attrs["units"] = "nat"
    numbers = plots.curve_numbers(ds, "log_prob")
    figure = plots.curve(ds, "log_prob")
    drawn = lines(figure)
    assert len(drawn) == 16
    colours, dashes = (
        dict(zip(CELLS["classifier"], PALETTE, strict=False)),
        dict(zip(["none", "adam"], DASHES, strict=False)),
    )
    for line, at in zip(drawn, np.ndindex(SHAPE), strict=True):
        rows = of_cell(numbers, at)
        np.testing.assert_array_equal(line.x, rows["timestep"])
        np.testing.assert_array_equal(line.y, rows["mean"])
        assert line.line.color == colours[CELLS["classifier"][at[0]]]
        assert line.line.dash == dashes[CELLS["stabilizer"][at[2]]]
        assert line.yaxis == {(0, 0): "y", (1, 0): "y2", (0, 1): "y3", (1, 1): "y4"}[at[1], at[3]]
    assert sorted(line.name for line in drawn if line.showlegend) == [
        "non_robust, adam", "non_robust, none", "robust, adam", "robust, none",
    ]  # fmt: skip
    assert {axis.autorange for axis in figure.select_xaxes()} == {"reversed"}
    assert figure.layout.yaxis.title.text == "log_prob [nat]"
    assert figure.layout.xaxis3.title.text == "timestep t, in sampling order"
    interval = bands(figure)[1]
    rows = of_cell(numbers, (0, 0, 0, 0))
    np.testing.assert_array_equal(interval.x[:-1], [*rows["timestep"], *rows["timestep"][::-1]])
    np.testing.assert_array_equal(interval.y[:-1], [*rows["high"], *rows["low"][::-1]])


def test_bands_are_interrupted_where_nothing_is_known(ds):
    ds["log_prob"][(*AT_GOOD, slice(None), 4)] = np.nan
    figure = plots.curve(ds.isel(classifier=[0], classifier_input=[0], stabilizer=[0], guidance_scale=[1]), "log_prob")
    t = ds["timestep"].values
    expected = [*t[:4], *t[:4][::-1], np.nan, *t[5:], *t[5:][::-1], np.nan]
    for band in bands(figure):
        np.testing.assert_array_equal(band.x, expected)


def test_a_cell_of_which_nothing_is_written_is_empty(ds):
    ds["log_prob"][AT_GOOD] = np.nan
    numbers = of_cell(plots.curve_numbers(ds, "log_prob"), AT_GOOD)
    assert numbers["n"].tolist() == [0] * TIMESTEPS
    assert numbers[["mean", "low", "high", "q05", "q95"]].isna().all(axis=None)
    assert len(lines(plots.curve(ds, "log_prob"))) == 16


def test_the_threshold_of_a_signature_is_drawn_with_its_curve(ds):
    ds["gradient_lag_cosine"] = ds["gradient_cosine"]
    shapes = plots.curve(ds, "gradient_lag_cosine").layout.shapes
    assert {shape.y0 for shape in shapes} == {0.4, 0.9999}
    assert not plots.curve(ds, "gradient_cosine").layout.shapes  # by which nothing is judged


def test_every_threshold_of_the_table_is_that_of_a_signature_that_looks_at_this_variable():
    by_name = {signature.name: signature for signature in CURVES}
    for row in CATALOGUE.values():
        for name, value in row.thresholds.items():
            if name == "unrelated_update":  # which looks at the mean over all steps
                assert value == FOLLOWS
                continue
            wanted = np.log10(value) if name == "noise_dominated" else value
            assert by_name[name].threshold == pytest.approx(wanted, rel=1e-12)
            assert row.name in by_name[name].needs


def test_a_diagnostic_of_a_users_own_probe_is_drawn_as_its_row_says(ds):
    """The row lies in the store, as attributes: orders of magnitude get a logarithmic axis."""
    peak = ds["gradient_norm"].assign_attrs(long_name="largest element", units="1")
    plain, own = ds.assign(peak=peak), ds.assign(peak=peak.assign_attrs(logarithmic=1))
    assert plots.curve(plain, "peak").layout.yaxis.type != "log"
    assert plots.curve(own, "peak").layout.yaxis.type == "log"
    assert plots.heatmap(own, "peak").data[0].colorbar.title.text == "log10 peak"


def test_a_line_leads_over_timesteps_at_which_no_cell_has_values(ds):
    """As in gradient_lag_cosine, which is taken at some steps alone: its line would be nothing but gaps."""
    ds["gradient_lag_cosine"] = ds["gradient_cosine"].where(ds["timestep"].isin(ds["timestep"].values[1::3]))
    ds["gradient_lag_cosine"][(*AT_GOOD, slice(None), 4)] = np.nan
    there = ds["timestep"].values[1::3]
    for trace in lines(plots.curve(ds, "gradient_lag_cosine")):
        assert trace.x.tolist() == there.tolist()
    gaps = [int(np.isnan(trace.y).sum()) for trace in lines(plots.curve(ds, "gradient_lag_cosine"))]
    assert sorted(gaps) == [0] * 15 + [1]  # a cell's own gap stays


def test_what_is_zero_leaves_room_for_the_rest_on_a_logarithmic_axis(ds):
    ds["effective_strength"][..., 0, :, :] = 0
    ds["effective_strength"][(*AT_GOOD, slice(0, 3))] = 0
    numbers = plots.curve_numbers(ds, "effective_strength")
    figure = plots.draw_curve(numbers)
    assert len(lines(figure)) == 8  # those of scale 0 have nothing to show
    assert figure.layout.yaxis.type == "log"
    bottom = 10 ** figure.layout.yaxis.range[0]
    smallest = numbers["mean"][numbers["mean"] > 0].min()
    assert bottom == pytest.approx(0.01 * smallest)
    for band in bands(figure):
        assert np.nanmin(band.y) >= 0.999 * bottom
    told = of_cell(numbers, AT_GOOD)[["low", "high", "q05", "q95", "n"]]
    np.testing.assert_array_equal(lines(figure)[0].customdata, told)  # what is read there is not cut off
    mean = of_cell(numbers, AT_GOOD)["mean"]
    np.testing.assert_array_equal(lines(figure)[0].y, mean.where(mean > 0))
    only_zeros = plots.curve(ds.isel(guidance_scale=[0]), "effective_strength")
    assert only_zeros.layout.yaxis.type != "log"


def test_a_diagnostic_that_was_not_recorded(ds):
    with pytest.raises(GradscopeError, match="entropy is not in this store; the probe `belief` records it"):
        plots.curve(ds, "entropy")


def test_heat_maps_show_the_means(ds):
    ds["gradient_norm"][(*AT_GOOD, slice(None), 3)] = 0
    for name, transform in (("gradient_cosine", np.asarray), ("gradient_norm", np.log10)):
        (trace,) = plots.heatmap(ds, name).data
        with np.errstate(divide="ignore"):
            expected = transform(ds[name].mean("sample").values.reshape(16, TIMESTEPS))
        np.testing.assert_allclose(trace.z, np.where(np.isfinite(expected), expected, np.nan))
        assert trace.y[1] == "robust, x_t, none, 0.5"
        assert list(trace.x) == [str(t) for t in ds["timestep"].values]
    assert plots.heatmap(ds, "gradient_cosine").data[0].zmid == 0


def test_trajectories_are_unit_gradients_and_images(ds):
    numbers = plots.trajectory_numbers(ds, [BAD, GOOD], sample=2, steps=4)
    assert numbers["cell"].values.tolist() == ["non_robust, x_t, none, 0.5", "robust, x_t, none, 0.5"]
    assert numbers["timestep"].values.tolist() == ds["timestep"].values[[0, 3, 6, 9]].tolist()
    seen = []
    for i, at in enumerate((AT_BAD, AT_GOOD)):
        for j, k in enumerate((0, 3, 6, 9)):
            g = ds["gradient"].values[at][2, k]
            norm = np.linalg.norm(g.ravel())
            assert float(numbers["gradient_norm"][i, j]) == pytest.approx(norm)
            unit = (g / norm).mean(axis=0)
            np.testing.assert_allclose(numbers["gradient"][i, j], unit)
            seen.append(np.abs(unit))
            x = ds["x_t"].values[at][2, k].transpose(1, 2, 0)
            np.testing.assert_allclose(numbers["x_t"][i, j], np.clip((x + 1) / 2, 0, 1))
    assert float(numbers["limit"]) == pytest.approx(np.quantile(seen, 0.99))


def test_trajectories_are_drawn_as_one_picture(ds):
    numbers = plots.trajectory_numbers(ds, [BAD, GOOD], sample=2, steps=4)
    figure = plots.draw_trajectories(numbers)
    picture, maps = figure.data
    z, g = np.asarray(picture.z), np.asarray(maps.z)
    assert z.shape[:2] == g.shape
    assert (maps.zmin, maps.zmax) == (-float(numbers["limit"]), float(numbers["limit"]))
    centres = dict(zip(figure.layout.yaxis.ticktext[3:], figure.layout.yaxis.tickvals[3:], strict=True))
    for j, x in enumerate(figure.layout.xaxis.tickvals):
        columns = slice(int(x - 3.5), int(x + 4.5))
        rows = slice(int(centres["gradient"] - 3.5), int(centres["gradient"] + 4.5))
        np.testing.assert_allclose(g[rows, columns], numbers["gradient"][1, j])
        assert not z[rows, columns].any()  # clear
        rows = slice(int(centres["x0-hat"] - 3.5), int(centres["x0-hat"] + 4.5))
        expected = np.round(255 * numbers["pred_original_sample"][1, j].values)
        np.testing.assert_array_equal(z[rows, columns, :3], expected)
        assert (z[rows, columns, 3] == 255).all()
        assert np.isnan(g[rows, columns]).all()
    assert np.isfinite(g).sum() == 2 * 4 * 64
    assert (z[..., 3] > 0).sum() == 2 * 2 * 4 * 64
    assert sum("norm" in annotation.text for annotation in figure.layout.annotations) == 8


def test_trajectories_of_one_channel_without_gradients_and_with_a_gradient_of_zero(ds):
    grey = ds.isel(channel=[0])
    grey["gradient"][(*AT_GOOD, 0, 0)] = 0
    numbers = plots.trajectory_numbers(grey, [GOOD], sample=0)
    assert numbers["x_t"].sizes["channel"] == 1
    assert not numbers["gradient"][0, 0].values.any()
    assert len(plots.draw_trajectories(numbers).data) == 2
    (picture,) = plots.trajectories(grey.drop_vars("gradient"), [GOOD], sample=0).data
    assert np.asarray(picture.z)[..., 3].any()


def test_trajectories_that_are_not_kept(ds):
    with pytest.raises(GradscopeError, match=f"sample {TENSORS}: its tensors are not kept in these cells; recording"):
        plots.trajectories(ds, [GOOD], sample=TENSORS)
    with pytest.raises(GradscopeError, match="sample: there is no 99; 0 to 15"):
        plots.trajectories(ds, [GOOD], sample=99)
    with pytest.raises(GradscopeError, match="cell: unknown classifier 'robst'; did you mean 'robust'"):
        plots.trajectories(ds, [GOOD | {"classifier": "robst"}], sample=0)
    with pytest.raises(GradscopeError, match="gradient is not in this store; the probe `gradient` records it"):
        plots.trajectories(ds.drop_vars(["gradient", "x_t", "pred_original_sample"]), [GOOD], sample=0)


def test_accuracies_count_finished_samples_with_wilsons_bounds(ds):
    ds["written"][(*AT_GOOD, 1, -1)] = 0
    numbers = plots.accuracy_numbers(ds)
    assert numbers.attrs["chance"] == 0.25
    for row, at in zip(numbers.to_dict("records"), np.ndindex(SHAPE), strict=True):
        assert row["n"] == SAMPLES - (at == AT_GOOD)
        for who in ("own", "judge"):
            share, low, high = accuracy(ds, who, at)
            assert (row[who], row[f"{who}_low"], row[f"{who}_high"]) == pytest.approx((share, low, high))
            n = SAMPLES - (at == AT_GOOD) - (who == "judge" and at == (0, 0, 0, 0))
            assert (low, high) == pytest.approx(proportion_confint(round(share * n), n, method="wilson"))


def test_accuracies_are_drawn_with_chance_and_control(ds):
    numbers = plots.accuracy_numbers(ds)
    figure = plots.accuracy(ds)
    judge, own, chance, control = figure.data
    guided = numbers[numbers["guidance_scale"] > 0]
    np.testing.assert_array_equal(judge.x, guided["judge"])
    np.testing.assert_allclose(judge.x + judge.error_x.array, guided["judge_high"])
    np.testing.assert_allclose(own.x - own.error_x.arrayminus, guided["own_low"])
    assert judge.marker.pattern.shape != own.marker.pattern.shape
    assert set(chance.x) == {0.25}
    assert set(control.x) == {numbers["judge"][0]}
    assert control.name.startswith("unguided control")
    without = plots.accuracy(ds.drop_vars("judge_prediction"))
    assert [trace.name for trace in without.data] == ["own", "chance 0.25"]
    with pytest.raises(GradscopeError, match="own_prediction is not in this store; `gradscope evaluate STORE` adds it"):
        plots.accuracy(recorded())


def test_confusion_counts_what_the_judge_sees(ds):
    counts = plots.confusion_numbers(ds, GOOD)
    assert counts.index.tolist() == counts.columns.tolist() == CLASSES
    for i, target in enumerate(CLASSES):
        for j, seen in enumerate(CLASSES):
            here = (ds["label"].values == i) & (ds["judge_prediction"].values[AT_GOOD] == j)
            assert counts.loc[target, seen] == here.sum()
    (trace,) = plots.confusion(ds, GOOD).data
    np.testing.assert_allclose(trace.z, counts.to_numpy() / counts.to_numpy().sum(axis=1, keepdims=True))
    with pytest.raises(GradscopeError, match="confusion is not in this store; `gradscope evaluate STORE` adds it"):
        plots.confusion(recorded(), GOOD)


def test_effects_are_the_rows_of_the_comparison(ds):
    table = compare_all(ds)
    figure = plots.draw_effects(table)
    assert [trace.name for trace in figure.data] == ["against none", "against x_t", "against x_t, none"]
    assert len({trace.marker.symbol for trace in figure.data}) == 3
    drawn = pd.concat(
        pd.DataFrame({"name": t.y, "x": t.x, "high": t.x + t.error_x.array, "low": t.x - t.error_x.arrayminus})
        for t in figure.data
    )
    expected = table.sort_values("against", key=lambda names: names.str.len(), kind="stable")
    for column, name in {"x": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}.items():
        assert sorted(drawn[column]) == pytest.approx(sorted(expected[name]))
    assert drawn["name"].tolist()[-2:] == ["robust: x0 + adam", "non_robust: x0 + adam"]
    assert {"robust: adam (x_t)", "robust: x0 (none)"} < set(drawn["name"])


def test_names_are_shown_as_they_are_and_not_as_markup(ds):
    ds = ds.assign_coords(classifier=["<b>a</b>", "<script>"])
    assert lines(plots.curve(ds, "log_prob"))[0].name == "&lt;b&gt;a&lt;/b&gt;, none"
    assert plots.heatmap(ds, "log_prob").data[0].y[-1].startswith("&lt;script&gt;")
    assert plots.accuracy(ds).data[0].y[-1].startswith("&lt;script&gt;")
    classes = ds.assign_coords({"class": ["<i>", "b", "c", "d"]})
    assert plots.confusion(classes, GOOD | {"classifier": "<script>"}).data[0].y[0] == "&lt;i&gt;"


def test_the_configuration_sends_nothing_anywhere():
    assert plots.PLOTLY_CONFIG == {"showSendToCloud": False, "displaylogo": False}


def test_a_judge_that_is_a_guide_is_named_so(ds):
    assert [trace.name for trace in plots.accuracy(ds).data][0] == "judge"
    ds.attrs["evaluation"] = json.dumps({"also_guides": {"judge": ["robust"]}})
    assert [trace.name for trace in plots.accuracy(ds).data][0] == "judge, which is a guide, too"
