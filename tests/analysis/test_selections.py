"""Selections and copies of a store are analysed like a whole store."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from small_run import config
from small_store import evaluated

import gradscope
from gradscope.analysis.selections import restore_dims
from gradscope.errors import GradscopeError
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.store import CELL_DIMS
from gradscope.store.attributes import NESTED
from gradscope.verification.verify import verify


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    """Stores of 12 samples for each dtype of their tensors; that of float32 has an unguided control, too."""
    torch.set_num_threads(1)
    found = {dtype: tmp_path_factory.mktemp("copies") / f"{dtype}.zarr" for dtype in ("float32", "float16")}
    for dtype, where in found.items():
        guidance = {"guidance_scale": [0, 0.4] if dtype == "float32" else [0.4], "classifier_input": ["x_t"]}
        changes = {"sampling": {"samples": 12, "num_inference_steps": 9, "batch_size": 6}, "guidance": guidance}
        recording = {"dtype": dtype, "tensor_every": 1 if dtype == "float32" else 2}
        record_run(prepare(config(where, judge="none", recording=recording | {"path": str(where)}, **changes), "cpu"))
    return found


@pytest.fixture
def path(stores) -> Path:
    return stores["float32"]


SELECTIONS = {
    "a classifier": {"classifier": 1},
    "a cell": dict.fromkeys(CELL_DIMS, 1) | {"stabilizer": 0},
    "a sample": {"sample": 3},
    "a timestep": {"timestep": 4},
}


def assert_same(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    assert ours.data_vars.keys() == theirs.data_vars.keys()
    for name in theirs.data_vars:
        dims = theirs[name].dims
        np.testing.assert_array_equal(ours[name].transpose(*dims).values, theirs[name].values, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", SELECTIONS.values(), ids=SELECTIONS)
def test_selecting_one_value_equals_selecting_a_list_of_one(chosen):
    """A selection by lists removes no dimension."""
    ds = evaluated()
    one, several = ds.isel(chosen), ds.isel({dim: [index] for dim, index in chosen.items()})
    pd.testing.assert_frame_equal(one.gradscope.signatures(), several.gradscope.signatures())
    pd.testing.assert_frame_equal(gradscope.signatures(one), gradscope.signatures(several))
    for name in ("gradient_cosine", "log_prob"):
        assert_same(*(each.gradscope.curves(name) for each in (one, several)))
    assert_same(*(each.gradscope.summary() for each in (one, several)))
    ours, theirs = (each.gradscope.report() for each in (one, several))
    assert ours.findings == theirs.findings
    pd.testing.assert_frame_equal(ours.cells, theirs.cells)


def test_cells_of_a_selection_are_compared():
    ds, names = evaluated(), {"classifier_input": "x_t", "guidance_scale": 0.5}
    ours = ds.sel(classifier="robust").gradscope.compare(names | {"stabilizer": "none"}, names | {"stabilizer": "adam"})
    full = names | {"classifier": "robust"}
    theirs = ds.gradscope.compare(full | {"stabilizer": "none"}, full | {"stabilizer": "adam"})
    assert ours.asdict()["accuracy"] == theirs.asdict()["accuracy"]


def test_a_whole_store_is_returned_as_it_is():
    ds = evaluated()
    assert restore_dims(ds) is ds


def test_datasets_that_lack_something_are_refused_by_name():
    with pytest.raises(GradscopeError, match=r"classifier is gone: select with a list, ds.sel\(classifier=\[...\]\)"):
        evaluated().isel(classifier=0, drop=True).gradscope.signatures()
    with pytest.raises(GradscopeError, match="not a gradscope store, nor a selection of one"):
        evaluated()[["gradient_norm"]].gradscope.signatures()


@pytest.mark.slow
@pytest.mark.parametrize("opened", [gradscope.open, xr.open_zarr], ids=["gradscope", "xarray"])
def test_a_store_is_written_as_netcdf(path, tmp_path, opened):
    ds = opened(path)
    ds.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    again = xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf")
    np.testing.assert_array_equal(again["gradient_norm"], ds["gradient_norm"])
    assert json.loads(again.attrs["versions"])["torch"].startswith(torch.__version__.partition("+")[0])


@pytest.mark.slow
def test_older_stores_with_mappings_as_attributes_are_read_and_written_as_netcdf(path, tmp_path):
    old = tmp_path / "old.zarr"
    shutil.copytree(path, old)
    root = json.loads((old / "zarr.json").read_text())
    attributes = root["attributes"]
    attributes |= {key: json.loads(attributes[key]) for key in NESTED if key in attributes}
    assert isinstance(attributes["versions"], dict)
    attributes["schema_version"] = 2
    del attributes["metadata_crc32c"]
    (old / "zarr.json").write_text(json.dumps(root))
    ds = gradscope.open(old)
    assert ds.attrs["weights_sha256"] == gradscope.open(path).attrs["weights_sha256"]
    ds[["gradient_norm"]].to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert verify(old).findings == ()


@pytest.mark.slow
@pytest.mark.parametrize("drop", [False, True], ids=["as it is", "drop_encoding"])
def test_a_selection_written_by_xarray_is_a_store(path, tmp_path, drop):
    ds = gradscope.open(path)
    part = ds.isel(sample=slice(0, 4), timestep=slice(0, 7))
    (part.drop_encoding() if drop else part).to_zarr(tmp_path / "part.zarr")
    part.load()
    again = gradscope.open(tmp_path / "part.zarr")
    for name in ("gradient", "gradient_norm", "predicted_class", "written"):
        np.testing.assert_array_equal(again[name].values, part[name].values)
    pd.testing.assert_frame_equal(again.gradscope.signatures(), part.gradscope.signatures())
    found = verify(tmp_path / "part.zarr")
    assert found.findings == ()
    assert any("a copy that xarray wrote" in text for text in found.remarks)


COPIES = {
    "later samples": lambda ds: ds.isel(sample=slice(6, 12)),
    "some samples": lambda ds: ds.isel(sample=[1, 5, 7]),
    "one label": lambda ds: ds.sel(sample=ds["label"] == 1),
    "a group": lambda ds: dict(iter(ds.groupby("label")))[2],
    "sorted by label": lambda ds: ds.sortby("label"),
    "every second step": lambda ds: ds.isel(timestep=slice(None, None, 2)),
    "reversed": lambda ds: ds.isel(timestep=slice(None, None, -1)),
    "some variables": lambda ds: ds[["gradient_norm", "gradient_cosine", "written"]],
    "without tensors": lambda ds: ds.drop_vars("gradient"),
    "one classifier": lambda ds: ds.isel(classifier=0),
    "one cell": lambda ds: ds.isel(classifier=0, classifier_input=0, stabilizer=0, guidance_scale=-1),
    "one sample": lambda ds: ds.isel(sample=2),
    "one step": lambda ds: ds.isel(timestep=3),
    "with an added variable": lambda ds: ds.assign(mine=2 * ds["gradient_norm"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", COPIES)
def test_any_part_of_a_store_that_xarray_writes_is_a_sound_store(stores, tmp_path, name, dtype):
    part = COPIES[name](gradscope.open(stores[dtype]))
    part.to_zarr(tmp_path / "part.zarr")
    part.load()
    again = gradscope.open(tmp_path / "part.zarr").load()
    assert again.sizes == part.sizes
    for variable in part.data_vars:
        np.testing.assert_array_equal(again[variable].values, part[variable].values)
    found = verify(tmp_path / "part.zarr")
    assert [str(finding) for finding in found.findings] == []
    if name != "some variables":
        pd.testing.assert_frame_equal(again.gradscope.signatures(), part.gradscope.signatures())


def test_samples_are_grouped_by_their_label(path):
    ds = gradscope.open(path)
    found = ds["gradient_norm"].groupby("label").mean()
    label, norm = ds["label"].values, ds["gradient_norm"].values
    for k in range(4):
        expected = norm[..., label == k, :].mean(axis=-2)
        np.testing.assert_allclose(found.sel(label=k).values, expected, rtol=1e-5)
    assert ds.groupby("label").mean()["log_prob"].sizes["label"] == 4


def test_unsuitable_variables_and_dimensions_are_refused(path):
    ds = gradscope.open(path)
    for name in ("gradient", "image"):
        with pytest.raises(GradscopeError, match=f"{name} is not a diagnostic over cells, samples and timesteps"):
            ds.gradscope.curves(name)
    for change, dim, along in (("step", "timestep", "step"), ("seed", "sample", "seed")):
        with pytest.raises(
            GradscopeError, match=rf"{dim} is not a dimension here but lies along {along}: ds.swap_dims"
        ):
            ds.swap_dims({dim: change}).gradscope.summary()


@pytest.mark.slow
def test_few_variables_and_one_class_give_a_report():
    ds = evaluated()
    few = ds[["gradient_cosine", "written"]]
    assert few.gradscope.report()._repr_html_()
    one = ds.isel({"class": 0}) if "class" in ds.dims else ds.assign_coords({"class": "ball"})
    assert one.gradscope.summary()["samples"].equals(ds.gradscope.summary()["samples"])
    assert one.gradscope.report()._repr_html_()
