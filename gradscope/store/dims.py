"""The dimensions of a store: of its cells, of a sample, and those between."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from gradscope.errors import GradscopeError
from probes.variable import IMAGE_DIMS

CELL_DIMS = ("classifier", "classifier_input", "stabilizer", "guidance_scale")
"""Every cell has these; a store may have more, see `cell_dims`."""
REPEAT = "repeat"
"""Repetitions of a timestep, in stores of methods that repeat it."""
_BY_RANK = {
    1: ("axis",),
    2: ("channel", "time"),
    3: IMAGE_DIMS,
    4: ("channel", "frame", "height", "width"),
}
_TAKEN = {*CELL_DIMS, "sample", "timestep", "step", REPEAT, "class", "bound", "replicate"}


def cell_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Dimensions of the cells of a store: the four, then those of its own."""
    return cell_dims_of(ds.attrs)


def sample_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Dimensions of a sample of a store: channel, height and width of an image, horizon and action of a trajectory."""
    return sample_dims_of(ds.attrs)


def cell_dims_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The same by the attributes of a store."""
    return tuple(attributes.get("cell_dims", CELL_DIMS))


def sample_dims_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The same by the attributes of a store; the first schema knows images alone."""
    return tuple(attributes.get("sample_dims", IMAGE_DIMS))


def over(ds: xr.Dataset) -> tuple[str, ...]:
    """Dimensions of a scalar diagnostic: those of the cells, sample and timestep."""
    return (*cell_dims(ds), "sample", "timestep")


def is_tensor(ds: xr.Dataset, name: str) -> bool:
    """Whether a variable goes over all dimensions of a sample."""
    return set(sample_dims(ds)) <= set(ds[name].dims)


def sample_shape(ds: xr.Dataset) -> tuple[int, ...]:
    """Lengths of the dimensions of a sample."""
    return tuple(ds.sizes[dim] for dim in sample_dims(ds))


def recorded_steps(ds: xr.Dataset) -> xr.DataArray:
    """Whether a timestep is recorded, over cells, sample and timestep: from its first repetition on."""
    there = ds["written"] > 0
    return there.isel({REPEAT: 0}, drop=True) if REPEAT in there.dims else there


def names_of_sample(shape: tuple[int, ...], dims: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names for the dimensions of a sample: those given, or by their number.

    Raises
    ------
    GradscopeError
        They are not as many as the sample has, or a name is taken; or none are given and there are more than four.
    """
    if not dims:
        if len(shape) not in _BY_RANK:
            raise GradscopeError(f"sample_dims: name the {len(shape)} dimensions of a sample of shape {shape}")
        return _BY_RANK[len(shape)]
    names = tuple(dims)
    if len(names) != len(shape) or len(set(names)) < len(names):
        raise GradscopeError(f"sample_dims: a name for each of the {len(shape)} dimensions of a sample, got {names}")
    if taken := [name for name in names if not str(name).isidentifier() or name in _TAKEN]:
        raise GradscopeError(f"sample_dims: letters, digits and _, and no dimension of every store, got {taken[0]!r}")
    return names
