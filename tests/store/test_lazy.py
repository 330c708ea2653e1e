"""Lazy variables: every way to read them gives the same values, masked by the marker at the time of reading."""

import pickle

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

from gradscope.store import Array, Frame, Grid, Schema, StoreWriter, create, lazy, open_store
from gradscope.store import schema as module
from gradscope.store.chunks import Chunks

IMAGE = ("channel", "height", "width")
SHAPE = (1, 1, 2, 1, 7, 23)
CELL_DIMS = ("classifier", "classifier_input", "stabilizer", "guidance_scale")


def grid():
    return Grid(
        classifier=("robust",), classifier_input=("x_t",), stabilizer=("none", "adam"), guidance_scale=(0.4,),
        label=np.arange(7) % 3, seed=np.arange(7), timestep=np.arange(23)[::-1], alphas_cumprod=np.linspace(0, 1, 23),
        sigma=np.linspace(1, 0, 23), sample_shape=(3, 2, 2), batch_size=4,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["none", "lz4"])
def half(request, tmp_path_factory):
    """A store with missing steps, which no test changes, and the values that reading it must give."""
    path = tmp_path_factory.mktemp("half") / "s.zarr"
    arrays = (
        Array("gradient", "tensor", {"units": "1"}, dims=IMAGE),
        Array("update", "tensor", {"units": "2"}, dims=IMAGE, dtype="float16"),
        Array("update_exponent", "scalar", {}, dtype="int8"),
        Array("predicted_class", "scalar", {}, dtype="int16"),
        Array("spectrum", "scalar", {}, dims=("frequency",), sizes={"frequency": 3}),
    )
    schema = Schema(grid(), arrays, tensor_samples=6, codec=request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TENSOR_CHUNK_BYTES", 10 * 3 * 2 * 2 * 4)  # chunks of one sample and eight steps
        create(path, schema, {})
    group = zarr.open_group(path, mode="r+")
    rng = np.random.default_rng(0)
    written = rng.choice([0, 1, 3], SHAPE).astype(np.uint8)
    raw = {array.name: rng.integers(-9, 9, schema.shape(array)).astype(array.dtype) for array in arrays}
    for name, values in {**raw, "written": written}.items():
        group[name][...] = values
    there, scaled = written[..., None, None, None] == 3, raw["update"].astype("float32")
    expected = {
        "gradient": np.where(there, raw["gradient"], np.float32(np.nan)),
        "update": np.where(there, scaled * 2.0 ** raw["update_exponent"][..., None, None, None], np.nan),
        "update_exponent": np.where(written > 0, raw["update_exponent"], -1),
        "predicted_class": np.where(written > 0, raw["predicted_class"], -1),
        "spectrum": np.where(written[..., None] > 0, raw["spectrum"], np.float32(np.nan)),
    }
    dtypes = {name: np.dtype("float32" if name == "update" else values.dtype) for name, values in raw.items()}
    return path, {name: values.astype(dtypes[name]) for name, values in expected.items()}


SELECTIONS = [
    {},
    {"sample": 4},
    {"sample": 4, "timestep": 11, "stabilizer": 1, "classifier": 0, "classifier_input": 0, "guidance_scale": 0},
    {"sample": -1, "timestep": slice(None, None, -1)},
    {"sample": slice(1, 6, 2), "timestep": slice(5, 22, 4)},
    {"timestep": slice(7, 7)},
    {"sample": [5, 1], "timestep": [0, 22, 3]},
]


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize(
    "way", ["values", "compute", "loaded with others", "two steps", "pickled", "arithmetic", "a copy"]
)
def test_every_way_to_read_gives_the_same_values(half, selection, way):
    path, expected = half
    ds = open_store(path)
    for name, values in expected.items():
        dims = ds[name].dims
        wanted = xr.Variable(dims, values).isel(selection).values
        if way == "two steps":
            found = ds[name].isel({k: v for k, v in selection.items() if k != "timestep"})
            got = found.isel({k: v for k, v in selection.items() if k == "timestep"}).values
        else:
            found = ds[name].isel(selection)
            got = {
                "values": lambda found=found: found.values,
                "compute": lambda found=found: found.compute().values,
                "loaded with others": lambda name=name: ds.isel(selection).compute()[name].values,
                "pickled": lambda found=found: pickle.loads(pickle.dumps(found)).values,
                "arithmetic": lambda found=found: (found + 0).values,
                "a copy": lambda found=found: found.copy(deep=True).values,
            }[way]()
        assert dask.is_dask_collection(found.variable)
        assert got.dtype == found.dtype == values.dtype
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("change", ["replaced", "transposed", "masked", "renumbered"])
def test_changed_variables_leave_the_store_unchanged(half, change):
    path, expected = half
    found, values = open_store(path)["gradient"], expected["gradient"].copy()
    if change == "replaced":
        found.values = values = values + 1
    elif change == "transposed":
        found, values = found.transpose(..., "sample"), np.moveaxis(values, 4, -1)
    elif change == "masked":
        found, values = found.where(found > 0), np.where(values > 0, values, np.nan)
    else:
        found, values = found.assign_coords(sample=np.arange(7)[::-1]).sel(sample=1), values[:, :, :, :, 5]
    np.testing.assert_array_equal(found.values, values)
    np.testing.assert_array_equal(open_store(path)["gradient"].values, expected["gradient"])


def test_opening_leaves_dasks_scheduler_alone(half):
    """Within a task, dask's scheduler waits for that very task: a recording by workers hung forever."""

    def scheduler(*_, **__):
        raise AssertionError("asked")

    with dask.config.set(scheduler=scheduler):
        ds = open_store(half[0])
        assert ds["label"].values.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_chunks_are_those_of_the_store_or_several_within_a_cell(half, monkeypatch):
    ds = open_store(half[0])
    stored = zarr.open_group(half[0], mode="r")["gradient"].chunks
    assert stored == (1, 1, 1, 1, 1, 8, 3, 2, 2)
    assert ds["gradient"].variable.chunks == ((1,), (1,), (1, 1), (1,), (7,), (23,), (3,), (2,), (2,))
    monkeypatch.setattr(lazy, "_TASK_BYTES", 1)
    ds = open_store(half[0])
    assert ds["gradient"].variable.chunks == ((1,), (1,), (1, 1), (1,), (1,) * 7, (8, 8, 7), (3,), (2,), (2,))
    part = ds["gradient"].isel(stabilizer=1, sample=slice(1, 6), timestep=slice(5, 22, 4)).variable
    assert part.chunks == ((1,), (1,), (1,), (1,) * 5, (1, 2, 2), (3,), (2,), (2,))
    assert type(ds["gradient"].variable) is xr.Variable


def test_a_selection_reads_what_it_selects_alone(half, monkeypatch):
    path, expected = half
    found = open_store(path)["gradient"].isel(stabilizer=0, sample=4)
    asked = []
    original = Chunks.select
    monkeypatch.setattr(Chunks, "select", lambda self, where: asked.append(where) or original(self, where))
    np.testing.assert_array_equal(found.values, expected["gradient"][:, :, 0, :, 4])
    assert all(where[4] in (4, slice(4, 5, 1)) for where in asked)
    assert sorted(len(where) for where in asked) == [6, 9]  # the marker and the values of three chunks


def test_values_appear_when_they_are_written(tmp_path):
    arrays = (Array("gradient", "tensor", {}, dims=IMAGE), Array("norm", "scalar", {}))
    schema, path = Schema(grid(), arrays), tmp_path / "s.zarr"
    create(path, schema, {})
    ds = open_store(path)
    lazily = ds["gradient"].isel(stabilizer=0, sample=slice(4))
    frames = [Frame((0, 0, 0, 0), 0, k, {"gradient": np.full((4, 3, 2, 2), k, "f4"), "norm": np.ones(4, "f4")})
              for k in range(13)]  # fmt: skip
    assert np.isnan(lazily.values).all()
    writer = StoreWriter(path, schema)
    for frame in frames:
        writer.submit(frame)
    writer.close()
    got = lazily.values[0, 0, 0, 0, :, 0, 0, 0]
    np.testing.assert_array_equal(got, [*range(13), *[np.nan] * 10])
    zarr.open_group(path, mode="r+")["written"][0, 0, 0, 0, 0, 5] = 1  # its tensors are missing
    assert np.isnan(lazily.values[0, 0, 0, 0, 5]).all()
    assert ds["norm"].values[0, 0, 0, 0, 0, 5] == 1


def test_a_store_opened_without_dask_has_the_same_values(half):
    """Masked, scaled and by class as with dask; tensors and coordinates, too."""
    path, *_ = half
    ours, theirs = open_store(path, dask=False), open_store(path)
    assert set(ours.variables) == set(theirs.variables)
    assert not any(variable.chunks for variable in ours.variables.values())
    assert any(variable.chunks for variable in theirs.variables.values())
    part = {"sample": [3, 1], "timestep": slice(None, None, 4)}
    xr.testing.assert_identical(ours.isel(part).load(), theirs.isel(part).load())
    xr.testing.assert_identical(ours.load(), theirs.load())


@pytest.mark.parametrize("most", [1, 30, 100, 700, 2**20])
def test_small_chunks_are_one_task_of_dask(half, most, monkeypatch):
    """The chunks of dask are whole chunks of the store, joined from the last dimension on, within a limit."""
    path, expected = half
    monkeypatch.setattr(lazy, "_TASK_BYTES", most)
    ds, group = open_store(path), zarr.open_group(path)
    for name, values in expected.items():
        stored, read, shape = group[name].chunks, ds[name].data.chunksize, group[name].shape
        joined = [-(-have // size) for have, size in zip(read, stored, strict=True)]
        assert all(have % size == 0 or have == end for have, size, end in zip(read, stored, shape, strict=True))
        assert np.prod(joined) == 1 or np.prod(joined) * np.prod(stored) * ds[name].dtype.itemsize <= most
        assert joined[:4] == [1] * 4  # cells stay apart
        first = next(axis for axis, times in enumerate(joined) if times > 1) if max(joined) > 1 else len(shape)
        assert read[first + 1 :] == shape[first + 1 :]
        np.testing.assert_array_equal(ds[name].transpose(*group[name].metadata.dimension_names).values, values)
    if most == 2**20:
        assert {name: ds[name].data.npartitions for name in expected} == dict.fromkeys(expected, 2)
