"""How much of a store is written so far."""

from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Written:
    """How much of a store is written."""

    share: float
    """Share of all timesteps, over all samples of all cells."""
    finished: xr.DataArray
    """Per cell: the number of samples whose timesteps are all written."""
    samples: int
    """Number of samples that each cell will have."""

    @property
    def complete(self) -> bool:
        """Whether every cell has all its samples."""
        return bool((self.finished == self.samples).all())

    def __str__(self) -> str:
        if self.complete:
            return f"complete: {self.samples} samples in each of {self.finished.size} cells"
        full = int((self.finished == self.samples).sum())
        counts = f"{int(self.finished.min())} to {int(self.finished.max())} of {self.samples} samples finished per cell"
        return f"{100 * self.share:.0f} % written: {full} of {self.finished.size} cells complete, {counts}"


def written(ds: xr.Dataset) -> Written:
    """How much of a store is written; every analysis states it beside its result.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> print(written(synthetic.trajectories(samples=8)))
    complete: 8 samples in each of 1 cells
    """
    recorded = ds["written"] > 0
    counts = xr.Dataset({"share": recorded.mean(), "finished": _whole(ds).sum("sample")}).compute()
    return Written(float(counts["share"]), counts["finished"], ds.sizes["sample"])


def finished(cell: xr.Dataset) -> np.ndarray:
    """Which samples of one cell have all their timesteps written, ``(samples,)``."""
    return _whole(cell).values


def _whole(ds: xr.Dataset) -> xr.DataArray:
    """Which samples have all their timesteps; of a watched loop, which may take no gradient at some, any of them."""
    recorded = ds["written"] > 0
    return recorded.any("timestep") if ds.attrs.get("watched") else recorded.all("timestep")
