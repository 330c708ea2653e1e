"""What a store holds, read by zarr alone, is what xarray shows of it."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import random_store
import small_store
import trajectory_store

from gradscope.errors import GradscopeError
from gradscope.store import Array, Schema, open_store
from gradscope.store.contents import contents


def first_schema(path):
    with zipfile.ZipFile(Path(__file__).with_name("schema_1.zip")) as archive:
        archive.extractall(path.parent)
    return path.parent / "schema_1.zarr"


def halves(path):
    """Recorded to its middle, as float16 with exponents."""
    half = Array("update", "tensor", random_store.ABOUT, dims=random_store.IMAGE, dtype="float16")
    exponent = Array("update_exponent", "scalar", random_store.ABOUT, dtype="int16")
    schema = Schema(random_store.grid(samples=4), (half, exponent, *random_store.ARRAYS))
    _, blocks = random_store.frames(schema)
    random_store.write(path, schema, blocks[: len(blocks) // 2])
    return path


def copied(path):
    """A copy that xarray wrote."""
    return small_store.save(open_store(trajectory_store.save(path.parent / "origin.zarr")), path)


STORES = {
    "schema_1": first_schema,
    "trajectories": trajectory_store.save,
    "repeated": lambda path: trajectory_store.save(path, repeats=2, repetitions=(1, 2, 2, 1, 1)),
    "halves": halves,
    "evaluated": lambda path: small_store.save(small_store.evaluated(), path),
    "copied": copied,
}


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_contents_are_those_of_xarray(tmp_path, make):
    path = make(tmp_path / "a.zarr")
    ds, found = open_store(path, dask=False), contents(path)
    assert dict(found.sizes) == dict(ds.sizes)
    assert {name: variable.dtype for name, variable in found.variables.items()} == {
        str(name): str(variable.dtype) for name, variable in ds.data_vars.items()
    }
    for name, variable in found.variables.items():
        assert {key: variable.attributes.get(key) for key in ("units", "long_name")} == {
            key: ds[name].attrs.get(key) for key in ("units", "long_name")
        }
    assert set(found.coordinates) == set(map(str, ds.coords))
    for name, values in found.coordinates.items():
        np.testing.assert_array_equal(values, ds[name].values)
        assert list(map(str, values.ravel())) == list(map(str, ds[name].values.ravel()))
    assert found.written == float((ds["written"] > 0).mean())
    assert {key: found.attributes[key] for key in ds.attrs} == ds.attrs


def test_a_dimension_of_two_lengths_is_damage(tmp_path):
    path = trajectory_store.save(tmp_path / "a.zarr")
    root = json.loads((path / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"]["label"]["shape"] = [3]
    (path / "zarr.json").write_text(json.dumps(root))
    shown = []
    for read in (open_store, contents):
        with pytest.raises(GradscopeError) as raised:
            read(path)
        shown.append(str(raised.value))
    assert shown[0].startswith(str(path))
    assert shown[1].startswith(str(path))


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(GradscopeError, match=r"is not a zarr store \(no zarr.json in it\)"):
        contents(tmp_path)
    path = trajectory_store.save(tmp_path / "a.zarr")
    shutil.rmtree(path / "stabilizer")
    for read in (open_store, contents):
        with pytest.raises(GradscopeError, match=r"a\.zarr"):
            read(path)
