"""A leaderboard with made-up numbers, which takes no sampling."""

import numpy as np
import xarray as xr

from gradscope.analysis.oracle_variables import VARIABLES
from gradscope.store.derived import ORACLE, save

COORDS = {
    "mixture": ["points-separated-2", "vectors-overlapping-4"],
    "guide": ["exact", "clean"],
    "guidance_method": ["classifier@x_t", "<b>mine</b>"],
    "stabilizer": ["none", "adam"],
    "path": ["control", "guided"],
    "bound": ["low", "high"],
}


def made(seed: int = 0, samples: int = 12, timesteps: int = 5) -> xr.Dataset:
    """Every variable, in its dimensions; intervals of half width 0.1."""
    rng = np.random.default_rng(seed)
    lengths = {"timestep": timesteps, "sample": samples, "replicate": 2}
    coords = {name: np.array(values, dtype=object) for name, values in COORDS.items()}
    coords |= {"timestep": np.linspace(900, 0, timesteps).astype(int), "sample": np.arange(samples)}
    coords["replicate"] = np.arange(2)
    lengths |= {name: len(values) for name, values in COORDS.items()}
    ds = xr.Dataset(coords=coords)
    for name, about in VARIABLES.items():
        values = rng.random([lengths[dim] for dim in about.dims]).astype(np.float32)
        ds[name] = about.dims, (values > 0.4).astype(np.uint8) if name == "right" else values
    for name, about in VARIABLES.items():
        if "bound" in about.dims and (whole := name.removesuffix("_interval")) in ds:
            ds[name].values[..., 0], ds[name].values[..., 1] = ds[whole] - 0.1, ds[whole] + 0.1
    return ds.assign_attrs(kind=ORACLE, run_id="abcdef0123", configuration_hash="0123456789abcdef")


def saved(path, **settings):
    """The path of a saved one."""
    save(made(**settings), path)
    return path
