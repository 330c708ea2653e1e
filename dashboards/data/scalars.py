"""Scalars of a store that may still grow: each is read once, and of what changed only the chunks that did."""

from collections.abc import Callable, Mapping
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.data.disk import readable
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS
from gradscope.store.chunks import Chunks, Index, Stamp

OVER = (*CELL_DIMS, "sample", "timestep")
Place = tuple[slice, ...]


class Marker:
    """The array ``written``, as it was when its files had these stamps.

    The writer sets it last: what it marks is there, in files that are at least as new.
    """

    def __init__(
        self, chunks: Chunks, stamps: Mapping[Index, Stamp | None], values: NDArray[np.uint8], changed: list[Place]
    ) -> None:
        self._chunks, self._stamps = chunks, stamps
        self.values = values
        """Over `OVER`."""
        self.values.flags.writeable = False
        self.changed = changed
        """Where it is not what it was before."""

    @classmethod
    def first(cls, chunks: Chunks) -> "Marker":
        stamps = {index: chunks.stamp(index) for index in chunks}
        return cls(chunks, stamps, chunks.whole(), [])

    def next(self) -> "Marker":
        """The marker now; only chunks with another stamp are read."""
        stamps = {index: self._chunks.stamp(index) for index in self._chunks}
        values, changed = self.values.copy(), []
        for index in (index for index, found in stamps.items() if found != self._stamps[index]):
            place = self._chunks.place(index)
            new = self._chunks.read(index)
            if not np.array_equal(new, values[place]):
                values[place] = new
                changed.append(place)
        return Marker(self._chunks, stamps, values, changed)


class Scalars:
    """Values over `OVER` and dimensions of their own, masked where the marker is 0: NaN, and -1 for integers.

    Parameters
    ----------
    room
        Bytes that they may take together.
    """

    def __init__(self, chunks: Callable[[str], Chunks], marker: Marker, room: int) -> None:
        self._chunks, self._marker, self._room = chunks, marker, room
        self._held: dict[str, NDArray[Any]] = {}
        self._stale: dict[str, list[Place]] = {}
        self._lock = Lock()

    def after(self, marker: Marker) -> "Scalars":
        """The scalars of a store that has grown: what was read stays, but for where the marker changed."""
        then = Scalars(self._chunks, marker, self._room)
        with self._lock:
            then._held = dict(self._held)
            then._stale = {name: self._stale.get(name, []) + marker.changed for name in self._held}
        return then

    def read(self, name: str) -> NDArray[Any]:
        """The values, not to be written to.

        Raises
        ------
        GradscopeError
            There is no room for them.
        """
        with self._lock:
            if name not in self._held:
                self._held[name] = self._masked(self._whole(name), ...)
            elif places := self._stale.pop(name, []):
                values = self._held[name].copy()
                for place in places:
                    values[place] = self._masked(self._chunks(name).part(place), place)
                self._held[name] = values
            self._held[name].flags.writeable = False
            return self._held[name]

    def _whole(self, name: str) -> NDArray[Any]:
        array = self._chunks(name).array
        size = prod(array.shape) * array.dtype.itemsize
        if size > self._room - sum(values.nbytes for values in self._held.values()):
            raise GradscopeError(
                f"{name} takes {readable(size)}; the dashboard holds up to {readable(self._room)} of a store's "
                "diagnostics. gradscope.open reads it in Python"
            )
        return self._chunks(name).whole()

    def _masked(self, values: NDArray[Any], place: Any) -> NDArray[Any]:
        nothing = self._marker.values[place] == 0
        values[nothing] = -1 if values.dtype.kind == "i" else np.nan
        return values
