"""Names of a store's dimensions: those of cells, those of a sample, and `repeat`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradscope.errors import GradscopeError
from probes.variable import IMAGE_DIMS

if TYPE_CHECKING:
    import xarray as xr

CELL_DIMS = ("classifier", "classifier_input", "stabilizer", "guidance_scale")
"""Dimensions of the cells of every store; a store may have more, see `cell_dims`."""
REPEAT = "repeat"
"""Dimension for repetitions of a timestep. Only stores of methods that repeat timesteps have it."""
_BY_RANK = {
    1: ("axis",),
    2: ("channel", "time"),
    3: IMAGE_DIMS,
    4: ("channel", "frame", "height", "width"),
}
OF_TIMESTEPS = ("step", "alphas_cumprod", "sigma", "signal", "noise", "log_snr")
OF_SAMPLES = ("label", "seed")
COORDINATES = (*CELL_DIMS, "sample", *OF_SAMPLES, "timestep", *OF_TIMESTEPS)
PICTURE_DIMS = ("picture_channel", "picture_height", "picture_width")
"""Dimensions of the decoded final samples of a latent model."""
TAKEN = frozenset(
    {*COORDINATES, *PICTURE_DIMS, REPEAT, "class", "judge_class", "bound", "replicate", "written", "image", "picture"}
)
"""Names that every store may have, which no dimension of a user's own can have."""


def cell_dims(ds: "xr.Dataset") -> tuple[str, ...]:
    """Dimensions of a store's cells: those of `CELL_DIMS`, then any further ones."""
    return cell_dims_of(ds.attrs)


def sample_dims(ds: "xr.Dataset") -> tuple[str, ...]:
    """Dimensions of a sample, for example channel, height, width of an image, or horizon, action of a trajectory."""
    return sample_dims_of(ds.attrs)


def cell_dims_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Like `cell_dims`, from the attributes of a store."""
    return tuple(attributes.get("cell_dims", CELL_DIMS))


def sample_dims_of(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Like `sample_dims`, from the attributes of a store; schema 1 has images only."""
    return tuple(attributes.get("sample_dims", IMAGE_DIMS))


def over(ds: "xr.Dataset") -> tuple[str, ...]:
    """Dimensions of a scalar diagnostic: those of cells, then sample and timestep."""
    return (*cell_dims(ds), "sample", "timestep")


def is_tensor(ds: "xr.Dataset", name: str) -> bool:
    """Whether a variable has all dimensions of a sample."""
    return set(sample_dims(ds)) <= set(ds[name].dims)


def sample_shape(ds: "xr.Dataset") -> tuple[int, ...]:
    """Shape of one sample."""
    return tuple(ds.sizes[dim] for dim in sample_dims(ds))


def final_samples(ds: "xr.Dataset") -> "xr.DataArray":
    """The final samples that classifiers and people look at: decoded where the store has pictures."""
    return ds["picture" if "picture" in ds else "image"]


def final_shape(ds: "xr.Dataset") -> tuple[int, ...]:
    """Shape of one of `final_samples`."""
    return tuple(ds.sizes[dim] for dim in (PICTURE_DIMS if "picture" in ds else sample_dims(ds)))


def recorded_steps(ds: "xr.Dataset") -> "xr.DataArray":
    """Whether each timestep is recorded, over cells, sample and timestep, to its last repetition if that is known."""
    there = ds["written"] > 0
    if REPEAT not in there.dims:
        return there
    import xarray as xr  # the names of dimensions are needed without it, too

    last = xr.DataArray(last_repetitions(ds.attrs, np.atleast_1d(ds["step"].values)), dims="timestep")
    return there.isel({REPEAT: last if "timestep" in there.dims else last[0]}).drop_vars(REPEAT, errors="ignore")


def last_repetitions(attributes: Mapping[str, Any], steps: np.ndarray) -> np.ndarray:
    """Number of the last repetition of some steps, ``(steps,)``; 0 in stores that do not say how often."""
    known = np.asarray(attributes.get("repetitions", ()), dtype=np.int64)
    return known[steps] - 1 if len(known) and steps.max(initial=0) < len(known) else np.zeros(len(steps), np.int64)


def names_of_sample(shape: tuple[int, ...], dims: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of a sample's dimensions: `dims`, or by default the usual names for their number.

    Raises
    ------
    GradscopeError
        `dims` does not name each dimension once, or a name is taken; or there are no `dims` and more than four
        dimensions.

    Examples
    --------
    >>> names_of_sample((3, 32, 32))
    ('channel', 'height', 'width')
    """
    if not dims:
        if len(shape) not in _BY_RANK:
            raise GradscopeError(f"sample_dims: name the {len(shape)} dimensions of a sample of shape {shape}")
        return _BY_RANK[len(shape)]
    names = tuple(dims)
    if len(names) != len(shape) or len(set(names)) < len(names):
        raise GradscopeError(
            f"sample_dims: takes a name for each of the {len(shape)} dimensions of a sample, got {names}"
        )
    if taken := [name for name in names if not str(name).isidentifier() or name in TAKEN]:
        raise GradscopeError(
            f"sample_dims: a name has letters, digits and _, and is not one that every store has, got {taken[0]!r}"
        )
    return names
