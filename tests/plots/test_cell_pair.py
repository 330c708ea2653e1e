"""Figures of two cells: difference along t, samples as pairs, and all diagnostics."""

import numpy as np
import pytest
from scipy import stats
from small_store import BAD, GOOD, SAMPLES, TIMESTEPS

from gradscope.analysis import compare
from gradscope.errors import GradscopeError
from gradscope.plots.cell_pair import quantity
from gradscope.plots.difference import difference, difference_numbers, draw_difference
from gradscope.plots.forest import draw_forest, forest, forest_numbers
from gradscope.plots.pairs import draw_pairs, pairs, pairs_numbers

A, B = {"stabilizer": "a"}, {"stabilizer": "b"}


def test_differences_are_means_over_the_samples_finished_in_both(pair):
    pair["written"][0, 0, 0, 0, 3, -1] = 0
    pair["gradient_cosine"][0, 0, 1, 0, 7, 2] = np.nan
    numbers = difference_numbers(pair, "gradient_cosine", A, B, highlight=[3, 4, 5])
    values = pair["gradient_cosine"].values[0, 0, :, 0]
    apart = np.delete(values[1] - values[0], 3, axis=0)
    np.testing.assert_allclose(numbers["mean"], np.nanmean(apart, axis=0))
    assert numbers["n"].tolist() == [69, 69, 68, *[69] * 17]
    np.testing.assert_allclose(numbers["highlighted"], apart[3:5].mean(axis=0))  # 3 is not finished in a
    assert (numbers.attrs["samples"], numbers.attrs["highlighted"]) == (69, 2)
    half = 1.96 * np.nanstd(apart, axis=0) / 69**0.5
    np.testing.assert_allclose(numbers["high"] - numbers["low"], 2 * half, rtol=0.2)


def test_clusters_are_those_of_the_comparison(pair):
    numbers = difference_numbers(pair, "gradient_cosine", A, B)
    t = pair["timestep"].values
    (cluster,) = [c for c in numbers.attrs["clusters"] if c["p"] <= 0.05]
    assert (cluster["first"], cluster["last"]) == (t[5], t[11])
    assert cluster["estimate"] == pytest.approx(0.3, abs=0.01)
    compared = [(c.first, c.last, c.p) for c in compare(pair, A, B).curves["gradient_cosine"]]
    assert [(c["first"], c["last"], c["p"]) for c in numbers.attrs["clusters"]] == compared


def test_only_significant_clusters_are_shaded(pair):
    figure = difference(pair, "gradient_cosine", A, B)
    (shade,) = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    t = pair["timestep"].values
    assert (shade.x0, shade.x1) == ((t[4] + t[5]) / 2, (t[11] + t[12]) / 2)
    assert [a.text for a in figure.layout.annotations] == ["p = 0.0005"]
    same = pair.isel(timestep=slice(0, 5))
    assert [s for s in difference(same, "gradient_cosine", A, B).layout.shapes if s.type == "rect"] == []


def test_the_legend_says_where_too_few_samples_are_finite_for_a_p(pair, ds):
    legend = difference(ds, "log_prob", GOOD, BAD).data[1].name
    assert legend.endswith("no p: N up to 16, below 64")
    pair["gradient_cosine"][0, 0, 1, 0, :20, :4] = np.nan
    legend = difference(pair, "gradient_cosine", A, B).data[1].name
    assert legend.endswith("tested where N is at least 64: 16 of 20 timesteps")
    assert "tested" not in difference(pair, "log_prob", A, B).data[1].name


def test_difference_draws_the_numbers(pair):
    numbers = difference_numbers(pair, "gradient_norm", A, B, highlight=[1])
    figure = draw_difference(numbers)
    band, mean, own = figure.data
    np.testing.assert_array_equal(mean.y, numbers["mean"])
    np.testing.assert_array_equal(band.y[:-1], [*numbers["high"], *numbers["low"][::-1]])
    np.testing.assert_array_equal(own.y, numbers["highlighted"])
    assert figure.layout.yaxis.title.text == "log10 gradient_norm, b − a"
    assert figure.layout.title.text == "a: synthetic, x_t, a, s = 0.3  ·  b: synthetic, x_t, b, s = 0.3"
    assert figure.layout.meta == {"timestep": True}
    assert len(difference(pair, "gradient_norm", A, B).data) == 2


def test_norms_are_compared_as_logarithms(pair):
    pair["gradient_norm"][0, 0, 1] *= 100
    numbers = difference_numbers(pair, "gradient_norm", A, B)
    np.testing.assert_allclose(numbers["mean"], 2, rtol=1e-6)
    assert quantity(pair, "update_norm").title == "log10 update_norm"
    assert quantity(pair, "effective_strength").title == "effective_strength"  # compare does not take its logarithm
    assert quantity(pair, "final log_prob").variable == "log_prob"


