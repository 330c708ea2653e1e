"""What a store holds, by zarr alone: xarray and pandas take half a second to load."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from gradscope.errors import GradscopeError
from gradscope.store.locations.location import StorePath, locate
from gradscope.store.opening import attributes_of, marker_chunks, open_arrays, opened_again
from gradscope.store.untrusted.content import check_coordinates


class Described(NamedTuple):
    """A variable of a store: its type as readers get it, and its attributes."""

    dtype: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Contents:
    """Sizes, coordinates, variables and attributes of a store, as `open_store` has them."""

    sizes: Mapping[str, int]
    coordinates: Mapping[str, NDArray[Any]]
    variables: Mapping[str, Described]
    attributes: Mapping[str, Any]
    written: float
    """Share of the samples and timesteps that are written."""


@opened_again
def contents(where: StorePath) -> Contents:
    """What a store holds.

    Raises
    ------
    GradscopeError
        There is no store, it is damaged, or a later version wrote it.
    """
    location = locate(where)
    group = open_arrays(location)
    attributes = dict(group.attrs)
    try:
        arrays = {str(name): array for name, array in group.arrays()}
        named = _coordinates(arrays, attributes)
        values = {name: np.asarray(arrays[name][...]) for name in arrays if name in named}
        check_coordinates(values, attributes, str(location))
        data = {name: array for name, array in arrays.items() if name not in named}
        variables = {name: Described(_dtype(name, arrays), dict(array.attrs)) for name, array in data.items()}
        sizes = _sizes([*data.values(), *(arrays[name] for name in values)])
        marker = marker_chunks(location, group)
        written = float((marker.select((slice(None),) * len(marker.shape)) > 0).mean())
    except GradscopeError:
        raise
    except Exception as error:  # zarr and its codecs raise errors of many types
        raise GradscopeError(f"{location} is damaged: {error}") from error
    return Contents(sizes, values, variables, attributes_of(location, attributes), written)


def _dims_of(array: zarr.Array) -> tuple[str, ...]:
    """Names of an array's dimensions."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    return tuple(str(name) for name in names)


def _coordinates(arrays: Mapping[str, zarr.Array], attributes: Mapping[str, Any]) -> set[str]:
    """The arrays that xarray calls coordinates: those along their own dimension, and those that attributes name."""
    listed = [attributes, *(array.attrs for array in arrays.values())]
    named = {name for each in listed for name in str(each.get("coordinates", "")).split()}
    return {name for name, array in arrays.items() if name in named or _dims_of(array) == (name,)}


def _sizes(arrays: Iterable[zarr.Array]) -> dict[str, int]:
    """Length of each dimension, in the order of the arrays."""
    sizes: dict[str, int] = {}
    for array in arrays:
        for dim, size in zip(_dims_of(array), array.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"{array.name} has {size} along {dim}, another array has {sizes[dim]}")
    return sizes


def _dtype(name: str, arrays: Mapping[str, zarr.Array]) -> str:
    """The type of a variable; float16 with exponents is read as float32."""
    found = str(arrays[name].dtype)
    scaled = found == "float16" and f"{name}_exponent" in arrays and "timestep" in _dims_of(arrays[name])
    return "float32" if scaled else found
