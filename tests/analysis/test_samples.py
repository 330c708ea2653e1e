"""The table of samples: verdicts and early means, by loops over the stored arrays."""

import numpy as np
import pandas as pd
import pytest
from small_store import BAD, CLASSES, GOOD, evaluated, recorded

from gradscope.analysis import samples
from gradscope.analysis.cells import cells, place
from gradscope.analysis.signatures import find
from gradscope.analysis.synthetic import trajectories
from gradscope.errors import GradscopeError


@pytest.mark.parametrize(("early", "steps"), [(0.25, 3), (0.3, 3), (1, 10), (1e-6, 1)])
def test_rows_are_those_of_loops(early, steps):
    ds = evaluated().isel(classifier_input=[0], stabilizer=[0])
    ds["written"][0, 0, 0, 1, 5, -1] = 0  # not finished
    ds["gradient_norm"][0, 0, 0, 1, 2, :2] = [np.nan, np.inf]
    table = samples(ds, early, ["gradient_norm", "log_prob"])
    assert len(table) == 4 * 16
    rows = iter(table.to_dict("records"))
    for cell in cells(ds):
        one = ds.isel(place(ds, cell))
        for i in range(16):
            row = next(rows)
            assert {dim: row[dim] for dim in cell} == cell
            assert (row["sample"], row["target"]) == (i, CLASSES[int(ds.label[i])])
            seen = int(one.judge_prediction[i])
            if seen < 0 or not (one.written[i] > 0).all():
                assert pd.isna(row["right"])
                assert row["seen"] is None or pd.isna(row["seen"])
            else:
                assert (row["seen"], row["right"]) == (CLASSES[seen], seen == int(ds.label[i]))
            for name in ("gradient_norm", "log_prob"):
                values = [float(v) for v in one[name][i, :steps] if np.isfinite(v)]
                expected = sum(values) / len(values) if values else np.nan
                assert row[f"early_{name}"] == pytest.approx(expected, nan_ok=True)


def test_failures_and_early_diagnostics_in_one_line():
    ds = trajectories("convinced", samples=64, accuracy=0.5)
    means = ds.gradscope.samples(early=0.5).groupby("right").early_log_prob.mean()
    right = (ds.judge_prediction == ds.label).values.squeeze()
    early = ds.log_prob.values.squeeze()[:, :25].mean(axis=1)
    assert means[True] == pytest.approx(early[right].mean())
    assert means[False] == pytest.approx(early[~right].mean())


@pytest.mark.slow
def test_findings_are_those_of_the_cell_and_its_class():
    table = samples(evaluated(), names=[])
    named = {f.signature for f in find(evaluated()) if f.cell == BAD and f.severity != "remark" and not f.target_class}
    in_cell = (table[list(BAD)] == pd.Series(BAD)).all(axis=1)
    assert all(set(text.split(", ")) >= named for text in table[in_cell].findings)
    assert not table[(table[list(GOOD)] == pd.Series(GOOD)).all(axis=1)].findings.str.contains("unstable").any()
    by_class = samples(trajectories("classes_gone"), names=[])
    assert set(by_class[by_class.findings.str.contains("class_failure")].target) == {"0", "1"}


def test_without_verdicts_and_on_selections():
    table = recorded().sel(classifier="robust").isel(sample=[3, 5], timestep=slice(4)).gradscope.samples(0.5, "margin")
    assert "right" not in table
    assert table["sample"].tolist() == [3, 5] * 8
    assert set(table.classifier) == {"robust"}


@pytest.mark.parametrize("early", [0, 1.5, -0.1, "0.2", True, np.nan])
def test_a_share_is_necessary(early):
    with pytest.raises(GradscopeError, match=r"early: takes a share of the timesteps above 0 and up to 1"):
        samples(evaluated(), early)


def test_unknown_diagnostics_are_refused():
    with pytest.raises(GradscopeError, match="the probe `belief` records it"):
        samples(evaluated(), names="entropy")
    with pytest.raises(GradscopeError, match="gradient is not a number over cells, samples and timesteps"):
        samples(evaluated(), names="gradient")