def test_pairs_are_means_over_the_timesteps_finite_in_both(pair):
    pair["gradient_cosine"][0, 0, 1, 0, 7, 2:9] = np.nan
    pair["written"][0, 0, 1, 0, 3, 4] = 0
    numbers = pairs_numbers(pair, "gradient_cosine", A, B, selected=[5, 6])
    assert numbers["sample"].tolist() == [s for s in range(70) if s != 3]
    values = pair["gradient_cosine"].values[0, 0, :, 0]
    row = numbers.set_index("sample").loc[7]
    kept = [0, 1, *range(9, 20)]
    assert (row["a"], row["b"]) == pytest.approx(tuple(values[:, 7, kept].mean(axis=1)))
    assert numbers.loc[numbers["selected"], "sample"].tolist() == [5, 6]
    difference_of_means = (numbers["b"] - numbers["a"]).mean()
    scalars = compare(pair, A, B).scalars.set_index("diagnostic")
    assert difference_of_means == pytest.approx(scalars.loc["gradient_cosine", "estimate"])
    final = pairs_numbers(pair, "final log_prob", A, B)
    np.testing.assert_allclose(final["a"], np.delete(pair["log_prob"].values[0, 0, 0, 0, :, -1], 3))


def test_verdicts_of_pairs_are_those_of_the_judge(pair):
    label = pair["label"].values
    pair["judge_prediction"][0, 0, 0, 0, [0, 11]] = (label[[0, 11]] + 1) % 4
    pair["judge_prediction"][0, 0, 0, 0, 1] = label[1]
    pair["judge_prediction"][0, 0, 1, 0, 12] = -1
    verdict = pairs_numbers(pair, "gradient_cosine", A, B).set_index("sample")["verdict"]
    assert verdict[[0, 1, 11, 12]].tolist() == ["wrong in both", "right in a only", "right in b only", "no verdict"]
    right = (pair["judge_prediction"] == pair["label"]).values[0, 0, :, 0]
    assert (verdict == "right in both").sum() == (right[0] & right[1]).sum()
    unjudged = pairs_numbers(pair.drop_vars("judge_prediction"), "gradient_cosine", A, B)
    assert set(unjudged["verdict"]) == {"no verdict"}


def test_pairs_draw_the_numbers_with_samples_and_selection(pair):
    numbers = pairs_numbers(pair, "gradient_cosine", A, B, selected=[0, 20])
    figure = draw_pairs(numbers)
    drawn, emphasised = {}, []
    for trace in figure.data:
        samples = list(trace.customdata)
        drawn |= dict(zip(samples, zip(trace.x, trace.y, [trace.name] * len(samples), strict=True), strict=True))
        emphasised += [samples[k] for k in trace.selectedpoints]
    assert sorted(emphasised) == [0, 20]
    for row in numbers.to_dict("records"):
        x, y, name = drawn[row["sample"]]
        assert (x, y) == (row["a"], row["b"])
        assert name.startswith(row["verdict"])
    assert len({trace.marker.symbol for trace in figure.data}) == len(figure.data) > 1
    identity = figure.layout.shapes[0]
    assert (identity.x0, identity.x1) == (identity.y0, identity.y1) == figure.layout.xaxis.range
    assert {trace.selectedpoints for trace in pairs(pair, "gradient_cosine", A, B).data} == {None}


def test_the_forest_is_the_comparison_over_the_spread_of_its_differences(pair):
    numbers = forest_numbers(pair, A, B)
    scalars = compare(pair, A, B).scalars
    assert numbers["diagnostic"].tolist() == ["judge's accuracy", *scalars["diagnostic"]]
    columns = ["estimate", "low", "p_holm"]
    np.testing.assert_array_equal(numbers[columns][1:], scalars[columns])
    right = (pair["judge_prediction"] == pair["label"]).values[0, 0, :, 0].astype(float)
    accuracy, first = compare(pair, A, B).accuracy, numbers.iloc[0]
    assert (first["mean_a"], first["mean_b"]) == pytest.approx(tuple(right.mean(axis=1)))
    assert (first["estimate"], first["low"], first["p_holm"]) == (accuracy.estimate, accuracy.low, accuracy.p)
    assert first["d"] == pytest.approx(accuracy.estimate / np.std(right[1] - right[0], ddof=1))
    row = numbers.set_index("diagnostic").loc["gradient_cosine"]
    values = pair["gradient_cosine"].values[0, 0, :, 0].mean(axis=-1)
    spread = np.std(values[1] - values[0], ddof=1)
    assert (row["d"], row["d_low"]) == pytest.approx((row["estimate"] / spread, row["low"] / spread))
    assert np.isnan(numbers.set_index("diagnostic").loc["score_cosine", "d"])  # it is the same in both cells


