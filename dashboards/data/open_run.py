"""One open store: its data, its growth while it is recorded, and values computed from it."""

import hashlib
import re
from collections.abc import Callable, Hashable
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dashboards.data.cache import Cache
from dashboards.data.limits import MEMORY
from dashboards.data.metadata import Metadata
from dashboards.data.remote import StoreAddress, root_stamp
from dashboards.data.scalars import Marker, Scalars
from gradscope.errors import GradscopeError
from gradscope.store.chunks import Chunks
from gradscope.store.locations.location import locate
from gradscope.store.sample_kind import SampleKind

if TYPE_CHECKING:  # the analysis takes a second to import, most of it scipy: not before the server listens
    from gradscope.analysis.cells import Cell
    from gradscope.analysis.findings import Finding

TENSORS = ("gradient", "update", "direction", "x_t", "pred_original_sample")
_MEMO_SIZE = 64
"""Computed values that are kept for one store."""
T = TypeVar("T")


class OpenRun:
    """One store, opened read-only. Several threads may use it.

    Raises
    ------
    GradscopeError
        The path has no store of gradscope, or one that is too large to show.
    """

    def __init__(self, path: StoreAddress, key: str | None = None) -> None:
        self.path = path
        self._lock = Lock()
        self._now = _Snapshot.first(Metadata(path))
        self.key = key or short_key(self._now.metadata.ds.attrs.get("run_id"), path)
        """Name of the run in URLs; it stays while the store is open."""

    def refresh(self) -> bool:
        """Look for changes on disk; True where there are any.

        This is cheap: it compares the times of the files that can change; in an object store it reads the metadata,
        which change when the run is finished. Where the store cannot be read at this
        moment, for example during an evaluation, the run stays as it was.
        """
        with self._lock:
            before = self._now
            try:
                self._now = before.next()
            except Exception:  # the values read before can still be shown
                return False
            return self._now.version != before.version

    @property
    def version(self) -> str:
        """A text that changes exactly when the marker, the evaluation or the status changes."""
        return self._now.version

    @property
    def ds(self) -> xr.Dataset:
        """The whole store, lazy, as `gradscope.open` gives it."""
        return self._now.metadata.ds

    @property
    def live(self) -> bool:
        """Whether a process is recording the run."""
        return self.ds.attrs.get("status") == "recording" and locate(self.path).locked()

    @property
    def cells(self) -> "list[Cell]":
        """All cells; the index of a cell is its number."""
        return self._now.metadata.cells

    def cell(self, number: int) -> "Cell":
        """Return one of `cells`.

        Raises
        ------
        GradscopeError
            There is no cell of this number.
        """
        if not 0 <= number < len(self.cells):
            raise GradscopeError(f"cell {number}: there are {len(self.cells)} cells, from 0")
        return self.cells[number]

    @property
    def not_drawn(self) -> str:
        """Why samples and their tensors are not drawn; empty if they are."""
        return self._now.metadata.not_drawn

    @property
    def tensors(self) -> tuple[str, ...]:
        """Those of `TENSORS` that the store has; none where they cannot be drawn."""
        return () if self.not_drawn else tuple(name for name in TENSORS if name in self.ds)

    @property
    def has_pictures(self) -> bool:
        """Whether the store has final samples that can be drawn."""
        return "image" in self.ds and not self.not_drawn

    @property
    def kind(self) -> SampleKind:
        """What a sample is, which decides how it is drawn."""
        return self._now.metadata.kind

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample; empty where the store has none."""
        return self._now.metadata.sample_shape

    @property
    def tensor_samples(self) -> int:
        """Samples 0 to n - 1 have tensors."""
        return self._now.tensor_steps[0]

    @property
    def tensor_every(self) -> int:
        """Stride of the steps with tensors, from step 0."""
        return self._now.tensor_steps[1]

    def scalars(self, *names: str) -> xr.Dataset:
        """Diagnostics in memory, masked as `gradscope.open` masks them: the input of analysis and figures.

        Parameters
        ----------
        names
            Variables over cells, sample and timestep, and perhaps dimensions of their own; all by default. When a
            store grows, only its changed chunks are read again.

        Returns
        -------
        xarray.Dataset
            These variables, ``written``, all variables without timestep except images (verdicts, accuracies,
            distances, intervals), all coordinates, and the store's attributes. The sample's dimensions have
            coordinates, so that their sizes are known. Read-only.

        Raises
        ------
        GradscopeError
            There is no such variable, or it is a tensor.
        """
        now = self._now
        metadata = now.metadata
        chosen = [name for name in names or metadata.along_t if name not in metadata.static and name != "written"]
        if unknown := [name for name in chosen if name not in metadata.along_t]:
            raise GradscopeError(metadata.why_no_scalar(unknown[0]))

        def assembled() -> xr.Dataset:
            read = {name: (metadata.ds[name].dims, now.scalars.read(name), metadata.ds[name].attrs) for name in chosen}
            marker = (metadata.scalar_dims, now.marker.values, metadata.ds["written"].attrs)
            return metadata.static.assign(read | {"written": marker})

        return now.memo.get(("scalars", *chosen), assembled)

    def values(self, name: str) -> NDArray[Any]:
        """One variable of `scalars`, over cells, sample, timestep and dimensions of its own. Read-only."""
        return self._now.scalars.read(name)

    def written(self, cell: int, sample: int) -> NDArray[np.uint8]:
        """The marker of one trajectory, ``(timesteps,)``: 0 nothing, 1 scalars, 3 scalars and tensors.

        Raises
        ------
        GradscopeError
            There is no such cell or sample.
        """
        self.cell(cell)
        values = self._now.marker.values
        if not 0 <= sample < values.shape[-2]:
            raise GradscopeError(f"sample {sample}: there are {values.shape[-2]} samples, from 0")
        return values.reshape(-1, *values.shape[-2:])[cell, sample]

    def chunks(self, name: str) -> Chunks:
        """The chunks of a variable on disk, unmasked."""
        return self._now.metadata.chunks(name)

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returns, computed once for each version of the store."""
        return self._now.memo.get(key, make)

    def findings(self) -> "list[Finding]":
        """The findings, most severe first."""
        from gradscope.analysis.signatures import find

        return self.memo("findings", lambda: find(self.scalars(*self._now.metadata.scalars)))

    def untested(self) -> dict[str, str]:
        """Signatures that this store cannot test, each with what it would need."""
        from gradscope.analysis.signatures import untested

        return self.memo("untested", lambda: untested(self.scalars(*self._now.metadata.scalars)))


