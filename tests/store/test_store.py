"""Stores are written by frames, and read by gradscope and by plain xarray."""

import warnings

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr
from random_store import ARRAYS, IMAGE, frames, grid, write

from gradscope.errors import GradscopeError
from gradscope.store import (
    Schema,
    StoreWriter,
    create,
    open_store,
    set_attributes,
)


def test_schemas_are_read_by_plain_xarray_without_a_warning(tmp_path):
    schema = Schema(grid(), ARRAYS)
    whole, blocks = frames(schema)
    write(tmp_path / "s.zarr", schema, blocks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = xr.open_zarr(tmp_path / "s.zarr")
    dims = ("classifier", "classifier_input", "stabilizer", "guidance_scale", "sample", "timestep")
    assert ds["gradient"].dims == (*dims, *IMAGE)
    assert ds["norm"].dims == dims
    assert ds["spectrum"].dims == (*dims, "frequency")
    assert ds["image"].dims == (*dims[:-1], *IMAGE)
    assert list(ds["classifier"].values) == ["robust", "non_robust"]
    assert {"step", "alphas_cumprod", "sigma", "label", "seed"} <= set(ds.coords)
    assert ds["sigma"].dims == ("timestep",)
    assert ds["label"].dims == ("sample",)
    for name in ds.variables:
        assert ds[name].attrs["long_name"]
        assert ds[name].attrs["units"]
    for name, values in whole.items():
        np.testing.assert_array_equal(ds[name].values, values)
    assert (ds["written"] == 3).all()
    assert ds["norm"].sel(classifier="robust", stabilizer="adam", timestep=220).shape == (1, 1, 7)


@pytest.mark.parametrize(("samples", "timesteps", "batch_size"), [(1, 1, 32), (5, 10, 5), (13, 61, 4), (9, 50, 3)])
@pytest.mark.parametrize(("tensor_samples", "tensor_every"), [(64, 1), (3, 1), (64, 7), (5, 3), (0, 1)])
def test_written_values_are_read_back(tmp_path, samples, timesteps, batch_size, tensor_samples, tensor_every):
    schema = Schema(grid(samples, timesteps, batch_size, size=2), ARRAYS, tensor_samples, tensor_every)
    whole, blocks = frames(schema)
    write(tmp_path / "s.zarr", schema, blocks)
    ds = open_store(tmp_path / "s.zarr")
    kept = (np.arange(samples)[:, None] < tensor_samples) & (np.arange(timesteps) % tensor_every == 0)
    np.testing.assert_array_equal(ds["written"].values, np.broadcast_to(np.where(kept, 3, 1), ds["written"].shape))
    expected = np.where(kept[..., None, None, None], whole["gradient"], np.nan)
    np.testing.assert_array_equal(ds["gradient"].values, expected)
    for name in ("norm", "predicted_class", "spectrum", "image"):
        np.testing.assert_array_equal(ds[name].values, whole[name])


@pytest.mark.parametrize("steps", [0, 1, 9, 10, 11, 22])
def test_a_partly_written_store_is_masked_exactly(tmp_path, steps):
    """The second block of the third cell ends after some steps; then the writer is closed, as after an exception."""
    schema = Schema(grid(), ARRAYS)
    whole, blocks = frames(schema)
    partial = [*blocks[:5], blocks[5][:steps]]
    write(tmp_path / "s.zarr", schema, partial)
    there = np.zeros((2, 1, 2, 1, 7, 23), dtype=bool)
    for block in partial:
        for frame in block:
            there[(*frame.cell, slice(frame.first_sample, min(frame.first_sample + 4, 7)), frame.step)] = True
    ds = open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(ds["written"].values > 0, there)
    np.testing.assert_array_equal(ds["norm"].values, np.where(there, whole["norm"], np.nan).astype("float32"))
    np.testing.assert_array_equal(ds["predicted_class"].values, np.where(there, whole["predicted_class"], -1))
    masked = np.where(there[..., None, None, None], whole["gradient"], np.nan)
    np.testing.assert_array_equal(ds["gradient"].values, masked.astype("float32"))
    assert ds["predicted_class"].dtype == np.int16


def test_masking_goes_by_the_marker_and_never_by_nan(tmp_path):
    """A recorded NaN stays, and values without the marker are masked."""
    schema = Schema(grid(), ARRAYS)
    whole, blocks = frames(schema)
    whole["norm"][0, 0, 0, 0, 0, 0] = np.nan
    write(tmp_path / "s.zarr", schema, blocks)
    zarr.open_group(tmp_path / "s.zarr", mode="r+")["written"][1, 0, 1, 0, 2, 5] = 0
    ds = open_store(tmp_path / "s.zarr")
    assert np.isnan(ds["norm"].values[0, 0, 0, 0, 0, 0])
    assert ds["written"].values[0, 0, 0, 0, 0, 0] == 3
    assert np.isnan(ds["norm"].values[1, 0, 1, 0, 2, 5])
    assert np.isnan(ds["gradient"].values[1, 0, 1, 0, 2, 5]).all()


def test_everything_exists_before_the_first_step_and_nothing_is_resized(tmp_path):
    schema = Schema(grid(), ARRAYS)
    create(tmp_path / "s.zarr", schema, {"status": "recording"})
    empty = xr.open_zarr(tmp_path / "s.zarr")
    sizes, names = dict(empty.sizes), set(empty.variables)
    assert (empty["written"] == 0).all()
    assert np.isnan(open_store(tmp_path / "s.zarr")["gradient"].values).all()
    _, blocks = frames(schema)
    writer = StoreWriter(tmp_path / "s.zarr", schema)
    for frame in blocks[0]:
        writer.submit(frame)
    writer.close()
    ds = xr.open_zarr(tmp_path / "s.zarr")
    assert (dict(ds.sizes), set(ds.variables)) == (sizes, names)
    group = zarr.open_group(tmp_path / "s.zarr")
    assert all(array.metadata.dimension_names for _, array in group.arrays())


def test_chunks_never_reach_over_a_block_and_stay_near_a_megabyte():
    for batch_size in (1, 2, 3, 5, 7, 8, 12, 32, 100):
        for size in (8, 32, 64, 256, 1024):
            for every in (1, 5):
                schema = Schema(grid(200, 100, batch_size, size), ARRAYS, tensor_every=every)
                samples, steps = schema.tensor_chunk
                step_bytes = 3 * size**2 * 4
                assert schema.grid.block % samples == 0
                assert samples * steps * step_bytes <= max(2**20, step_bytes)
                assert every == 1 or steps == 1
                assert samples == 1 or steps in (100, 1)  # a chunk of several samples holds all timesteps
                assert steps == 1 or 2 * steps * step_bytes > 2**20 or steps == 100
                assert schema.chunks(ARRAYS[1]) == (1, 1, 1, 1, batch_size, 50)


def test_timesteps_are_spread_evenly_over_the_chunks():
    assert Schema(grid(4, 1000, 4, 32), ARRAYS).tensor_chunk == (1, 84)  # twelve chunks; one could hold 85 timesteps
    assert Schema(grid(4, 86, 4, 32), ARRAYS).tensor_chunk == (1, 43)


def test_estimated_bytes_are_the_bytes_of_the_arrays(tmp_path):
    schema = Schema(grid(), ARRAYS)
    whole, blocks = frames(schema)
    writer = write(tmp_path / "s.zarr", schema, blocks)
    assert schema.bytes() == sum(v.nbytes for v in whole.values()) + 2 * 2 * 7 * 23
    assert writer.bytes >= schema.bytes()


def test_codec_and_key_encoding_are_explicit(tmp_path):
    for codec, name in (("none", None), ("lz4", "blosc")):
        path = tmp_path / f"{codec}.zarr"
        schema = Schema(grid(), ARRAYS, codec=codec)
        whole, blocks = frames(schema)
        write(path, schema, blocks)
        group = zarr.open_group(path)
        compressors = group["gradient"].compressors
        assert [c.to_dict()["name"] for c in compressors] == [*([name] if name else []), "crc32c"]
        assert [c.to_dict()["name"] for c in group["norm"].compressors] == ["crc32c"]
        assert (path / "gradient" / "c.0.0.0.0.0.0.0.0.0").is_file()
        np.testing.assert_array_equal(group["gradient"][...], whole["gradient"])


def test_what_is_not_a_store_is_refused_by_name(tmp_path):
    with pytest.raises(GradscopeError, match="nothing.zarr is not a zarr store"):
        open_store(tmp_path / "nothing.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(GradscopeError, match="but not one of gradscope's"):
        open_store(tmp_path / "other.zarr")
    create(tmp_path / "later.zarr", Schema(grid(), ARRAYS), {})
    set_attributes(tmp_path / "later.zarr", {"schema_version": 99})
    with pytest.raises(GradscopeError, match="schema version 99, this gradscope reads up to 3"):
        open_store(tmp_path / "later.zarr")


def test_chunks_carry_the_checksum_of_zarrs_codec(tmp_path):
    for codec in ("none", "lz4"):
        path, schema = tmp_path / f"{codec}.zarr", Schema(grid(), ARRAYS, codec=codec)
        write(path, schema, frames(schema)[1])
        for name in ("gradient", "norm", "written"):
            content = (path / name / ("c.0.0.0.0.0.0" + ".0.0.0" * (name == "gradient"))).read_bytes()
            assert content[-4:] == google_crc32c.value(content[:-4]).to_bytes(4, "little")
        file = path / "norm" / "c.0.0.0.0.0.0"
        content = bytearray(file.read_bytes())
        content[5] ^= 1
        file.write_bytes(bytes(content))
        with pytest.raises(ValueError, match="checksum"):
            xr.open_zarr(path)["norm"].load()
