"""Checks of a store beside those of its metadata: links in its folder, and values of its coordinates."""

import os
from pathlib import Path

import numpy as np
import xarray as xr

from gradscope.errors import GradscopeError
from gradscope.store.dims import cell_dims
from gradscope.text import check_name, short


def check_links(folder: Path) -> None:
    """Raise GradscopeError if an entry of a store's folder is a link: its target might be overwritten, or is another
    array of the store.
    """
    try:
        links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
    except OSError as error:
        raise GradscopeError(f"{folder} cannot be read: {error.strerror}") from error
    if links:
        raise GradscopeError(f"{min(links)} is a link; links in a store are not followed")


def check_coordinates(ds: xr.Dataset, where: str) -> None:
    """Raise GradscopeError if coordinates along dimensions are empty, repeated or not finite."""
    cell = cell_dims(ds)
    unique = "step" if "step" in ds and ds.attrs["schema_version"] > 1 else "timestep"  # a timestep may occur twice
    for name in (*cell, "sample", unique):
        values = np.atleast_1d(ds[name].values)  # a selection of one value is stored without the dimension
        if not len(values) and name in cell:
            raise GradscopeError(f"{where}: {name} is empty")
        if len(np.unique(values)) < len(values):
            raise GradscopeError(f"{where}: {name} has a value twice")
    if not np.isfinite(ds["timestep"].values).all():
        raise GradscopeError(f"{where}: timestep is not finite")
    for name in (*cell, "class", "judge_class"):
        if name in ds.coords and ds[name].dtype.kind in "OUT":
            for text in np.atleast_1d(ds[name].values).tolist():
                check_name(str(text), f"{where}, {name}")
    if not np.isfinite(ds["guidance_scale"].values).all():
        raise GradscopeError(f"{where}: guidance_scale is not finite")
    if "bound" in ds.coords and ds["bound"].values.tolist() != ["low", "high"]:
        raise GradscopeError(f"{where}: bound must be low and high, got {short(ds['bound'].values.tolist())}")
