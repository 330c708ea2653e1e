"""One open store: what it holds, what is new in it, and what was computed from it."""

import hashlib
import re
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dashboards.data.cache import Cache
from dashboards.data.limits import MEMORY
from dashboards.data.metadata import Contents
from dashboards.data.scalars import OVER, Marker, Scalars
from gradscope.errors import GradscopeError
from gradscope.store.chunks import Chunks, stamp
from gradscope.store.locations.location import locate

if TYPE_CHECKING:  # importing the analysis takes a second, most of it scipy's: not before the server listens
    from gradscope.analysis.cells import Cell
    from gradscope.analysis.findings import Finding

TENSORS = ("gradient", "update", "direction", "x_t", "pred_original_sample")
_KEPT = 64
"""So many computed values are kept a store."""
T = TypeVar("T")


class Recorded:
    """One store, opened read-only. Several threads may use it.

    Raises
    ------
    GradscopeError
        There is no store at the path, or not one of gradscope's.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        self.path = path
        self._lock = Lock()
        self._now = _Moment.first(Contents(path))
        self.key = key or short_key(self._now.contents.ds.attrs.get("run_id"), path)
        """Names the run in URLs; it stays while the store is open."""

    def refresh(self) -> bool:
        """Look for what is new on disk; True where something changed.

        Costs little: the times of the files that can change. A store that cannot be read at this moment, as while it
        is being evaluated, stays as it was.
        """
        with self._lock:
            before = self._now
            try:
                self._now = before.next()
            except Exception:  # whatever it is: what was read before can still be shown
                return False
            return self._now.version != before.version

    @property
    def version(self) -> str:
        """Changes exactly when the content changes: what is written, the evaluation, the status."""
        return self._now.version

    @property
    def ds(self) -> xr.Dataset:
        """All of the store, lazy, as `gradscope.open` gives it."""
        return self._now.contents.ds

    @property
    def live(self) -> bool:
        """Whether a process is recording the run."""
        return self.ds.attrs.get("status") == "recording" and locate(self.path).locked()

    @property
    def cells(self) -> "list[Cell]":
        """Every cell; its number is its place here."""
        return self._now.contents.cells

    def cell(self, number: int) -> "Cell":
        """One of `cells`.

        Raises
        ------
        GradscopeError
            There is none of this number.
        """
        if not 0 <= number < len(self.cells):
            raise GradscopeError(f"cell {number}: there are {len(self.cells)} cells, from 0")
        return self.cells[number]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Those of `TENSORS` that the store has."""
        return tuple(name for name in TENSORS if name in self.ds)

    @property
    def tensor_samples(self) -> int:
        """Samples 0 to n - 1 have tensors."""
        return self._now.kept[0]

    @property
    def tensor_every(self) -> int:
        """Tensors are kept every so many steps, from the first."""
        return self._now.kept[1]

    def scalars(self, *names: str) -> xr.Dataset:
        """Diagnostics in memory, masked as `gradscope.open` masks them: what the analysis and the figures need.

        Parameters
        ----------
        names
            Variables over cells, sample and timestep, and perhaps dimensions of their own; all of them where none is
            named. Of a store that grows only what changed is read again.

        Returns
        -------
        xarray.Dataset
            These variables, ``written``, everything without timestep but the images (verdicts, accuracies, distances,
            intervals), every coordinate, and the store's attributes. The image's dimensions have coordinates, so that
            their sizes are known. Not to be written to.

        Raises
        ------
        GradscopeError
            There is no such variable, or it is a tensor.
        """
        now = self._now
        contents = now.contents
        chosen = [name for name in names or contents.timed if name not in contents.small and name != "written"]
        if unknown := [name for name in chosen if name not in contents.timed]:
            raise GradscopeError(contents.refusal(unknown[0]))
        timed = {name: (contents.ds[name].dims, now.scalars.read(name), contents.ds[name].attrs) for name in chosen}
        marker = (OVER, now.marker.values, contents.ds["written"].attrs)
        return contents.small.assign(timed | {"written": marker})

    def values(self, name: str) -> NDArray[Any]:
        """One variable of `scalars`, over cells, sample, timestep and dimensions of its own. Not to be written to."""
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
        if not 0 <= sample < values.shape[4]:
            raise GradscopeError(f"sample {sample}: there are {values.shape[4]} samples, from 0")
        return values.reshape(-1, *values.shape[4:])[cell, sample]

    def chunks(self, name: str) -> Chunks:
        """The chunks of a variable on disk, unmasked."""
        return self._now.contents.chunks(name)

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once for the current version of the store. Of many the least used are dropped."""
        return self._now.memo.get(key, make)

    def findings(self) -> "list[Finding]":
        """What fails, most severe first."""
        from gradscope.analysis.signatures import find

        return self.memo("findings", lambda: find(self.scalars(*self._now.contents.plain)))

    def untested(self) -> dict[str, str]:
        """Signatures that this store does not suffice for, and what would."""
        from gradscope.analysis.signatures import untested

        return self.memo("untested", lambda: untested(self.scalars(*self._now.contents.plain)))


def short_key(run_id: object, path: Path) -> str:
    """The first 8 characters of a run's id, or of the path's hash where they cannot stand in a URL."""
    short = str(run_id)[:8]
    if run_id and re.fullmatch(r"[0-9A-Za-z_-]+", short):
        return short
    return hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]


class _Moment:
    """A store as it was when it was looked at."""

    def __init__(self, contents: Contents, marker: Marker, scalars: Scalars) -> None:
        self.contents, self.marker, self.scalars = contents, marker, scalars
        self.version = hashlib.sha256(contents.digest + marker.values.tobytes()).hexdigest()[:16]
        self.memo = Cache(_KEPT)

    @classmethod
    def first(cls, contents: Contents) -> "_Moment":
        marker = Marker.first(contents.chunks("written"))
        return cls(contents, marker, Scalars(contents.chunks, marker, MEMORY - contents.resident))

    def next(self) -> "_Moment":
        """The store now; itself where nothing changed."""
        contents = self.contents
        if stamp(contents.path / "zarr.json") != contents.stamp:
            return _Moment.first(Contents(contents.path))
        if contents.ds.attrs.get("status") != "recording":
            return self
        marker = self.marker.next()
        if not marker.changed:
            return self
        return _Moment(contents, marker, self.scalars.after(marker))

    @cached_property
    def kept(self) -> tuple[int, int]:
        if not any(name in self.contents.ds for name in TENSORS):
            return 0, 1
        if self.contents.kept is not None:
            return self.contents.kept
        there = np.any(self.marker.values >= 3, axis=(0, 1, 2, 3))
        steps = np.flatnonzero(there.any(axis=0))
        return int(there.any(axis=1).sum()), int(steps[1] - steps[0]) if len(steps) > 1 else 1
