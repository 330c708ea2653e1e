"""Audits and leaderboards are written whole or not at all."""

import errno
import os

import pytest
import xarray as xr

from gradscope.errors import GradscopeError
from gradscope.store.derived import save
from gradscope.store.locations.folder import Folder


def dataset(value):
    return xr.Dataset({"a": ("row", [float(value)] * 4), "b": ("row", [value] * 4)}, attrs={"kind": "audit"})


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("error", [Killed, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
@pytest.mark.parametrize("moment", ["first", "last"])
def test_the_earlier_store_stays_where_a_new_one_is_cut_off(tmp_path, monkeypatch, error, moment):
    path = tmp_path / "a.zarr"
    save(dataset(1), path)
    fill = Folder.fill

    def fails(folder, files):
        if moment == "last":
            fill(folder, files)
        raise error()

    monkeypatch.setattr(Folder, "fill", fails)
    with pytest.raises((Killed, GradscopeError)):
        save(dataset(2), path)
    monkeypatch.undo()
    xr.testing.assert_equal(xr.open_zarr(path).load(), dataset(1))
    save(dataset(3), path)
    xr.testing.assert_equal(xr.open_zarr(path).load(), dataset(3))
    assert [file.name for file in tmp_path.iterdir()] == ["a.zarr"]


def test_a_full_disk_is_a_clear_error(tmp_path, monkeypatch):
    def full(*args, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Folder, "fill", full)
    with pytest.raises(GradscopeError, match=r"a\.zarr could not be written: No space left on device"):
        save(dataset(1), tmp_path / "a.zarr")
    assert not list(tmp_path.iterdir())
