"""A store's metadata, and the small arrays that do not grow with the run."""

import hashlib
import json
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
import zarr

from dashboards.data import limits
from dashboards.data.last_repetition import LastRepetition
from dashboards.data.remote import StoreAddress, root_stamp
from gradscope.errors import GradscopeError
from gradscope.store import open_store
from gradscope.store.chunks import Chunks
from gradscope.store.dims import REPEAT, is_tensor, over, sample_dims
from gradscope.store.locations.location import ROOT, locate
from gradscope.store.opening import marker_chunks, open_arrays
from gradscope.store.sample_kind import sample_kind, why_not_drawn

if TYPE_CHECKING:
    from gradscope.analysis.cells import Cell


class Metadata:
    """A store as its ``zarr.json`` describes it.

    Raises
    ------
    GradscopeError
        The path has no store of gradscope, or one that is too large to show.
    """

    def __init__(self, path: StoreAddress) -> None:
        self.path = path
        self.stamp = root_stamp(path)  # before reading: a later change then has another stamp
        self.resident = limits.check_store(path) if self.stamp else 0
        """Bytes in memory besides the diagnostics."""
        self.ds = ds = open_store(path)
        self.scalar_dims = over(ds)
        """Dimensions of a scalar: those of the cells, sample and timestep."""
        # Its variables have the dimensions, names and attributes that are shown; `chunks` reads the values.
        self.ds = ds = _with_whole_timesteps(ds.isel({REPEAT: -1}, drop=True) if REPEAT in ds.dims else ds)
        if (got := ds["written"].dims if "written" in ds else None) != self.scalar_dims:
            raise GradscopeError(f"{path} has no marker `written` over {', '.join(self.scalar_dims)}; got {got}")
        own = sample_dims(ds)
        self._sample = {dim: ds.sizes[dim] for dim in own if dim in ds.sizes}
        self.kind = sample_kind(own)
        self.sample_shape = tuple(self._sample.values())
        self.not_drawn = why_not_drawn(ds)
        """Why there are no pictures of samples; empty if there are."""
        self.digest = hashlib.sha256(locate(path).read(ROOT) or b"").digest()
        self._group = open_arrays(path)
        self._chunks: dict[str, Chunks] = {}

    @cached_property
    def along_t(self) -> tuple[str, ...]:
        """Variables over cells, sample and timestep, and perhaps dimensions of their own; no tensors."""
        dims = {str(name): v.dims for name, v in self.ds.data_vars.items() if not is_tensor(self.ds, str(name))}
        along = len(self.scalar_dims)
        return tuple(name for name, each in dims.items() if each[:along] == self.scalar_dims and name != "written")

    @cached_property
    def scalars(self) -> tuple[str, ...]:
        """Variables along t without dimensions of their own: the findings look at these."""
        return tuple(name for name in self.along_t if self.ds[name].dims == self.scalar_dims)

    @cached_property
    def static(self) -> xr.Dataset:
        """All variables without timestep and the sample's dimensions, in memory, and the coordinates."""
        ds = self.ds
        names = [name for name, v in ds.data_vars.items() if "timestep" not in v.dims and not is_tensor(ds, str(name))]
        sample = {dim: np.arange(length) for dim, length in self._sample.items()}
        return ds[names].assign_coords(ds.coords).assign_coords(sample).compute()

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
        """The chunks of a variable on disk; of repeated timesteps the last repetition."""
        if name not in self._chunks:
            array, marker = self._group[name], marker_chunks(locate(self.path), self._group)
            assert isinstance(array, zarr.Array)
            self._chunks[name] = marker if name == "written" else Chunks(self.path, array)
            if REPEAT in (getattr(array.metadata, "dimension_names", None) or ()):
                self._chunks[name] = LastRepetition(self._chunks[name], marker)
        return self._chunks[name]

    def why_no_scalar(self, name: str) -> str:
        """Why there is no scalar of this name."""
        from gradscope.analysis.missing import absent

        return absent(self.ds, name) or f"{name} is not a scalar; one of: {', '.join(self.along_t)}"


def _with_whole_timesteps(ds: xr.Dataset) -> xr.Dataset:
    """The store with timesteps that are whole numbers, each once, which links and the slider need.

    They are rounded. Where that would make two alike, they are the numbers of steps that are left.
    """
    timestep = ds["timestep"].values
    whole = np.round(timestep).astype(np.int64)
    about = ds["timestep"].attrs
    if len(np.unique(whole)) < len(whole):
        whole = np.arange(len(whole))[::-1]
        about = about | {"long_name": "number of steps that are left"}
    elif np.array_equal(whole, timestep):
        return ds
    indexed = [name for name in ("timestep", "step") if name in ds.indexes]
    return ds.drop_indexes(indexed).assign_coords(timestep=("timestep", whole, about))
