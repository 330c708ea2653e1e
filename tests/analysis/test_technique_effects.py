"""The table of techniques: every guided cell against its references."""

import numpy as np
import pytest
from different_cells import mid_p, store, verdicts, with_distances
from small_store import CELLS
from statsmodels.stats.multitest import multipletests

from gradscope.analysis import compare_all
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS


@pytest.fixture
def ds():
    return store()


def test_every_cell_is_compared_with_its_reference(ds):
    ds = with_distances(ds)
    table = compare_all(ds)
    made = {tuple(r) for r in table[[*CELL_DIMS, "against"]].itertuples(index=False)}
    expected = set()
    for classifier in CELLS["classifier"]:
        expected |= {(classifier, i, "adam", 0.5, "none") for i in ("x_t", "x0")}
        expected |= {(classifier, "x0", s, 0.5, "x_t") for s in ("none", "adam")}
        expected |= {(classifier, "x0", "adam", 0.5, "x_t, none")}
    assert made == expected
    assert len(table) == 10
    for r in table.to_dict("records"):
        at = tuple(CELLS[dim].index(r[dim]) for dim in CELL_DIMS)
        references = {
            "none": (at[0], at[1], 0, at[3]),
            "x_t": (at[0], 0, at[2], at[3]),
            "x_t, none": (at[0], 0, 0, at[3]),
        }
        reference = references[r["against"]]
        names = {
            "none": ("adam", r["classifier_input"]),
            "x_t": ("x0", r["stabilizer"]),
            "x_t, none": ("x0 + adam", ""),
        }
        assert (r["technique"], r["at"]) == names[r["against"]]
        a, b = verdicts(ds, reference), verdicts(ds, at)
        assert r["accuracy"] == pytest.approx(b.mean() - a.mean())
        assert r["p"] == pytest.approx(mid_p(a, b))
        change = ds["kd_extractor"].values[at] - ds["kd_extractor"].values[reference]
        assert r["kd_extractor"] == pytest.approx(change)
        assert r["kd_extractor_low"] < change < r["kd_extractor_high"]
        assert "fd_extractor" not in r  # it is biased, more so with fewer samples
    np.testing.assert_allclose(table["p_holm"], multipletests(table["p"], method="holm")[1])
    assert (table["note"] == "").all()
    best = table.set_index(["classifier", "classifier_input", "stabilizer", "against"]).loc[
        ("robust", "x_t", "adam", "none")
    ]
    assert best["accuracy_low"] > 0
    assert best["p_holm"] < 0.05


def test_a_table_without_an_evaluation_says_so(ds):
    table = compare_all(ds.drop_vars("judge_prediction"))
    assert table["accuracy"].isna().all()
    assert set(table["note"]) == {"judge_prediction is not in this store; `gradscope evaluate STORE` adds it"}
    assert (table["n"] == 80).all()
    assert "kd_extractor" not in table


def test_the_baseline_must_be_there(ds):
    with pytest.raises(GradscopeError, match="no stabilizer 'nine'; did you mean 'none'"):
        compare_all(ds, baseline="nine")
    against_adam = compare_all(ds, baseline="adam")
    assert set(against_adam["against"]) == {"adam", "x_t", "x_t, adam"}
    assert set(compare_all(ds.sel(stabilizer=["adam"]))["against"]) == {"x_t"}
    assert len(compare_all(ds.sel(stabilizer=["adam"], classifier_input=["x_t"]))) == 0
