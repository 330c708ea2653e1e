"""Checks of a store beside those of its metadata: links in its folder, and values of its coordinates."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscope.errors import GradscopeError
from gradscope.store.dims import cell_dims_of
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


def check_coordinates(values: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any], where: str) -> None:
    """Raise GradscopeError if coordinates along dimensions are empty, repeated or not finite.

    Parameters
    ----------
    values
        Every coordinate.
    attributes
        Those of the store.
    where
        The store, for messages.
    """
    cell = cell_dims_of(attributes)
    unique = "step" if "step" in values and attributes["schema_version"] > 1 else "timestep"  # which may occur twice
    for name in (*cell, "sample", unique):
        along = np.atleast_1d(values[name])  # a selection of one value is stored without the dimension
        if not len(along) and name in cell:
            raise GradscopeError(f"{where}: {name} is empty")
        if len(np.unique(along)) < len(along):
            raise GradscopeError(f"{where}: {name} has a value twice")
    if not np.isfinite(values["timestep"]).all():
        raise GradscopeError(f"{where}: timestep is not finite")
    for name in (*cell, "class", "judge_class"):
        if name in values and values[name].dtype.kind in "OUT":
            for text in np.atleast_1d(values[name]).tolist():
                check_name(str(text), f"{where}, {name}")
    if not np.isfinite(values["guidance_scale"]).all():
        raise GradscopeError(f"{where}: guidance_scale is not finite")
    if "bound" in values and values["bound"].tolist() != ["low", "high"]:
        raise GradscopeError(f"{where}: bound must be low and high, got {short(values['bound'].tolist())}")
