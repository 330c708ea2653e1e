"""The coordinates of a store, with their attributes."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from gradscope.store.dims import REPEAT
from gradscope.store.schema import Schema

_OF_CELLS = {
    "classifier": "guide",
    "classifier_input": "input of the guide: x_t, x0 (through the denoiser) or x0_detached",
    "stabilizer": "stabiliser of the gradients",
    "guidance_scale": "guidance scale",
    "method": "guidance method",
}
_OF_TIMESTEPS = {
    "step": ("number of the sampling step", "1"),
    "alphas_cumprod": ("cumulative product of alphas", "1"),
    "sigma": ("standard deviation of the DDPM posterior", "1"),
    "signal": ("factor of x_0 in x_t", "1"),
    "noise": ("factor of epsilon in x_t", "1"),
    "log_snr": ("logarithm of the signal-to-noise ratio, 2 log(signal / noise)", "nat"),
}


def coordinates(schema: Schema) -> dict[str, xr.Variable]:
    """Every coordinate of a schema's grid and of its arrays' own dimensions, by name."""
    grid = schema.grid
    found: dict[str, xr.Variable] = {}
    for dim in grid.cell_dims:
        found[dim] = _coordinate((dim,), _along(grid.along(dim)), _OF_CELLS.get(dim, f"{dim} of the cell"))
    whole = np.array_equal(grid.timestep, np.round(grid.timestep))
    timestep = grid.timestep.astype(np.int64 if whole else np.float64)
    found["timestep"] = _coordinate(("timestep",), timestep, "diffusion time, in sampling order")
    for name, values in grid.times.items():
        found[name] = _coordinate(("timestep",), values, *_OF_TIMESTEPS[name])
    if grid.repeats:
        found[REPEAT] = _coordinate((REPEAT,), np.arange(grid.repeats), "number of the repetition of a timestep")
    found["sample"] = _coordinate(("sample",), np.arange(grid.samples), "index of the sample")
    found["label"] = _coordinate(("sample",), grid.label.astype(np.int64), "target class")
    found["seed"] = _coordinate(("sample",), grid.seed.astype(np.int64), "seed of the sample's generator")
    for dim, own in schema.coords.items():
        found[dim] = _coordinate((dim,), _along(own.values), own.long_name, own.units)
    return found


def _along(values: Sequence[str | float]) -> np.ndarray:
    return np.array(values, dtype=object if all(isinstance(value, str) for value in values) else np.float64)


def _coordinate(dims: tuple[str, ...], values: np.ndarray, about: str, units: str = "1") -> xr.Variable:
    return xr.Variable(dims, values, {"long_name": about, "units": units})
