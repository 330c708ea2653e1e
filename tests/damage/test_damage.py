"""Damage is found by readers and by `verify`; none of it is believed. All of it: `make crash`."""

import json
import random
import shutil
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from damage import faults, tiny_store
from damage.faults import Fault
from damage.judge import FOUND, RIGHT, Judge
from damage.run import cases, judged

import gradscope
from dashboards.data.open_run import OpenRun
from dashboards.images.tiles import Tiles
from gradscope.errors import GradscopeError
from gradscope.store import add_variables, open_store, set_attributes
from gradscope.store.untrusted import checksum
from gradscope.verification.verify import verify

SAMPLE = 3000


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return tiny_store.make(tmp_path_factory.mktemp("tiny") / "s.zarr")


@pytest.fixture
def store(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "s.zarr")


@pytest.mark.slow
def test_a_sample_of_all_faults_is_found(tmp_path):
    for number, case in enumerate(random.Random(0).sample(list(cases(tmp_path)), SAMPLE)):
        verdict = judged(case, tmp_path)
        assert verdict.is_good, (number, case, verdict)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["zarr.json", "image/c.0.0.0.0.1.0.0.0", "written/c.0.0.0.0.0.0", "seed/c.0"])
def test_whatever_takes_the_place_of_a_file_is_found(store, file):
    judge = Judge(store)
    for fault in faults.faults(file, b""):
        verdict = judge.judge(fault)
        assert (verdict.read, verdict.verified) == (FOUND, FOUND), (fault, verdict)


@pytest.mark.parametrize("key", ["run_id", "command", "schema_version", "classes", checksum.KEY])
def test_a_flipped_byte_of_an_attribute_or_of_its_name_is_found(store, key):
    judge = Judge(store)
    content = judge.files["zarr.json"]
    start = content.index(json.dumps(key).encode())
    for at in (start + 2, content.index(b":", start) + 3):  # in the name; in the value
        verdict = judge.judge(Fault("zarr.json", faults.FLIPPED, at, content[at] ^ 1))
        assert (verdict.read, verdict.verified) == (FOUND, FOUND), (at, verdict)


@pytest.mark.parametrize("file", ["zarr.json", "seed/zarr.json"])
def test_changed_white_space_is_found_and_changes_no_value(store, file):
    judge = Judge(store)
    at = judge.files[file].index(b"\n")
    verdict = judge.judge(Fault(file, faults.FLIPPED, at, ord(" ")))
    assert (verdict.read, verdict.verified) == (RIGHT, FOUND)


@pytest.mark.parametrize("name", ["gradient", "gradient_norm", "predicted_class", "image", "written", "own_prediction"])
@pytest.mark.parametrize("dask", [True, False])
def test_a_missing_chunk_is_an_error_and_no_fill_value(store, name, dask):
    file = sorted(file for file in (store / name).iterdir() if file.name != "zarr.json")[-1]
    file.unlink()
    with pytest.raises(GradscopeError, match=rf"{name}/{file.name} is missing"):
        _ = open_store(store, dask=dask)[name].values
    assert open_store(store)["finite_fraction" if name != "written" else "label"].values.size


@pytest.mark.parametrize("kind", ["half", "lz4", "sharded"])
@pytest.mark.parametrize("dask", [True, False])
def test_a_missing_chunk_of_a_coded_tensor_is_an_error(tmp_path, kind, dask):
    store = tiny_store.make(tmp_path / "s.zarr", kind)
    for name in ("gradient", "gradient_exponent")[: 1 + (kind == "half")]:
        lost = shutil.copytree(store, tmp_path / f"{name}.zarr")
        file = next(file for file in sorted((lost / name).iterdir()) if file.name != "zarr.json")
        file.unlink()
        with pytest.raises(GradscopeError, match=rf"{name}/{file.name} is missing"):
            _ = open_store(lost, dask=dask)["gradient"].values


@pytest.mark.parametrize("name", ["gradient", "gradient_norm", "image", "written"])
def test_the_dashboard_refuses_a_missing_chunk(store, name):
    file = next(file for file in sorted((store / name).iterdir()) if file.name != "zarr.json")
    file.unlink()
    with pytest.raises(GradscopeError, match=rf"{name}/{file.name} is missing"):
        _show(store)


def _show(store):
    run = OpenRun(store)
    run.scalars("gradient_norm")
    Tiles().frame(run, sample=0, step=0, cells=[0], limits="fixed")
    Tiles().thumbnails(run, cell=0, first=0, last=1)


def test_what_is_not_recorded_yet_may_be_missing(tmp_path):
    """Nothing marks it."""
    recorded = tiny_store.schema()
    gradscope.store.create(tmp_path / "s.zarr", recorded, {"configuration": "{}", "status": "recording"})
    ds = open_store(tmp_path / "s.zarr")
    assert np.isnan(ds["gradient"].values).all()
    assert np.isnan(ds["image"].values).all()
    assert (ds["written"].values == 0).all()


def test_a_change_of_another_program_is_refused_until_it_is_meant(store):
    zarr.open_group(store, mode="r+").attrs["note"] = "mine"
    for use in (open_store, OpenRun, lambda path: set_attributes(path, {"status": "complete"}), _evaluate):
        with pytest.raises(GradscopeError, match=r"do not match their checksum.*metadata_crc32c to 'none'"):
            use(store)
    assert "checksum" in str(verify(store).findings[0])
    zarr.open_group(store, mode="r+").attrs[checksum.KEY] = checksum.UNCHECKED
    assert open_store(store).attrs["note"] == "mine"
    assert verify(store).findings == ()
    assert any("no checksum of zarr.json" in remark for remark in verify(store).remarks)
    set_attributes(store, {"status": "complete"})  # writes a checksum again
    assert not any("no checksum" in remark for remark in verify(store).remarks)


def _evaluate(store):
    add_variables(store, xr.Dataset(attrs={"evaluation": "{}"}))


@pytest.mark.slow
def test_copies_that_xarray_wrote_have_no_checksum_and_are_read(store, tmp_path):
    ours, plain = tmp_path / "ours.zarr", tmp_path / "plain.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_store(store).drop_encoding().to_zarr(ours)
        xr.open_zarr(store).drop_encoding().isel(sample=[0]).to_zarr(plain)
    assert checksum.KEY not in zarr.open_group(ours, mode="r").attrs
    assert checksum.KEY in zarr.open_group(plain, mode="r").attrs  # of the store that it was copied from
    for copy in (ours, plain):
        assert open_store(copy)["own_accuracy"].values == 1
        assert verify(copy).findings == ()


def test_the_faults_of_a_file_are_all_different_and_change_it(store):
    content = (store / "seed" / "zarr.json").read_bytes()
    found = list(faults.faults("seed/zarr.json", content))
    assert len(found) == len(set(found)) > 2 * len(content)
    assert {fault.kind for fault in found} == set(faults.KINDS)
    for fault in random.Random(0).sample(found, 50):
        fault.make(store, content)
        file = store / fault.file
        assert not file.is_file() or file.is_symlink() or file.read_bytes() != content
        fault.undo(store, content)
        assert file.read_bytes() == content
