"""Samples that are not images, further dimensions of cells, repeated timesteps, and repetitions."""

import json
import shutil

import numpy as np
import pytest
import torch
import trajectory_store
import xarray as xr
import zarr
from trajectory_store import SAMPLES, TIMES, grid, tensors

import gradscope
from gradscope.analysis.selections import restore_dims
from gradscope.errors import GradscopeError
from gradscope.recording.recorder import Recorder
from gradscope.store import Array, Frame, Schema, StoreWriter, cell_dims, create, open_store, sample_dims
from gradscope.store.dims import names_of_sample
from gradscope.store.locations.location import locate
from gradscope.store.progress import finished
from gradscope.verification.verify import verify
from probes import TENSOR, GuidedStep, Norm, Probe, Tensor, Variable


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return trajectory_store.save(tmp_path_factory.mktemp("saved") / "s.zarr")


@pytest.fixture
def recorded(saved, tmp_path):
    """A copy that the test may change."""
    return shutil.copytree(saved, tmp_path / "s.zarr")


def test_dimensions_get_the_users_names_or_the_usual_ones():
    assert names_of_sample((2,)) == ("axis",)
    assert names_of_sample((3, 100)) == ("channel", "time")
    assert names_of_sample((3, 8, 8)) == ("channel", "height", "width")
    assert names_of_sample((3, 4, 8, 8)) == ("channel", "frame", "height", "width")
    assert names_of_sample((16, 7), ("horizon", "action")) == ("horizon", "action")
    for shape, dims, why in [
        ((1,) * 5, (), "name the 5 dimensions"),
        ((16, 7), ("horizon",), "a name for each of the 2"),
        ((16, 7), ("a", "a"), "a name for each of the 2"),
        ((16, 7), ("sample", "a"), "got 'sample'"),
        ((16, 7), ("a b", "a"), "got 'a b'"),
    ]:
        with pytest.raises(GradscopeError, match=f"sample_dims: .*{why}"):
            names_of_sample(shape, dims)
    with pytest.raises(GradscopeError, match="further: 'label' cannot name"):
        grid(further={"label": ("a",)})


def test_plain_xarray_and_gradscope_read_the_same(recorded):
    ds, plain = gradscope.open(recorded), xr.open_zarr(recorded)
    over = ("classifier", "classifier_input", "stabilizer", "guidance_scale", "method", "sample", "timestep")
    assert ds["gradient"].dims == plain["gradient"].dims == (*over, "horizon", "action")
    assert ds["gradient_norm"].dims == ds["written"].dims == over
    assert cell_dims(ds) == over[:5]
    assert sample_dims(ds) == ("horizon", "action")
    stored, norms = plain["gradient"].values, ds["gradient_norm"].values
    for cell in np.ndindex(1, 1, 2, 2, 2):
        for sample in range(SAMPLES):
            for step in range(len(TIMES)):
                wanted = tensors(cell, sample - sample % 2, step)[sample % 2].numpy()
                np.testing.assert_array_equal(stored[(*cell, sample, step)], wanted.astype("f4"))
                assert norms[(*cell, sample, step)] == pytest.approx(np.sqrt((wanted**2).sum()), rel=1e-6)
    np.testing.assert_array_equal(ds["gradient"].values, stored)
    assert ds["image"].dims == (*over[:6], "horizon", "action")


def test_a_timestep_that_occurs_twice_is_selected_by_step(recorded):
    ds = gradscope.open(recorded)
    np.testing.assert_array_equal(ds["timestep"].values, TIMES)
    np.testing.assert_array_equal(ds.sel(step=3)["gradient_norm"].values, ds["gradient_norm"].values[..., 3])
    np.testing.assert_allclose(ds["log_snr"].values, -2 * np.log(TIMES))
    np.testing.assert_array_equal(ds["signal"].values, np.ones(5))


