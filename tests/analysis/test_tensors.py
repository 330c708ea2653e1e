"""Diagnostics from tensors, against plain loops and against the probes."""

import numpy as np
import pytest
from probed_store import CELLS, KEPT, SAMPLES, TIMESTEPS

from gradscope.analysis import stability, tensors
from gradscope.errors import GradscopeError


def test_tensors_give_the_values_that_the_probes_recorded(store):
    found = stability.from_tensors(store)
    assert found.attrs["absent"] == {}
    kept = {"sample": slice(KEPT)}
    assert len(found) == 11
    for name in found.data_vars:
        got, expected = found[name].isel(kept).values, store[name].isel(kept).values
        if name == "score_cosine":  # the clamp hides model_output in the first five samples
            assert np.isnan(got[..., :5, :]).any()
            expected = np.where(np.isnan(got), np.nan, expected)
        np.testing.assert_allclose(got, expected, rtol=3e-6, atol=1e-6, err_msg=name)
        assert np.isnan(found[name].isel(sample=slice(KEPT, None))).all()
    assert np.isfinite(found["score_cosine"].values[..., 5:7, :]).all()
    cosine = found["gradient_cosine"].values[..., :KEPT, :]
    assert np.isnan(cosine[..., 1, :]).all()  # zero gradients
    assert np.flatnonzero(np.isnan(cosine[1, 0, 1, 0, 3])).tolist() == [0, 4, 5]  # an infinite gradient at step 4
    assert np.isfinite(cosine[..., [0, 2, 4, 5, 6], 1:]).all()
    again = stability.curves(store.assign(found), ["high_frequency_share"])
    assert again["high_frequency_share_n"].values[0, 0, 0, 0, :6].tolist() == [6, 6, 6, 6, 5, 6]


def test_values_beyond_one_leave_the_clamp_unknown(recorded):
    recorded["pred_original_sample"] = recorded["pred_original_sample"] * 2
    found = stability.from_tensors(recorded)["clipped_fraction"].values[..., :KEPT, :]
    beyond = (np.abs(recorded["pred_original_sample"].values[..., :KEPT, :, :, :, :]) > 1).any(axis=(-3, -2, -1))
    assert beyond.any()
    np.testing.assert_array_equal(np.isnan(found), beyond)


def test_tensors_of_every_other_step_have_no_successive_diagnostics(recorded):
    recorded["written"][..., 1::2] = 1
    found = stability.from_tensors(recorded.drop_vars("update"))
    assert found.attrs["absent"]["update_norm"] == (
        "update is not in this store; the probe `update` records it: add it under `probes`"
    )
    assert "tensor_every" in found.attrs["absent"]["gradient_cosine"]
    assert "gradient_lipschitz" not in found
    norms = found["gradient_norm"].values[..., :KEPT, :]
    assert np.isnan(norms[..., 1::2]).all()
    np.testing.assert_allclose(norms[..., ::2], recorded["gradient_norm"].values[..., :KEPT, ::2], rtol=1e-6)


def test_a_gap_affects_only_its_neighbours(recorded):
    recorded["written"][0, 0, 0, 0, 2, 10] = 0
    found = stability.from_tensors(recorded)["update_cosine"].values[0, 0, 0, 0, 2]
    assert np.flatnonzero(np.isnan(found)).tolist() == [0, 10, 11]


def test_a_store_without_tensors_is_refused(recorded):
    with pytest.raises(GradscopeError, match="gradient is not in this store; the probe `gradient` records it"):
        stability.from_tensors(recorded[["gradient_norm", "written"]])


@pytest.mark.parametrize(("read", "piece"), [(1, 1), (2**24, 2**20), (10**4, 5000)])
def test_cosines_equal_those_of_a_loop_for_any_size_of_the_parts(store, monkeypatch, read, piece):
    monkeypatch.setattr(tensors, "_READ_BYTES", read)
    monkeypatch.setattr(tensors, "_PIECE_BYTES", piece)
    store["written"][0, 0, 0, 0, 2, 10] = 0
    found = stability.from_tensors(store, ["gradient_cosine", "update_norm"])
    assert set(found) == {"gradient_cosine", "update_norm"}
    there, kept = store["written"].values == 3, store["gradient"].values.astype(float)
    update = store["update"].values.astype(float)
    for cell in np.ndindex(CELLS):
        for i in range(SAMPLES):
            for k in range(TIMESTEPS):
                at = (*cell, i, k)
                norm = np.sqrt((update[at] ** 2).sum()) if there[at] else np.nan
                assert found["update_norm"].values[at] == pytest.approx(norm, rel=1e-12, nan_ok=True)
                cosine = np.nan
                if k and there[at] and there[(*cell, i, k - 1)]:
                    a, b = kept[at].ravel(), kept[(*cell, i, k - 1)].ravel()
                    with np.errstate(invalid="ignore"):
                        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
                assert found["gradient_cosine"].values[at] == pytest.approx(cosine, rel=1e-12, abs=1e-14, nan_ok=True)
    assert np.isfinite(found["gradient_cosine"].values[..., 0, 1:]).all()  # the gradients are near 1e-36


def test_only_the_necessary_tensors_are_read(recorded):
    found = stability.from_tensors(recorded[["gradient", "alphas_cumprod", "written"]], ["gradient_cosine"])
    assert list(found) == ["gradient_cosine"]
    assert found.attrs["absent"] == {}
    found = stability.from_tensors(recorded.drop_vars("x_t"), ["gradient_lipschitz", "zero_fraction"])
    assert list(found) == ["zero_fraction"]
    assert "the probe `x_t` records it" in found.attrs["absent"]["gradient_lipschitz"]
    with pytest.raises(GradscopeError, match="update is not in this store; the probe `update` records it"):
        stability.from_tensors(recorded.drop_vars("update"), ["update_cosine"])
    with pytest.raises(
        GradscopeError, match="cannot compute 'gradient_cosin' from tensors; did you mean 'gradient_cosine'"
    ):
        stability.from_tensors(recorded, ["gradient_cosin"])