def short_key(run_id: object, path: StoreAddress) -> str:
    """The first 8 characters of a run's id; of the path's hash where they are not fit for a URL."""
    short = str(run_id)[:8]
    if run_id and re.fullmatch(r"[0-9A-Za-z_-]+", short):
        return short
    return hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]


class _Snapshot:
    """A store at one moment."""

    def __init__(self, metadata: Metadata, marker: Marker, scalars: Scalars) -> None:
        self.metadata, self.marker, self.scalars = metadata, marker, scalars
        self.version = hashlib.sha256(metadata.digest + marker.values.tobytes()).hexdigest()[:16]
        self.memo = Cache(_MEMO_SIZE)

    @classmethod
    def first(cls, metadata: Metadata) -> "_Snapshot":
        marker = Marker.first(metadata.chunks("written"))
        return cls(metadata, marker, Scalars(metadata.chunks, marker, MEMORY - metadata.resident))

    def next(self) -> "_Snapshot":
        """The store now; the same snapshot where nothing changed."""
        metadata = self.metadata
        if root_stamp(metadata.path) != metadata.stamp:
            return _Snapshot.first(Metadata(metadata.path))
        if metadata.ds.attrs.get("status") != "recording":
            return self
        marker = self.marker.next()
        if not marker.changed:
            return self
        return _Snapshot(metadata, marker, self.scalars.after(marker))

    @cached_property
    def tensor_steps(self) -> tuple[int, int]:
        if not any(name in self.metadata.ds for name in TENSORS):
            return 0, 1
        if self.metadata.tensor_steps is not None:
            return self.metadata.tensor_steps
        kept = np.any(self.marker.values >= 3, axis=tuple(range(self.marker.values.ndim - 2)))
        steps = np.flatnonzero(kept.any(axis=0))
        return int(kept.any(axis=1).sum()), int(steps[1] - steps[0]) if len(steps) > 1 else 1
