"""Every reader refuses damaged chunks, and pipes and devices in their place, and names array and chunk."""

import os
import re
import socket
import subprocess
import sys
import threading
from itertools import product
from pathlib import Path

import hostile_store
import numpy as np
import pytest
import xarray as xr
from sound_store import KINDS, NAMES, copied, edit, edit_json, make, stores  # noqa: F401  (a fixture)

import gradscope
from dashboards.data.open_run import OpenRun
from dashboards.images.tiles import Tiles
from gradscope.errors import GradscopeError
from gradscope.store import set_attributes
from gradscope.store.locations.location import locate
from gradscope.store.opening import read_attributes
from gradscope.store.progress import finished
from gradscope.verification.verify import verify

SUMMED = ("plain", "lz4", "sharded", "half", "sparse")


def flipped(file: Path, byte: int) -> None:
    """Flip one bit of a file."""
    edit(file, lambda content: content.__setitem__(byte, content[byte] ^ 0x40))


def chunks(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json")


def read_all(path: Path) -> None:
    for variable in gradscope.open(path).variables.values():
        _ = variable.values


@pytest.mark.slow
@pytest.mark.parametrize("kind", SUMMED)
def test_one_flipped_bit_of_any_chunk_is_refused_by_its_name(stores, kind, tmp_path):  # noqa: F811
    rng = np.random.default_rng(0)
    path = copied(stores(kind), tmp_path)
    for file in rng.permutation(np.array(chunks(path), dtype=object))[:8]:
        before = file.read_bytes()
        flipped(file, int(rng.integers(len(before))))
        with pytest.raises(GradscopeError, match=re.escape(f"{file.relative_to(path)} is damaged")):
            _ = gradscope.open(path)[file.parent.name].values
        file.write_bytes(before)
    read_all(path)


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("kind", SUMMED)
def test_a_chunk_that_is_cut_to_a_few_bytes_is_refused_by_its_name(stores, kind, size, tmp_path):  # noqa: F811
    path = copied(stores(kind), tmp_path)
    for name in ("gradient", "gradient_norm"):
        file = next(file for file in chunks(path) if file.parent.name == name)
        before = file.read_bytes()
        file.write_bytes(before[:size])
        with pytest.raises(GradscopeError, match=re.escape(f"{file.relative_to(path)} is damaged")):
            _ = gradscope.open(path)[name].values
        file.write_bytes(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SUMMED)
def test_checked_reads_give_the_stored_values(stores, kind):  # noqa: F811
    """Compared with plain xarray, which reads through zarr."""
    ours, plain = gradscope.open(stores(kind)), xr.open_zarr(stores(kind), mask_and_scale=False).load()
    names = [str(name) for name, variable in ours.data_vars.items() if variable.dims[4:5] == ("sample",)]
    for name, where in product(names, [(0, 0, 0, 1, 1), (slice(None), 0, 0, slice(None), slice(0, 2)), ()]):
        if kind == "half" and name in NAMES:
            continue  # scaled
        selected = [ds[name][where].values for ds in (ours, plain)]
        if name in NAMES:  # tensors of other samples are masked
            marker = plain["written"][where].values
            selected = [values[marker >= 3] for values in selected]
        assert np.array_equal(*selected, equal_nan=selected[0].dtype.kind == "f"), (name, where)


@pytest.mark.slow
def test_the_report_of_a_store_with_a_flipped_bit_fails_with_the_name_of_the_chunk(stores, tmp_path):  # noqa: F811
    path = copied(stores("plain"), tmp_path)
    file = path / "gradient_norm" / "c.0.0.0.0.0.0"
    flipped(file, 3)  # the exponent of a float32
    out = subprocess.run([sys.executable, "-m", "gradscope", "report", path], capture_output=True, text=True)
    assert out.returncode == 2
    assert "gradient_norm/c.0.0.0.0.0.0 is damaged: its checksum" in " ".join(out.stderr.split())


def test_the_dashboard_refuses_damaged_scalars_tensors_and_images(stores, tmp_path):  # noqa: F811
    path = copied(stores("plain"), tmp_path)
    for name in ("gradient_norm", "gradient", "image"):
        flipped(next(file for file in chunks(path / name) if "c.0.0.0.1.0" in file.name), 7)
    run = OpenRun(path)
    with pytest.raises(GradscopeError, match=r"gradient_norm/c\.0\.0\.0\.1\.0\.0 is damaged"):
        run.scalars("gradient_norm")
    with pytest.raises(GradscopeError, match=r"gradient/c\.0\.0\.0\.1\.0\.0\.0\.0\.0 is damaged"):
        Tiles().frame(run, sample=0, step=0, cells=[1], limits="cell")
    with pytest.raises(GradscopeError, match=r"image/c\.0\.0\.0\.1\.0\.0\.0\.0 is damaged"):
        Tiles().thumbnails(run, cell=1, first=0, last=1)


@pytest.mark.parametrize("kind", ["plain", "interrupted", "just begun", "old"])
def test_attributes_alone_are_those_of_the_opened_store(stores, kind, tmp_path):  # noqa: F811
    path = copied(stores(kind), tmp_path)
    set_attributes(path, {"status": "recording"})  # as after kill -9
    found = read_attributes(path)
    assert found == gradscope.open(path).attrs
    assert found["status"] == "interrupted"
    (path / "zarr.json").unlink()
    with pytest.raises(GradscopeError, match="is not a zarr store"):
        read_attributes(path)


def test_a_run_with_a_damaged_marker_is_not_resumed(stores, tmp_path):  # noqa: F811
    path = copied(stores("interrupted"), tmp_path)
    flipped(chunks(path / "written")[0], 0)
    with pytest.raises(GradscopeError, match=r"written/c\.0\.0\.0\.0\.0\.0 is damaged"):
        finished(locate(path))


def in_time(work, seconds: float = 20) -> list:
    """Result or error of a function, which runs in a thread because it may hang."""
    out: list = []

    def run() -> None:
        try:
            out.append(work())
        except Exception as error:
            out.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert out, "it hangs"
    return out


def strange(file: Path, what: str) -> None:
    """Replace a file by a pipe, a device or a socket."""
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    elif what == "link to a pipe":
        os.mkfifo(target := file.with_name("pipe"))
        file.symlink_to(target)
    elif what == "device":
        file.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as end:
            here = Path.cwd()
            os.chdir(file.parent)  # a socket's path must be short
            try:
                end.bind(file.name)
            finally:
                os.chdir(here)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "what"),
    [
        *product(["plain"], ["gradient_norm", "image"], ["pipe", "link to a pipe", "device", "socket"]),
        *product(["plain"], ["label", "written", "gradient"], ["pipe"]),
        *product(["lz4"], ["gradient"], ["pipe", "device"]),
    ],
)
def test_pipes_and_devices_hang_no_reader(stores, kind, name, what, tmp_path):  # noqa: F811
    path = copied(stores(kind), tmp_path)
    strange(chunks(path / name)[0], what)
    (found,) = in_time(lambda: read_all(path))
    assert isinstance(found, GradscopeError)
    assert f"{name}/c" in str(found)
    (found,) = in_time(lambda: verify(path))
    assert name in {finding.array for finding in found.findings}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["zarr.json", "written/zarr.json", "gradient/zarr.json"])
