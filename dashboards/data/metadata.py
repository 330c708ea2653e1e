"""A store's metadata, and the small arrays that do not grow with the run."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
import zarr

from dashboards.data import limits
from dashboards.data.scalars import SCALAR_DIMS
from gradscope.errors import GradscopeError
from gradscope.store import open_store
from gradscope.store.chunks import Chunks, stamp
from gradscope.store.locations.location import ROOT, locate
from gradscope.store.reader import open_arrays

if TYPE_CHECKING:
    from gradscope.analysis.cells import Cell


class Metadata:
    """A store as its ``zarr.json`` describes it.

    Raises
    ------
    GradscopeError
        The path has no store of gradscope, or one that is too large to show.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = stamp(path / ROOT)  # before reading: a later change then has another stamp
        self.resident = limits.check_store(path) if self.stamp else 0
        """Bytes in memory besides the diagnostics."""
        self.ds = open_store(path)
        if (got := self.ds["written"].dims if "written" in self.ds else None) != SCALAR_DIMS:
            raise GradscopeError(f"{path} has no marker `written` over {', '.join(SCALAR_DIMS)}; got {got}")
        self.digest = hashlib.sha256(locate(path).read(ROOT) or b"").digest()
        self._group = open_arrays(path)
        self._chunks: dict[str, Chunks] = {}

    @cached_property
    def along_t(self) -> tuple[str, ...]:
        """Variables over cells, sample and timestep, and perhaps dimensions of their own; no tensors."""
        dims = {str(name): v.dims for name, v in self.ds.data_vars.items()}
        found = (name for name, each in dims.items() if each[:6] == SCALAR_DIMS and "channel" not in each)
        return tuple(name for name in found if name != "written")

    @cached_property
    def scalars(self) -> tuple[str, ...]:
        """Variables along t without dimensions of their own: the findings look at these."""
        return tuple(name for name in self.along_t if self.ds[name].dims == SCALAR_DIMS)

    @cached_property
    def static(self) -> xr.Dataset:
        """All variables without timestep and channel, in memory, and the coordinates."""
        names = [name for name, v in self.ds.data_vars.items() if not {"timestep", "channel"} & set(v.dims)]
        image = {dim: np.arange(self.ds.sizes[dim]) for dim in ("channel", "height", "width") if dim in self.ds.sizes}
        return self.ds[names].assign_coords(self.ds.coords).assign_coords(image).compute()

    @cached_property
    def cells(self) -> "list[Cell]":
        from gradscope.analysis.cells import cells

        return list(cells(self.ds))

    @cached_property
    def tensor_steps(self) -> tuple[int, int] | None:
        """Number of samples with tensors and the stride of their steps; None where the configuration lacks them."""
        recording = json.loads(self.ds.attrs.get("configuration", "{}")).get("recording", {})
        if not {"tensor_samples", "tensor_every"} <= set(recording):
            return None
        return min(recording["tensor_samples"], self.ds.sizes["sample"]), recording["tensor_every"]

    def chunks(self, name: str) -> Chunks:
        """The chunks of a variable on disk."""
        if name not in self._chunks:
            array = self._group[name]
            assert isinstance(array, zarr.Array)
            self._chunks[name] = Chunks(self.path, array)
        return self._chunks[name]

    def why_no_scalar(self, name: str) -> str:
        """Why there is no scalar of this name."""
        from gradscope.analysis.missing import absent

        return absent(self.ds, name) or f"{name} is not a scalar; one of: {', '.join(self.along_t)}"
