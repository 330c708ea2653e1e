"""What a store's metadata say, and what in it does not grow with the run."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
import zarr

from dashboards.data import limits
from dashboards.data.scalars import OVER
from gradscope.errors import GradscopeError
from gradscope.store import open_store
from gradscope.store.chunks import Chunks, stamp
from gradscope.store.locations.location import ROOT, locate
from gradscope.store.reader import open_arrays

if TYPE_CHECKING:
    from gradscope.analysis.cells import Cell


class Contents:
    """A store as its ``zarr.json`` describes it.

    Raises
    ------
    GradscopeError
        There is no store at the path, not one of gradscope's, or one that is too large to be shown.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = stamp(path / ROOT)  # before it is read: what is written meanwhile is seen next time
        self.resident = limits.check(path) if self.stamp else 0
        """Bytes that were, or will be, read of what does not grow with the diagnostics."""
        self.ds = open_store(path)
        if (got := self.ds["written"].dims if "written" in self.ds else None) != OVER:
            raise GradscopeError(f"{path} has no marker `written` over {', '.join(OVER)}; got {got}")
        self.digest = hashlib.sha256(locate(path).read(ROOT) or b"").digest()
        self._group = open_arrays(path)
        self._chunks: dict[str, Chunks] = {}

    @cached_property
    def timed(self) -> tuple[str, ...]:
        """Variables over cells, sample and timestep, and perhaps dimensions of their own."""
        names = {str(n): v.dims for n, v in self.ds.data_vars.items() if v.dims[:6] == OVER and "channel" not in v.dims}
        return tuple(name for name in names if name != "written")

    @cached_property
    def plain(self) -> tuple[str, ...]:
        """Those without dimensions of their own: what findings look at."""
        return tuple(name for name in self.timed if self.ds[name].dims == OVER)

    @cached_property
    def small(self) -> xr.Dataset:
        """Everything without timestep and channel, in memory, and the coordinates."""
        names = [name for name, v in self.ds.data_vars.items() if not {"timestep", "channel"} & set(v.dims)]
        image = {dim: np.arange(self.ds.sizes[dim]) for dim in ("channel", "height", "width") if dim in self.ds.sizes}
        return self.ds[names].assign_coords(self.ds.coords).assign_coords(image).compute()

    @cached_property
    def cells(self) -> "list[Cell]":
        from gradscope.analysis.cells import cells

        return list(cells(self.ds))

    @cached_property
    def kept(self) -> tuple[int, int] | None:
        """How many samples have tensors, and every how many steps, where the configuration says so."""
        recording = json.loads(self.ds.attrs.get("configuration", "{}")).get("recording", {})
        if not {"tensor_samples", "tensor_every"} <= set(recording):
            return None
        return min(recording["tensor_samples"], self.ds.sizes["sample"]), recording["tensor_every"]

    def chunks(self, name: str) -> Chunks:
        if name not in self._chunks:
            array = self._group[name]
            assert isinstance(array, zarr.Array)
            self._chunks[name] = Chunks(self.path, array)
        return self._chunks[name]

    def refusal(self, name: str) -> str:
        """Why there is no scalar of this name."""
        from gradscope.analysis.missing import absent

        return absent(self.ds, name) or f"{name} is no scalar; one of: {', '.join(self.timed)}"
