"""Stores of the first schema stay readable, reportable and verifiable; those of the second are resumed, too."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import trajectory_store
import zarr
from damage import tiny_store

import gradscope
from gradscope.errors import GradscopeError
from gradscope.store import Array, Schema, sample_dims, set_attributes
from gradscope.store.locations.location import locate
from gradscope.store.progress import refuse_other
from gradscope.store.untrusted import checksum
from gradscope.verification.verify import verify


@pytest.fixture
def first_schema(tmp_path):
    """A small store that version 0.1 recorded and evaluated."""
    with zipfile.ZipFile(Path(__file__).with_name("schema_1.zip")) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "schema_1.zarr"


def test_a_store_of_the_first_schema_is_read_reported_and_verified(first_schema):
    ds, plain = gradscope.open(first_schema), zarr.open_group(first_schema, mode="r")
    assert ds.attrs["schema_version"] == 1
    for name in ("gradient", "gradient_norm", "image", "predicted_class"):
        np.testing.assert_array_equal(
            ds[name].values[..., :2, :, :, :, :] if name == "gradient" else ds[name].values,
            plain[name][..., :2, :, :, :, :] if name == "gradient" else plain[name][...],
        )
    assert sample_dims(ds) == ("channel", "height", "width")
    report = gradscope.report(ds)
    hits = (ds["judge_prediction"] == ds["label"]).mean("sample").values
    np.testing.assert_allclose(report.cells["judge"].to_numpy(), hits.ravel())
    assert "<table" in report._repr_html_()
    assert verify(first_schema).findings == ()
    assert ds.sel(timestep=ds["timestep"].values[2])["step"].item() == 2


def test_a_store_of_the_first_schema_is_evaluated_and_drawn(first_schema):
    ds = gradscope.open(first_schema)
    assert ds.gradscope.plot_curve("gradient_norm").layout.yaxis.type == "log"
    assert len(ds.gradscope.summary()["samples"].dims) == 4


@pytest.fixture
def second_schema(tmp_path):
    """The tiny store of tests/damage, as the second schema had it: without a checksum of the root's metadata."""
    with zipfile.ZipFile(Path(__file__).with_name("schema_2.zip")) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "schema_2.zarr"


def test_a_store_of_the_second_schema_is_read_and_verified(second_schema, tmp_path):
    old, new = gradscope.open(second_schema), gradscope.open(tiny_store.make(tmp_path / "new.zarr"))
    assert (old.attrs["schema_version"], new.attrs["schema_version"]) == (2, 3)
    assert old.identical(new.assign_attrs(schema_version=2))
    found = verify(second_schema)
    assert found.findings == ()
    assert "no checksum of zarr.json: its attributes were compared with each other alone" in found.remarks
    assert not any("no checksum" in remark for remark in verify(tmp_path / "new.zarr").remarks)


def test_a_store_of_the_second_schema_is_resumed_and_stays_one(second_schema):
    refuse_other(locate(second_schema), tiny_store.schema())
    set_attributes(second_schema, {"status": "interrupted"})
    attributes = zarr.open_group(second_schema, mode="r").attrs
    assert attributes["schema_version"] == 2
    assert checksum.KEY not in attributes


def test_a_store_of_the_first_schema_is_not_resumed(first_schema):
    own = Schema(trajectory_store.grid(), (Array("norm", "scalar", {}),))
    with pytest.raises(GradscopeError, match="cannot resume a store of schema 1, this version records schema 3"):
        refuse_other(locate(first_schema), own)