def test_the_forest_draws_intervals_and_the_change_in_words(pair):
    numbers = forest_numbers(pair, A, B)
    figure = draw_forest(numbers)
    (trace,) = figure.data
    np.testing.assert_allclose(trace.x + trace.error_x.array, numbers["d_high"])
    np.testing.assert_allclose(trace.x - trace.error_x.arrayminus, numbers["d_low"])
    words = {a.y: a.text for a in figure.layout.annotations}
    assert words["score_cosine"] == "no difference"
    assert words["gradient_cosine"].startswith("+0.1")
    assert ", p " in words["gradient_cosine"]
    symbols = dict(zip(trace.y, trace.marker.symbol, strict=True))
    assert (symbols["gradient_cosine"], symbols["score_cosine"]) == ("diamond", "diamond-open")


def test_figures_are_empty_if_no_sample_is_finished_in_both(ds):
    ds["written"][0, 0, 0, 1, :, -1] = 0
    numbers = difference_numbers(ds, "log_prob", GOOD, BAD)
    assert numbers["n"].tolist() == [0] * TIMESTEPS
    assert numbers["mean"].isna().all()
    draw_difference(numbers)
    assert len(pairs_numbers(ds, "log_prob", GOOD, BAD)) == 0
    assert pairs(ds, "log_prob", GOOD, BAD).data == ()
    assert set(forest_numbers(ds, GOOD, BAD)["n"]) == {0}
    forest(ds, GOOD, BAD)


def test_a_cell_against_itself_is_refused(ds):
    for make in (forest, lambda *cells: difference(ds, "log_prob", *cells[1:])):
        with pytest.raises(GradscopeError, match="both are the cell"):
            make(ds, GOOD, GOOD)
    with pytest.raises(GradscopeError, match="final log_prob is not in this store"):
        difference(ds, "final log_prob", GOOD, BAD)
    assert len(pairs_numbers(ds, "final log_prob", GOOD, BAD)) == SAMPLES


@pytest.fixture
def two(pair):
    """The cells of `pair` as two stores whose samples are pairs."""
    pair = pair.assign_coords(seed=("sample", np.arange(70)))
    return pair.isel(stabilizer=[0]), pair.isel(stabilizer=[1])


def test_pairs_of_two_stores_are_drawn_like_those_of_one(pair, two):
    one, other = two
    shuffled = other.isel(sample=np.arange(70)[::-1]).assign_coords(sample=np.arange(70))
    for numbers in (difference_numbers, pairs_numbers):
        expected = numbers(pair, "gradient_cosine", A, B)
        found = numbers(one, "gradient_cosine", A, B, other=shuffled)
        np.testing.assert_allclose(found.select_dtypes("number"), expected.select_dtypes("number"))
        assert found.attrs["b"] == expected.attrs["b"] + " (other store)"
    expected, found = forest_numbers(pair, A, B), forest_numbers(one, A, B, other=shuffled)
    np.testing.assert_allclose(found["d"], expected["d"])
    verdicts = pairs_numbers(one, "gradient_cosine", A, B, other=shuffled)["verdict"]
    assert verdicts.tolist() == pairs_numbers(pair, "gradient_cosine", A, B)["verdict"].tolist()


def test_samples_that_are_no_pairs_have_welchs_interval_and_no_scatter_plot(two):
    one, other = two
    other = other.assign_coords(seed=other["seed"] + 1000).isel(sample=slice(66))
    numbers = difference_numbers(one, "gradient_cosine", A, B, other=other)
    a, b = (ds["gradient_cosine"].values[0, 0, 0, 0].astype(float) for ds in (one, other))
    for t in range(20):
        wanted = stats.ttest_ind(b[:, t], a[:, t], equal_var=False).confidence_interval()
        assert tuple(numbers.loc[t, ["low", "high"]]) == pytest.approx(tuple(wanted))
    np.testing.assert_allclose(numbers["mean"], b.mean(axis=0) - a.mean(axis=0))
    figure = draw_difference(numbers)
    assert figure.data[1].name == "mean of 70 and 66, 95 % interval<br>no p: samples are not pairs"
    assert [shape for shape in figure.layout.shapes if shape.type == "rect"] == []
    row = forest_numbers(one, A, B, other=other).set_index("diagnostic").loc["gradient_cosine"]
    means = a.mean(axis=1), b.mean(axis=1)
    pooled = ((means[0].var(ddof=1) + means[1].var(ddof=1)) / 2) ** 0.5
    assert row["d"] == pytest.approx((means[1].mean() - means[0].mean()) / pooled)
    with pytest.raises(GradscopeError, match="not pairs: no samples have the same seed and label in both stores"):
        pairs(one, "gradient_cosine", A, B, other=other)


def test_the_difference_has_the_timesteps_of_both_stores(pair, two):
    one, other = two
    numbers = difference_numbers(one, "gradient_cosine", A, B, other=other.isel(timestep=slice(0, 20, 3)))
    expected = difference_numbers(pair, "gradient_cosine", A, B)[::3]
    assert numbers["timestep"].tolist() == expected["timestep"].tolist()
    np.testing.assert_allclose(numbers["mean"], expected["mean"])
    apart = other.assign_coords(timestep=other["timestep"] + 1)
    with pytest.raises(GradscopeError, match="no timestep in common"):
        difference(one, "gradient_cosine", A, B, other=apart)
