"""Where along the trajectory the gradient of each classifier is unstable.

python runs/where_unstable.py runs/both.zarr

The statistic is the mean cosine of gradients about 1/28 of diffusion time apart; the cosine of successive gradients
would depend on the number of steps. It is compared with two standards. The first is the threshold 0.4 of the signature
`unstable`; the mean is below it if its whole 95 % interval is. The second is the permutation null, the cosines of
gradients of different samples: a gradient inside it does not remember its own trajectory. Where the null reaches high
cosines, all samples of a class are pulled in the same direction, and being inside it is no fault.
"""

import sys

import numpy as np
import xarray as xr

import gradscope
from gradscope.analysis import permutation_null
from gradscope.analysis.cells import cell_name, cells
from gradscope.analysis.signatures import CURVES

NAME = "gradient_lag_cosine"
THRESHOLD = next(signature.threshold for signature in CURVES if signature.name == "unstable")


def ranges(timestep: np.ndarray, flags: np.ndarray) -> str:
    """Timesteps whose flag is set; a run of them reads ``979 to 459``."""
    runs = np.split(np.arange(len(flags)), np.flatnonzero(np.diff(flags.astype(int))) + 1)
    names = [timestep[run].tolist() for run in runs if flags[run[0]]]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in names) or "nowhere"


def answer(ds: xr.Dataset) -> list[str]:
    """Three lines per cell."""
    lines = []
    curves = gradscope.stability.curves(ds, [NAME])
    for cell in cells(ds):
        here = curves.sel(cell)
        seen = (here[f"{NAME}_n"] > 0).values
        if not seen.any():
            lines.append(f"{cell_name(cell)}: nothing written")
            continue
        here = here.isel(timestep=seen)
        timestep, mean = here["timestep"].values, here[NAME].values
        low, high = here[f"{NAME}_interval"].values.T
        below = high < THRESHOLD
        worst = int(mean.argmin())
        lines.append(
            f"{cell_name(cell)}: N = {int(here[NAME + '_n'].max())}, lowest at t = {timestep[worst]}: "
            f"{mean[worst]:.2f} [{low[worst]:.2f}, {high[worst]:.2f}]"
        )
        lines.append(
            f"  below {THRESHOLD:g} at {int(below.sum())} of {len(below)} timesteps: {ranges(timestep, below)}"
        )
        lines.append(f"  {_null(ds, cell, seen, mean)}")
    return lines


def _null(ds: xr.Dataset, cell: dict, seen: np.ndarray, mean: np.ndarray) -> str:
    if "gradient" not in ds:
        return "no permutation null: it needs the gradients, which the probe `gradient` records"
    null = permutation_null(ds, cell).isel(timestep=seen)
    low, high = null["null_interval"].values.T
    inside = (low <= mean) & (mean <= high)
    where = f"{inside.sum()} of {len(inside)}: {ranges(null['timestep'].values, inside)}"
    highest = f"; it reaches {high[inside].max():.2f} there" if inside.any() else ""
    return f"inside the permutation null ({int(null['null_n'].max())} pairs) at {where}{highest}"


if __name__ == "__main__":
    print("\n".join(answer(gradscope.open(sys.argv[1]))))
