"""Scalars of a store that may still grow: each is read once, and later only its changed chunks."""

from collections.abc import Callable, Mapping
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscope.errors import GradscopeError
from gradscope.store.chunks import Chunks, Index, Stamp
from gradscope.text import size as size_text

Region = tuple[slice, ...]


class Marker:
    """The array ``written`` at one moment, with the stamps of its files.

    The writer sets the marker last: the values that it marks are on disk already.
    """

    def __init__(
        self, chunks: Chunks, stamps: Mapping[Index, Stamp | None], values: NDArray[np.uint8], changed: list[Region]
    ) -> None:
        self._chunks, self._stamps = chunks, stamps
        self.values = values
        """Over cells, sample and timestep."""
        self.values.flags.writeable = False
        self.changed = changed
        """Regions that differ from the marker before."""

    @classmethod
    def first(cls, chunks: Chunks) -> "Marker":
        stamps = {index: chunks.stamp(index) for index in chunks}
        return cls(chunks, stamps, chunks.whole(), [])

    def next(self) -> "Marker":
        """Read the marker as it is now; only chunks with another stamp are read."""
        stamps = {index: self._chunks.stamp(index) for index in self._chunks}
        values, changed = self.values.copy(), []
        for index in (index for index, found in stamps.items() if found != self._stamps[index]):
            region = self._chunks.place(index)
            new = self._chunks.read(index)
            if not np.array_equal(new, values[region]):
                values[region] = new
                changed.append(region)
        return Marker(self._chunks, stamps, values, changed)


class Scalars:
    """Values over cells, sample, timestep and dimensions of their own; NaN, or -1 for integers, where the marker is 0.

    Parameters
    ----------
    room
        Bytes that they may take together.
    """

    def __init__(self, chunks: Callable[[str], Chunks], marker: Marker, room: int) -> None:
        self._chunks, self._marker, self._room = chunks, marker, room
        self._held: dict[str, NDArray[Any]] = {}
        self._stale: dict[str, list[Region]] = {}
        self._lock = Lock()

    def after(self, marker: Marker) -> "Scalars":
        """The scalars of the store after it grew: values stay, except where the marker changed."""
        then = Scalars(self._chunks, marker, self._room)
        with self._lock:
            then._held = dict(self._held)
            then._stale = {name: self._stale.get(name, []) + marker.changed for name in self._held}
        return then

    def read(self, name: str) -> NDArray[Any]:
        """Return the values; they are read-only.

        Raises
        ------
        GradscopeError
            There is no room for them.
        """
        with self._lock:
            if name not in self._held:
                self._held[name] = self._masked(name, self._whole(name), ())
            elif regions := self._stale.pop(name, []):
                values = self._held[name].copy()
                for region in regions:
                    values[region] = self._masked(name, self._chunks(name).part(region), region)
                self._held[name] = values
            self._held[name].flags.writeable = False
            return self._held[name]

    def _whole(self, name: str) -> NDArray[Any]:
        array = self._chunks(name).array
        size = prod(array.shape) * array.dtype.itemsize
        if size > self._room - sum(values.nbytes for values in self._held.values()):
            raise GradscopeError(
                f"{name} takes {size_text(size)}; the dashboard holds up to {size_text(self._room)} of a "
                "store's diagnostics. gradscope.open reads it in Python"
            )
        return self._chunks(name).whole()

    def _masked(self, name: str, values: NDArray[Any], region: Region) -> NDArray[Any]:
        unwritten = self._marker.values[region] == 0
        self._chunks(name).refuse_missing(region, ~unwritten, values, self._marker.values.ndim)
        values[unwritten] = -1 if values.dtype.kind == "i" else np.nan
        return values