def test_pipes_in_place_of_metadata_hang_no_reader(stores, place, tmp_path):  # noqa: F811
    path = copied(stores("plain"), tmp_path)
    strange(path / place, "pipe")
    for work in (read_all, verify, OpenRun, lambda path: locate(path).locked()):
        in_time(lambda work=work: work(path))


def test_a_store_with_too_many_arrays_is_refused_at_once(tmp_path):
    path = make(tmp_path / "s.zarr", KINDS["just begun"])
    arrays = {f"a{i}": {} for i in range(100_000)}
    edit_json(path / "zarr.json", lambda root: root["consolidated_metadata"]["metadata"].update(arrays))
    for work in (gradscope.open, verify, OpenRun):
        (found,) = in_time(lambda work=work: work(path), 5)
        said = str(found) if isinstance(found, GradscopeError) else " ".join(map(str, found.findings))
        assert "arrays" in said
        assert "100" in said


def test_resuming_refuses_a_marker_that_no_run_records(tmp_path):
    """Its chunks need not exist: they would be read as unwritten, billions of values at once."""
    path = make(tmp_path / "s.zarr", KINDS["just begun"])

    def lengthen(root):
        for array in root["consolidated_metadata"]["metadata"].values():
            longer = {"sample": 10**5, "timestep": 10**3}
            array["shape"] = [
                longer.get(dim, n) for dim, n in zip(array["dimension_names"], array["shape"], strict=True)
            ]

    edit_json(path / "zarr.json", lengthen)
    with pytest.raises(GradscopeError, match="its marker claims"):
        finished(locate(path))


def test_resuming_bounds_what_the_marker_decodes_to(tmp_path):
    """The command asks what is finished before it records; a stranger's store may claim any codec."""
    path = hostile_store.saved(tmp_path)
    assert finished(locate(path)).all()
    hostile_store.replaced(path, "written", hostile_store.zstd_of_zeros(2**31 - 1))
    with pytest.raises(GradscopeError, match=r"written/c/.* is damaged: it (decodes to 2147483647|has more than)"):
        finished(locate(path))
