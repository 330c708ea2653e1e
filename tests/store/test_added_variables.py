"""Variables and attributes that are added to a store."""

import numpy as np
import pytest
import xarray as xr
import zarr
from random_store import ABOUT, ARRAYS, frames, grid, write

from gradscope.store import (
    Schema,
    add_variables,
    create,
    open_store,
    replacement,
    set_attributes,
)
from gradscope.verification.verify import verify


def test_variables_and_attributes_are_added_and_replaced(tmp_path):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    create(path, schema, {"status": "recording"})
    for value in (0.25, 0.75):
        accuracy = xr.Dataset({"own_accuracy": (("classifier",), np.full(2, value), ABOUT)})
        add_variables(path, accuracy)
        np.testing.assert_array_equal(xr.open_zarr(path)["own_accuracy"].values, [value, value])
    set_attributes(path, {"status": "complete"})
    assert xr.open_zarr(path).attrs["status"] == "complete"


def test_added_variables_bring_their_coordinates_and_replace_what_is_named(tmp_path):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    create(path, schema, {})
    before = set(xr.open_zarr(path).variables)
    names = np.array(["baseball", "soccer ball"], dtype=object)
    shares = np.arange(4.0).reshape(2, 2)
    added = xr.Dataset(
        {"share": (("classifier", "class"), shares, ABOUT), "floor": ((), 0.5, ABOUT)},
        coords={"class": ("class", names, ABOUT)},
        attrs={"evaluation": "by hand"},
    )
    add_variables(path, added)
    ds = xr.open_zarr(path)
    assert ds.attrs["evaluation"] == "by hand"
    assert ds["share"].sel({"class": "soccer ball"}).values.tolist() == [1, 3]
    assert ds["classifier"].values.tolist() == ["robust", "non_robust"]
    assert ds["floor"].shape == ()
    assert float(ds["floor"]) == 0.5
    assert ds["class"].attrs == ABOUT
    add_variables(path, added[["floor"]], instead_of=list(added.variables))
    assert set(xr.open_zarr(path).variables) == before | {"floor"}


def test_large_added_variables_are_chunked(tmp_path, monkeypatch):
    path = tmp_path / "s.zarr"
    create(path, Schema(grid(), ARRAYS), {})
    monkeypatch.setattr(replacement, "_CHUNK_BYTES", 100)
    values = np.arange(2 * 3 * 7).reshape(2, 3, 7).astype(np.int64)
    add_variables(path, xr.Dataset({"large": (("a", "b", "c"), values, ABOUT)}))
    assert zarr.open_group(path)["large"].chunks == (1, 1, 7)
    np.testing.assert_array_equal(xr.open_zarr(path)["large"], values)


def test_an_evaluation_beside_a_recording_keeps_its_status(tmp_path, monkeypatch):
    path = tmp_path / "s.zarr"
    create(path, Schema(grid(), ARRAYS), {"status": "recording"})
    made = replacement.create_array

    def slowly(*arguments, **settings):
        set_attributes(path, {"status": "complete"})
        return made(*arguments, **settings)

    monkeypatch.setattr(replacement, "create_array", slowly)
    add_variables(path, xr.Dataset({"mine": ("sample", np.arange(7))}, attrs={"evaluation": "{}"}))
    assert open_store(path).attrs["status"] == "complete"
    assert open_store(path).attrs["evaluation"] == "{}"


def test_an_evaluation_does_not_read_the_metadata_of_arrays_that_it_leaves(tmp_path):
    path = tmp_path / "s.zarr"
    create(path, Schema(grid(), ARRAYS), {})
    (path / "gradient" / "zarr.json").write_text("{")
    for value in (1, 2):
        add_variables(path, xr.Dataset({"mine": ("sample", np.full(7, value))}))
        assert (open_store(path)["mine"] == value).all()


COPIES = {
    "as it is": lambda ds: ds,
    "selected": lambda ds: ds.isel(sample=slice(0, 4)),
    "in other chunks": lambda ds: ds.drop_encoding().chunk({"sample": 1}),
    "with a variable": lambda ds: ds.assign(mine=2 * ds["norm"]),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # zarr's own, about how xarray writes
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("opened", [open_store, xr.open_zarr], ids=["gradscope", "xarray"])
def test_what_xarray_copies_is_a_store_whatever_opened_it(tmp_path, opened, copied):
    sound = [array for array in ARRAYS if array.name != "predicted_class"]  # random classes are findings
    schema = Schema(grid(), tuple(sound), codec="lz4")
    whole, blocks = frames(schema)
    write(tmp_path / "s.zarr", schema, blocks)
    part = copied(opened(tmp_path / "s.zarr"))
    part.to_zarr(tmp_path / "copy.zarr")
    again = open_store(tmp_path / "copy.zarr")
    for name in ("norm", "gradient"):
        expected = whole[name][:, :, :, :, : part.sizes["sample"]]
        np.testing.assert_array_equal(again[name].values, expected)
    assert set(again.data_vars) == set(part.data_vars)
    assert verify(tmp_path / "copy.zarr").findings == ()
