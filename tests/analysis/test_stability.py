"""Curves, diagnostics from tensors and the permutation null, against plain loops and against the probes."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from gradscope.analysis import stability, tensors
from gradscope.analysis.cells import cells, place
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS
from probes import CATALOGUE, NAMED, FiniteFraction, GuidedStep, Trace

CELLS = (2, 1, 2, 1)
OVER = (*CELL_DIMS, "sample", "timestep")
IMAGE = ("channel", "height", "width")
SAMPLES, KEPT, TIMESTEPS, SHAPE = 12, 7, 23, (3, 8, 8)


def coordinates(samples=SAMPLES, timesteps=TIMESTEPS):
    return {
        "classifier": ["robust", "non_robust"],
        "classifier_input": ["x_t"],
        "stabilizer": ["none", "adam"],
        "guidance_scale": [0.4],
        "timestep": np.arange(timesteps)[::-1] * 10,
        "alphas_cumprod": ("timestep", np.linspace(0.01, 0.99, timesteps)),
        "label": ("sample", np.arange(samples) % 4),
    }


@pytest.fixture
def recorded():
    """A store as the recorder fills it, with all values of the probes, and tensors of the first 7 samples."""
    generator = torch.Generator().manual_seed(0)
    groups = ("norms", "cosines", "fractions", "sensitivity", "spectrum")
    probes = [FiniteFraction(), *(probe for group in groups for probe in NAMED[group]())]
    tensors = ("gradient", "update", "x_t", "pred_original_sample")
    data = {name: np.full((*CELLS, SAMPLES, TIMESTEPS, *SHAPE), np.nan, dtype=np.float32) for name in tensors}
    coords = coordinates()
    for cell in np.ndindex(CELLS):
        trace = Trace(probes)
        for k in range(TIMESTEPS):
            step = guided_step(k, generator, coords["alphas_cumprod"][1][k])
            trace(step)
            for name in tensors:
                data[name][(*cell, slice(KEPT), k)] = getattr(step, name)[:KEPT].numpy()
        for name in (variable.name for probe in probes for variable in probe.variables if not variable.dims):
            data.setdefault(name, np.full((*CELLS, SAMPLES, TIMESTEPS), np.nan, dtype=np.float32))
            data[name][cell] = trace[name].numpy()
    written = np.full((*CELLS, SAMPLES, TIMESTEPS), 1, dtype=np.uint8)
    written[..., :KEPT, :] = 3
    variables = {name: ((*OVER, *IMAGE) if name in tensors else OVER, values) for name, values in data.items()}
    return xr.Dataset({**variables, "written": (OVER, written)}, coords=coords)


def guided_step(k, generator, alphas_cumprod):
    """A random step of consistent fields, with zero, tiny, infinite and clamped tensors among its samples."""

    def image(scale=1.0):
        return scale * torch.randn(SAMPLES, *SHAPE, generator=generator)

    gradient, x_t, x_0 = image(1e-6), image(), image(0.5)
    gradient[0] *= 1e-30
    gradient[1] = 0
    gradient[2, :, :, ::2] = 0
    if k == 4:
        gradient[3, 0, 0, 0] = torch.inf
    x_0[:5] = x_0[:5].clamp(-1, 1)
    x_0[5:] = x_0[5:].clamp(-0.99, 0.99)
    epsilon = (x_t - alphas_cumprod**0.5 * x_0) / (1 - alphas_cumprod) ** 0.5
    return GuidedStep(
        step=k, timestep=k, x_t=x_t, gradient=gradient, update=image(), pred_original_sample=x_0, clip_range=1.0,
        model_output=epsilon, num_train_timesteps=1000,
    )  # fmt: skip


@pytest.fixture(params=["in memory", "chunked"])
def store(request, recorded):
    if request.param == "in memory":
        return recorded
    chunks = dict.fromkeys(CELL_DIMS, 1)
    tensors = ["gradient", "update", "x_t", "pred_original_sample"]
    return recorded.assign(
        {n: recorded[n].chunk({**chunks, "sample": 4 if n in tensors else 6, "timestep": 10}) for n in recorded}
    )


def test_tensors_give_what_the_probes_recorded(store):
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


def test_curves_equal_those_of_a_loop(store):
    found = stability.curves(store, ["update_cosine", "gradient_norm"])
    for cell in np.ndindex(CELLS):
        for k in range(TIMESTEPS):
            for name in ("update_cosine", "gradient_norm"):
                x = store[name].values[(*cell, slice(None), k)].astype(float)
                x = x[np.isfinite(x)]
                at = (*cell, k)
                assert found[f"{name}_n"].values[at] == len(x)
                if not len(x):
                    assert np.isnan(found[name].values[at])
                    assert np.isnan(found[f"{name}_interval"].values[at]).all()
                    continue
                assert found[name].values[at] == pytest.approx(x.mean())
                np.testing.assert_allclose(
                    found[f"{name}_quantile"].values[at], np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95])
                )
                low, high = found[f"{name}_interval"].values[at]
                wanted = stats.ttest_1samp(x, 0).confidence_interval()
                assert (low, high) == pytest.approx(tuple(wanted), rel=1e-6)
    assert found["update_cosine_n"].values[0, 0, 0, 0].tolist() == [0] + [12] * 22
    assert found["gradient_norm_n"].values[0, 0, 0, 0, 4] == 11
    assert (found["samples"] == SAMPLES).all()


def test_curves_of_all_scalars_count_only_written_samples(recorded):
    recorded["predicted_class"] = (OVER, np.zeros((*CELLS, SAMPLES, TIMESTEPS), dtype=np.int16))
    later = recorded["update_norm"][1, 0, 1, 0, 3:, 12:]
    recorded["written"][1, 0, 1, 0, 3:, 12:] = 0
    later[:] = np.nan
    found = stability.curves(recorded)
    names = {str(name) for name in recorded.data_vars if recorded[name].dims == OVER} - {"written", "predicted_class"}
    assert {name for name in found.data_vars if f"{name}_n" in found} == names
    assert found["samples"].values[1, 0, 1, 0].tolist() == [12] * 12 + [3] * 11
    assert found["update_norm_n"].values[1, 0, 1, 0].tolist() == [12] * 12 + [3] * 11
    with pytest.raises(GradscopeError, match="update_nom is not in this store; did you mean 'update_norm'"):
        stability.curves(recorded, ["update_nom"])


def test_the_null_pairs_different_samples(store):
    null = stability.permutation_null(store, {"classifier": "non_robust", "stabilizer": "adam"})
    gradient = store["gradient"].values[1, 0, 1, 0, :KEPT].astype(float).reshape(KEPT, TIMESTEPS, -1)
    for k in range(1, TIMESTEPS):
        cosines = []
        for i in range(KEPT):
            for j in set(range(KEPT)) - {i}:
                a, b = gradient[i, k], gradient[j, k - 1]
                with np.errstate(invalid="ignore"):
                    cosines.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        cosines = np.array(cosines)[np.isfinite(cosines)]
        assert null["null_n"].values[k] == len(cosines)
        assert null["null_mean"].values[k] == pytest.approx(cosines.mean())
        np.testing.assert_allclose(null["null_interval"].values[k], np.quantile(cosines, [0.025, 0.975]))
    assert np.isnan(null["null_mean"].values[0])
    assert null["null_n"].values[2] == 30  # one of seven gradients is zero throughout
    assert null["null_n"].values[4] == 25  # and one is infinite at this step


def noise_store(samples, timesteps=6, drift=0.0):
    """One cell of white noise, with a direction that all samples share."""
    rng = np.random.default_rng(0)
    gradient = rng.normal(size=(1, 1, 1, 1, samples, timesteps, *SHAPE)) + drift
    return xr.Dataset(
        {
            "gradient": ((*OVER, *IMAGE), gradient),
            "written": (OVER, np.full(gradient.shape[:6], 3, dtype=np.uint8)),
        },
        coords=coordinates(samples, timesteps) | {"classifier": ["robust"], "stabilizer": ["none"]},
    )


def test_the_null_of_white_noise_is_known():
    """The interval is 1.96 times the standard deviation 1/sqrt(d); a shared direction raises the mean."""
    null = stability.permutation_null(noise_store(60), {})
    half = 1.96 / np.prod(SHAPE) ** 0.5
    np.testing.assert_allclose(null["null_interval"].values[1:], np.tile([-half, half], (5, 1)), rtol=0.1)
    assert (null["null_n"].values[1:] == 60 * 59).all()
    shared = stability.permutation_null(noise_store(60, drift=1.0), {})
    np.testing.assert_allclose(shared["null_mean"].values[1:], 0.5, atol=0.02)


def test_the_null_draws_no_more_samples_than_it_needs():
    ds = noise_store(60)
    null = stability.permutation_null(ds, {}, draws=100)
    assert (null["null_n"].values[1:] == 11 * 10).all()
    xr.testing.assert_identical(null, stability.permutation_null(ds, {}, draws=100))
    assert not null.equals(stability.permutation_null(ds, {}, draws=100, seed=1))


def test_missing_variables_name_the_probe_that_records_them(recorded):
    stability.require(recorded, "gradient", "written")
    message = "reference_cosine is not in this store; the probe `reference` records it: add it under `probes`"
    with pytest.raises(GradscopeError, match=message):
        stability.require(recorded, "gradient", "reference_cosine")
    with pytest.raises(GradscopeError, match="fd_extractor is not in this store; `gradscope evaluate STORE` adds it"):
        stability.require(recorded, "fd_extractor")
    with pytest.raises(GradscopeError, match="judge_prediction is not in this store; `gradscope evaluate STORE`"):
        stability.require(recorded, "judge_prediction")
    with pytest.raises(GradscopeError, match="the run has no judge"):
        stability.require(recorded.assign(own_prediction=0), "judge_prediction")


def test_the_table_names_the_probe_that_records_each_diagnostic():
    options = {"reference": {"classifier": torch.nn.Identity()}, "layers": {"names": ["classifier.head"]}}
    there = {
        variable.name: entry
        for entry, make in NAMED.items()
        for probe in make(**options.get(entry, {}))
        for variable in probe.variables
    }
    assert there == {row.name: row.probe for row in CATALOGUE.values() if row.probe}


def test_written_says_how_much_is_written(recorded):
    whole = stability.written(recorded)
    assert whole.complete
    assert str(whole) == "complete: 12 samples in each of 4 cells"
    recorded["written"][1, 0, 0, 0, 4:, 10:] = 0
    recorded["written"][1, 0, 1, 0] = 0
    part = stability.written(recorded.chunk())
    assert not part.complete
    assert part.share == pytest.approx((2 * 12 * 23 + 12 * 23 - 8 * 13) / (4 * 12 * 23))
    assert part.finished.values.ravel().tolist() == [12, 12, 4, 0]
    assert str(part) == "66 % written: 2 of 4 cells complete, 0 to 12 of 12 samples finished per cell"


def test_cells_are_found_by_name(recorded):
    every = list(cells(recorded))
    assert len(every) == 4
    assert every[1] == dict(zip(CELL_DIMS, ("robust", "x_t", "adam", 0.4), strict=True))
    assert [tuple(place(recorded, cell).values()) for cell in every] == list(np.ndindex(CELLS))
    wanted = {"classifier": "robust", "stabilizer": "adam", "guidance_scale": 0.1 + 0.3}
    assert place(recorded, wanted) == dict(zip(CELL_DIMS, (0, 0, 1, 0), strict=True))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"classifier": "robust"}, "cell: which stabilizer\\? one of: none, adam"),
        ({"classifier": "robst", "stabilizer": "adam"}, "unknown classifier 'robst'; did you mean 'robust'"),
        ({"stabiliser": "adam"}, "unknown dimension 'stabiliser'; did you mean 'stabilizer'"),
        ({"classifier": "robust", "stabilizer": "adam", "guidance_scale": 0.5}, "unknown guidance_scale 0.5; .*0.4"),
        ({"classifier": "robust", "stabilizer": "adam", "guidance_scale": "0.4"}, "unknown guidance_scale '0.4'"),
    ],
)
def test_unknown_cells_are_refused(recorded, cell, message):
    with pytest.raises(GradscopeError, match=message):
        place(recorded, cell)
