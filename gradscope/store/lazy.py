"""Recorded arrays as lazy variables: masked where nothing is written yet, and read directly where that will do."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.store.chunks import Chunks, pieces


@dataclass(frozen=True)
class Recorded:
    """An array over cells, sample, timestep and dimensions of its own, with what it takes to read it right."""

    values: Chunks
    marker: Chunks
    least: int
    """Of the marker, for a value to be there."""
    exponent: Chunks | None
    """Of values stored as float16, which come back as float32."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32) if self.exponent else self.values.array.dtype

    def read(self, where: tuple[int | slice, ...]) -> NDArray[Any]:
        """What is written there; elsewhere NaN, and -1 for integers."""
        over = where[: len(self.marker.shape)]
        there = self.marker.select(over) >= self.least  # first: it is set after the values
        values = self.values.select(where)
        if self.exponent:
            exponent = self.exponent.select(over).astype(np.int32)
            exponent = exponent.reshape(exponent.shape + (1,) * (values.ndim - exponent.ndim))
            values = np.ldexp(values.astype(np.float32), exponent)
        if not there.all():
            values = np.asarray(values)  # ldexp of a single value is no array
            values[~there] = -1 if values.dtype.kind == "i" else np.nan
        return values


@dataclass(frozen=True)
class Selection:
    """A part of a recorded array, read when it is made a numpy array."""

    recorded: Recorded
    where: tuple[int | range, ...]
    """For each dimension of the recorded array; ranges go forward."""

    @classmethod
    def whole(cls, recorded: Recorded) -> "Selection":
        return cls(recorded, tuple(map(range, recorded.values.shape)))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.recorded.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(w) for w in self.where if isinstance(w, range))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Lengths of the pieces of the store's chunks."""
        both = zip(self.where, self.recorded.values.size, strict=True)
        cut = [pieces(w, size) for w, size in both if isinstance(w, range)]
        return tuple(tuple(there.stop - there.start for _, there, _ in found) or (0,) for found in cut)

    def __getitem__(self, index: Sequence[int | slice]) -> "Selection":
        rest = iter(index)
        return Selection(self.recorded, tuple(w[next(rest)] if isinstance(w, range) else w for w in self.where))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        where = [w if isinstance(w, int) else slice(w.start, w.stop, w.step) for w in self.where]
        return np.asarray(self.recorded.read(tuple(where)), dtype)


class StoredVariable(xr.Variable):
    """A variable over a dask array: asked for its values, it reads what it selects of a recorded array directly.

    For everything else it has a graph over the same selection, a task for every chunk; what is computed from it is a
    variable as any other. (xarray does not mix subclasses of dask's arrays with these.)
    """

    __slots__ = ("_selected",)
    _selected: tuple[str, Selection]

    @classmethod
    def of(cls, dims: Sequence[Hashable], selection: Selection, attrs: Mapping[Any, Any]) -> "StoredVariable":
        import dask.array as da  # takes a second, which the dashboard has not before it listens

        meta = np.empty((0,) * selection.ndim, selection.dtype)
        graph = da.from_array(selection, selection.chunks, name=False, fancy=False, meta=meta)
        variable = cls(dims, graph, attrs)
        variable._selected = graph.name, selection
        return variable

    @property
    def selection(self) -> Selection | None:
        """What the data are; None where they have become something else: dask names them anew then."""
        name, selection = getattr(self, "_selected", ("", None))
        return selection if getattr(self._data, "name", None) == name else None

    def __getitem__(self, key: Any) -> "StoredVariable":
        selection = self.selection
        if selection and isinstance(key, tuple) and len(key) == self.ndim and all(map(_selects, key)):
            dims = [dim for dim, k in zip(self.dims, key, strict=True) if isinstance(k, slice)]
            return StoredVariable.of(dims, selection[key], self.attrs)
        return super().__getitem__(key)

    def _replace(self, *args: Any, **kwargs: Any) -> "StoredVariable":
        new: StoredVariable = super()._replace(*args, **kwargs)
        if hasattr(self, "_selected"):
            new._selected = self._selected
        return new

    @property
    def values(self) -> NDArray[Any]:
        selection = self.selection
        return np.asarray(selection) if selection else super().values

    @values.setter
    def values(self, values: Any) -> None:
        self.data = values


def _selects(key: Any) -> bool:
    """Whether it is a number, or a slice that goes forward."""
    if isinstance(key, slice):
        return key.step is None or key.step > 0
    return isinstance(key, int | np.integer) and not isinstance(key, bool)
