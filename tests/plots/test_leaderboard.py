"""Figures of a leaderboard."""

import numpy as np
import pytest
import small_leaderboard

from gradscope.analysis.oracle import leaderboard_table
from gradscope.errors import GradscopeError
from gradscope.plots import ORACLE_FIGURES, oracle_curves, oracle_table
from gradscope.plots.leaderboard import SCORES, oracle_curves_numbers

ROWS = [
    {"guide": "clean", "guidance_method": "classifier@x_t", "stabilizer": "adam"},
    {"guide": "exact", "guidance_method": "<b>mine</b>", "stabilizer": "none"},
]


@pytest.fixture(scope="module")
def ds():
    return small_leaderboard.made()


def test_curves_are_those_of_the_store(ds):
    numbers = oracle_curves_numbers(ds, "update_cosine", ROWS, "vectors-overlapping-4", "guided")
    cell = ds.sel(mixture="vectors-overlapping-4", path="guided", **ROWS[0])
    first = numbers[numbers["guide"] == "clean"]
    np.testing.assert_allclose(first["mean"], cell.update_cosine)
    np.testing.assert_allclose(first[["low", "high"]], cell.update_cosine_interval, rtol=1e-6)
    assert numbers["timestep"].tolist() == ds.timestep.values.tolist() * 2


def test_over_mixtures_half_widths_add_in_squares(ds):
    numbers = oracle_curves_numbers(ds, "gradient_cosine", ROWS[:1])
    cell = ds.sel(path="control", **ROWS[0])
    np.testing.assert_allclose(numbers["mean"], cell.gradient_cosine.mean("mixture"), rtol=1e-6)
    np.testing.assert_allclose(numbers["high"] - numbers["mean"], np.sqrt(2 * 0.1**2) / 2, rtol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_every_score_is_drawn(ds, name):
    figure = oracle_curves(ds, name, ROWS)
    lines = [trace for trace in figure.data if trace.name]
    assert [line.name for line in lines] == ["clean, classifier@x_t, adam", "exact, &lt;b&gt;mine&lt;/b&gt;, none"]
    assert lines[0].line.color != lines[1].line.color
    assert lines[0].line.dash != lines[1].line.dash


def test_the_table_is_that_of_the_analysis(ds):
    numbers = ORACLE_FIGURES["oracle_table"].numbers(ds, "points-separated-2")
    assert numbers.equals(leaderboard_table(ds, "points-separated-2"))
    assert len(oracle_table(ds).data[0].x) == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "accuracy"}, "name: got 'accuracy'"),
        ({"rows": []}, "rows: from 1 to 6"),
        ({"rows": [{"guide": "clean"}]}, "rows: each names guide, guidance_method, stabilizer"),
        ({"rows": [ROWS[0] | {"guide": "robust"}]}, "guide: got 'robust'"),
        ({"mixture": "moons"}, "mixture: got 'moons'"),
        ({"path": "lost"}, "path: got 'lost'"),
    ],
)
def test_what_is_not_there_is_named(ds, change, said):
    with pytest.raises(GradscopeError, match=said):
        oracle_curves(ds, **{"name": "update_cosine", "rows": ROWS} | change)


def test_another_dataset_is_refused(ds):
    with pytest.raises(GradscopeError, match="right must have the dimensions"):
        oracle_table(ds.drop_vars("right"))