@pytest.mark.slow
def test_analyses_see_the_further_dimension(recorded):
    ds = gradscope.open(recorded)
    rows = gradscope.summary(ds)
    assert rows["samples"].dims == ("classifier", "classifier_input", "stabilizer", "guidance_scale", "method")
    assert (rows["samples"] == SAMPLES).all()
    cell = {"stabilizer": "adam", "guidance_scale": 0.5, "method": "mpgd"}
    curves = gradscope.stability.curves(ds, "gradient_norm")
    expected = ds["gradient_norm"].sel(cell).values.astype(float).mean(axis=-2).squeeze()
    np.testing.assert_allclose(curves["gradient_norm"].sel(cell).values.squeeze(), expected)
    found = gradscope.compare(ds, {**cell, "method": "dps"}, cell)
    assert found.samples == SAMPLES
    with pytest.raises(GradscopeError, match="cell: which method\\? one of: dps, mpgd"):
        gradscope.compare(ds, cell, {"stabilizer": "none", "guidance_scale": 0.5})
    report = gradscope.report(ds)
    assert list(report.cells.columns[:6]) == [*cell_dims(ds), "samples"]
    assert len(report.cells) == 8
    assert "mpgd" in report._repr_html_()
    frame = gradscope.signatures(ds)
    assert not len(frame) or "method" in frame
    figure = ds.gradscope.plot_curve("gradient_norm")
    assert {"value, no stabiliser, method dps", "value, adam, method mpgd"} <= {trace.name for trace in figure.data}


@pytest.mark.slow
def test_verify_finds_damage(recorded):
    found = verify(recorded)
    assert found.findings == ()
    assert found.values > 0
    chunk = next((recorded / "gradient").glob("c.*"))
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    assert [finding.array for finding in verify(recorded).findings] == ["gradient"]


def test_an_interrupted_run_is_resumed(tmp_path):
    own, probes = grid(), [Norm("gradient")]
    options = {"device": torch.device("cpu")}

    def record(recorder, cells):
        for cell in cells:
            for first in range(0, SAMPLES, 2):
                hook = recorder.trajectory(cell, first)
                for step, timestep in enumerate(TIMES):
                    g = tensors(cell, first, step)
                    hook(GuidedStep(step=step, timestep=timestep, x_t=g, gradient=g))

    cells = list(np.ndindex(own.cells))
    with Recorder(tmp_path / "s.zarr", own, probes, **options) as recorder:
        record(recorder, cells[:3])
    with Recorder(tmp_path / "s.zarr", own, probes, resume=True, **options) as recorder:
        assert recorder.finished.shape == (1, 1, 2, 2, 2, 3)
        left = [cell for cell in cells if not recorder.finished[cell].all()]
        assert left == cells[3:]
        record(recorder, left)
    assert finished(locate(tmp_path / "s.zarr")).all()


