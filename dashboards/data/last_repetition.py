"""Arrays over repeated timesteps, read as if they had no repetitions."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscope.store.chunks import Chunks, Index, Stamp, Where


class LastRepetition(Chunks):
    """One array of a store without its dimension `repeat`: of each timestep the last repetition that is written.

    The sampler went on from that one.

    Parameters
    ----------
    chunks
        The array's chunks. A chunk holds all repetitions of its timesteps.
    marker
        The chunks of ``written``, over cells, sample, timestep and repeat.
    """

    def __init__(self, chunks: Chunks, marker: Chunks) -> None:
        self._chunks, self._marker = chunks, marker
        self._repeat = len(marker.shape) - 1
        self.array, self._flat, self._folder = chunks.array, chunks._flat, chunks._folder
        self.shape, self.size, self.grid = map(self._without, (chunks.shape, chunks.size, chunks.grid))

    def _without(self, sizes: Index) -> Index:
        return (*sizes[: self._repeat], *sizes[self._repeat + 1 :])

    def stamp(self, index: Index) -> Stamp | None:
        """A value that changes whenever the chunk or its part of the marker is written: that says which is the last."""
        found = self._chunks.stamp(self._stored(index))
        if found is None:
            return None
        return sum(((*(self._marker.stamp(at) or (0,)),) for at in self._marked(index)), found)

    def is_missing(self, index: Index) -> bool:
        """Whether the file or object that holds a chunk does not exist, or cannot be read."""
        return self._chunks.is_missing(self._stored(index))

    def _key(self, index: Index) -> str:
        return self._chunks._key(self._stored(index))

    def _stored(self, index: Index) -> Index:
        """Index of the stored chunk, which holds all repetitions."""
        return (*index[: self._repeat], 0, *index[self._repeat :])

    def _marked(self, index: Index) -> Iterator[Index]:
        """The marker's chunks for a chunk of the array."""
        parts = zip(self.place(index)[: self._repeat], self._marker.size, strict=False)
        return product(*(range(part.start // size, (part.stop - 1) // size + 1) for part, size in parts), (0,))

    def select(self, where: Where) -> NDArray[Any]:
        """Read ``array[where]``, for integers and slices with positive steps."""
        outer = (*where, *[slice(None)] * (self._repeat - len(where)))[: self._repeat]
        values = self._chunks.select((*outer, slice(None), *where[self._repeat :]))
        written = self._marker.select((*outer, slice(None))) > 0
        last = (written.sum(axis=-1, keepdims=True) - 1).clip(min=0)
        axis = last.ndim - 1
        last = last.reshape(*last.shape, *[1] * (values.ndim - last.ndim))
        return np.take_along_axis(values, last, axis).squeeze(axis)

    def part(self, where: Any) -> NDArray[Any]:
        """Like `select`."""
        return self.select(where)
