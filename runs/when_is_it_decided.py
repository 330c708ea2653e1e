"""When the class of a sample is decided along the trajectory.

python runs/when_is_it_decided.py runs/both.zarr

Prints two shares of decided samples for each cell and timestep, with Wilson's 95 % interval:

guide: from this timestep on, the class that the guide sees in its own input no longer changes;
judge: from this timestep on, it is the class that the judge sees in the finished image. A sample is never decided if
the guide's last class is another one.
"""

import sys

import numpy as np
import xarray as xr

import gradscope
from gradscope.analysis import require
from gradscope.analysis.cells import cell_name, cells, place
from gradscope.analysis.written import finished
from gradscope.intervals import wilson

SHOWN = 5
"""Number of timesteps in the table."""
WIDTH = 44
"""Width of the first column in characters."""


def decided(seen: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Whether the class equals `final` from each step to the end, ``(samples, timesteps)``.

    Parameters
    ----------
    seen
        Classes, ``(samples, timesteps)``, in sampling order.
    final
        The final class of each sample, ``(samples,)``.
    """
    same = seen == final[:, None]
    return np.logical_and.accumulate(same[:, ::-1], axis=1)[:, ::-1]


def answer(ds: xr.Dataset) -> list[str]:
    """A small table for each cell."""
    require(ds, "predicted_class")
    timestep = ds["timestep"].values
    shown = np.unique(np.linspace(0, len(timestep) - 1, SHOWN).round().astype(int))
    lines = []
    for cell in cells(ds):
        part = ds.isel(place(ds, cell))
        seen = part["predicted_class"].transpose("sample", "timestep").values
        done = finished(part)
        finals = {"guide": (done, seen[:, -1])}
        if "judge_prediction" in ds:
            judge = part["judge_prediction"].values
            finals["judge"] = (done & (judge >= 0), judge)
        name = f"{cell_name(cell)}: decided by".ljust(WIDTH)
        lines.append(name + "".join(f"{f't = {timestep[k]}':>19}" for k in shown))
        for who, (rows, final) in finals.items():
            n = int(rows.sum())
            if not n:
                lines.append(f"  {who}: no finished sample")
                continue
            fixed = decided(seen[rows], final[rows]).sum(axis=0)
            half = np.flatnonzero(fixed >= n / 2)
            when = f"half of N = {n} by t = {timestep[half[0]]}" if len(half) else f"never half of N = {n}"
            numbers = zip(fixed[shown] / n, *wilson(fixed[shown], n), strict=True)
            shares = (f"{share:.2f} [{low:.2f}, {high:.2f}]" for share, low, high in numbers)
            lines.append(f"  {who}: {when}".ljust(WIDTH) + "".join(f"{text:>19}" for text in shares))
    return lines


if __name__ == "__main__":
    print("\n".join(answer(gradscope.open(sys.argv[1]))))