class Spread(Probe):
    """A user's own probe, for samples of any shape."""

    variables = (
        Variable("spread", "spread of the gradient", "max |g| - min |g|", logarithmic=True, low=0.0),
        Variable("doubled", "twice the gradient", "2 g", dims=TENSOR),
    )

    def measure(self, step, state):
        rows = step.rows("gradient").abs()
        return {"spread": (rows.amax(1) - rows.amin(1)).float(), "doubled": 2 * step.gradient}, state


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2,), (3, 50), (3, 4, 4), (2, 3, 4, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_samples_of_any_shape_are_recorded(tmp_path, shape, dtype):
    own = grid(sample_shape=shape, sample_dims=(), further={}, timestep=np.array([9, 5, 1]),
               alphas_cumprod=np.array([0.1, 0.5, 0.9]), sigma=np.ones(3), signal=None, noise=None)  # fmt: skip
    rng = np.random.default_rng(0)
    g = rng.normal(size=(*own.cells, SAMPLES, 3, *shape))
    with Recorder(
        tmp_path / "s.zarr", own, [Spread(), Tensor("gradient")], device=torch.device("cpu"), dtype=dtype
    ) as recorder:
        for cell in np.ndindex(own.cells):
            for first in range(0, SAMPLES, 2):
                hook = recorder.trajectory(cell, first)
                for step, timestep in enumerate((9, 5, 1)):
                    x = torch.from_numpy(g[(*cell, slice(first, first + 2), step)])
                    hook(GuidedStep(step=step, timestep=timestep, x_t=x, gradient=x))
    ds = gradscope.open(tmp_path / "s.zarr")
    tolerance = 1e-6 if dtype == "float32" else 2e-3
    np.testing.assert_allclose(ds["doubled"].values, 2 * g, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ds["signal"].values ** 2, [0.1, 0.5, 0.9])
    assert ds["timestep"].dtype == np.int64
    assert ds["doubled"].dims[6:] == names_of_sample(shape)
    assert ds["spread"].attrs["logarithmic"] == 1
    assert ds["spread"].attrs["valid_min"] == 0
    assert verify(tmp_path / "s.zarr").sound
    ds.drop_encoding().to_netcdf(tmp_path / "s.nc", engine="h5netcdf")  # netCDF has no mappings
    again = xr.open_dataset(tmp_path / "s.nc", engine="h5netcdf")
    np.testing.assert_array_equal(again["spread"].values, ds["spread"].values)


def test_a_step_of_another_shape_is_refused(tmp_path):
    with Recorder(tmp_path / "s.zarr", grid(), [Norm("gradient")], device=torch.device("cpu")) as recorder:
        hook = recorder.trajectory((0, 0, 0, 0, 0), 0)
        x = torch.zeros(2, 2, 8)
        with pytest.raises(GradscopeError, match=r"x_t of shape \(2, 8, 2\) by the grid, got \(2, 2, 8\)"):
            hook(GuidedStep(step=0, timestep=80.0, x_t=x, gradient=x))
    assert not (tmp_path / "s.zarr").exists()


REPEATS = (1, 3, 2, 1, 3)


def test_repetitions_of_a_timestep(tmp_path):
    """Each step has its own number of repetitions; the rest stays unwritten. Analyses see the last repetition."""
    own = grid(repeats=3, further={}, timestep=np.arange(5)[::-1], alphas_cumprod=np.linspace(0.1, 0.9, 5))
    with Recorder(
        tmp_path / "s.zarr", own, [Tensor("gradient"), Norm("gradient")], device=torch.device("cpu")
    ) as recorder:
        for cell in np.ndindex(own.cells):
            for first in range(0, SAMPLES, 2):
                hook = recorder.trajectory(cell, first)
                for step, count in enumerate(REPEATS):
                    for repeat in range(count):
                        g = tensors(cell, first, step, repeat)
                        hook(GuidedStep(step=step, timestep=4 - step, repeat=repeat, x_t=g, gradient=g))
    ds = open_store(tmp_path / "s.zarr")
    assert ds["written"].dims[-2:] == ("timestep", "repeat")
    used = np.arange(3) < np.array(REPEATS)[:, None]
    np.testing.assert_array_equal(ds["written"].values == 3, np.broadcast_to(used, ds["written"].shape))
    np.testing.assert_array_equal(ds["written"].values == 0, np.broadcast_to(~used, ds["written"].shape))
    cell, sample = (0, 0, 1, 1), 4
    gradient, norm = ds["gradient"].values, ds["gradient_norm"].values
    for step, count in enumerate(REPEATS):
        for repeat in range(3):
            stored = gradient[(*cell, sample, step, repeat)]
            wanted = tensors(cell, 4, step, repeat)[0].numpy() if repeat < count else np.full((8, 2), np.nan)
            np.testing.assert_array_equal(stored, wanted.astype("f4"))
    last = restore_dims(ds)
    assert "repeat" not in last.dims
    for step, count in enumerate(REPEATS):
        np.testing.assert_array_equal(last["gradient_norm"].isel(timestep=step).values, norm[..., step, count - 1])
    assert finished(locate(tmp_path / "s.zarr")).all()
    assert verify(tmp_path / "s.zarr").findings == ()
    assert (gradscope.summary(ds)["samples"] == SAMPLES).all()


def test_more_repetitions_than_the_grid_has_are_refused(tmp_path):
    with Recorder(tmp_path / "s.zarr", grid(further={}), [Norm("gradient")], device=torch.device("cpu")) as recorder:
        x = torch.ones(2, 8, 2)
        with pytest.raises(GradscopeError, match="step 1 is repeated, repeat 1; the grid has repeats=0"):
            recorder.trajectory((0, 0, 0, 0), 0)(GuidedStep(step=1, timestep=24.4, repeat=1, x_t=x, gradient=x))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cell_dims": ["classifier"]}, "cell_dims must be classifier, classifier_input"),
        ({"cell_dims": "classifier"}, "cell_dims must be"),
        ({"sample_dims": []}, "sample_dims must be one to eight names"),
        ({"sample_dims": ["a", "a"]}, "sample_dims must be one to eight names"),
        ({"sample_dims": ["../x"]}, "sample_dims must be one to eight names"),
        ({"sample_dims": ["height", "width"]}, "gradient: its dimensions are"),
    ],
)
def test_strange_dimensions_of_a_strangers_store_are_refused(recorded, change, why):
    document = json.loads((recorded / "zarr.json").read_text())
    document["attributes"] |= change
    (recorded / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(GradscopeError, match=why):
        open_store(recorded)


def test_frames_of_repeated_steps_leave_nothing_of_earlier_chunks(tmp_path, monkeypatch):
    """Later chunks reuse the staged memory."""
    from gradscope.store import schema as module

    monkeypatch.setattr(module, "_TENSOR_CHUNK_BYTES", 2 * 3 * 16 * 4)
    own = grid(repeats=3, further={}, timestep=np.arange(5)[::-1])
    schema = Schema(own, (Array("gradient", "tensor", {"units": "1"}, dims=("horizon", "action")),
                          Array("norm", "scalar", {"units": "1"})))  # fmt: skip
    assert schema.tensor_chunk == (1, 2)
    create(tmp_path / "s.zarr", schema, {})
    writer = StoreWriter(tmp_path / "s.zarr", schema)
    for step, count in enumerate((3, 3, 1, 1, 2)):
        for repeat in range(count):
            value = 10 * step + repeat
            arrays = {"gradient": np.full((2, 8, 2), value, "f4"), "norm": np.full(2, value, "f4")}
            writer.submit(Frame((0, 0, 0, 0), 0, step, arrays, repeat=repeat))
    writer.close()
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    wanted = [[0, 1, 2], [10, 11, 12], [20, np.nan, np.nan], [30, np.nan, np.nan], [40, 41, np.nan]]
    np.testing.assert_array_equal(group["gradient"][0, 0, 0, 0, 0, :, :, 0, 0], wanted)
    np.testing.assert_array_equal(group["norm"][0, 0, 0, 0, 1], wanted)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sample_dims": ("signal", "noise")}, "sample_dims: .* got 'signal'"),
        ({"sample_dims": ("label", "x")}, "sample_dims: .* got 'label'"),
        ({"sample_dims": ("written", "x")}, "sample_dims: .* got 'written'"),
        ({"further": {"bound": ("a",)}}, "further: 'bound' cannot name"),
        ({"further": {"horizon": ("a",)}}, "further: 'horizon' cannot name"),
        ({"repeats": -1}, "repeats: must be a whole number"),
        ({"signal": np.ones(4)}, r"signal: one number for each of 5 timesteps, got \(4,\)"),
        ({"sigma": np.ones((5, 1))}, r"sigma: one number for each of 5 timesteps, got \(5, 1\)"),
    ],
)
def test_grids_that_no_store_can_hold_are_refused(changes, why):
    with pytest.raises(GradscopeError, match=why):
        grid(**changes)
