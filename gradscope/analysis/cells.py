"""The cells of a store: all of them, and where one of them lies."""

from collections.abc import Iterator, Mapping
from itertools import product
from math import isclose
from typing import Any

import xarray as xr

from gradscope.errors import GradscopeError, one_of
from gradscope.store.dims import CELL_DIMS, cell_dims

Cell = Mapping[str, Any]
"""One value per cell dimension: names, and the guidance scale as a number."""


def cells(ds: xr.Dataset) -> Iterator[Cell]:
    """Every cell, in the order of the dimensions; the last dimension varies fastest.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> list(cells(synthetic.trajectories(samples=2, timesteps=2)))
    [{'classifier': 'synthetic', 'classifier_input': 'x_t', 'stabilizer': 'none', 'guidance_scale': 0.3}]
    """
    dims = cell_dims(ds)
    values = [ds[dim].values.tolist() for dim in dims]
    return (dict(zip(dims, value, strict=True)) for value in product(*values))


def place(ds: xr.Dataset, cell: Mapping[str, str | float]) -> dict[str, int]:
    """Index of one cell along each cell dimension: ``ds.isel(place(ds, cell))`` selects it.

    Parameters
    ----------
    cell
        Its names and its guidance scale. Dimensions of size one may be left out.

    Raises
    ------
    GradscopeError
        A name is unknown, or a necessary one is missing.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> place(synthetic.trajectories(samples=2, timesteps=2), {"guidance_scale": 0.3})
    {'classifier': 0, 'classifier_input': 0, 'stabilizer': 0, 'guidance_scale': 0}
    """
    dims = cell_dims(ds)
    if unknown := [str(dim) for dim in cell if dim not in dims]:
        raise GradscopeError(f"cell: unknown dimension {unknown[0]!r}; {one_of(unknown[0], dims)}")
    # An index is there already; its values would be made into an array each time.
    return {dim: _index(dim, ds.variables[dim].to_index().tolist(), cell.get(dim)) for dim in dims}


def cell_name(cell: Mapping[str, Any]) -> str:
    """A cell in words; names along further dimensions come last. Dimensions may be left out.

    Examples
    --------
    >>> cell = {"classifier": "robust", "classifier_input": "x0", "stabilizer": "none", "guidance_scale": 0.5}
    >>> cell_name(cell)
    'robust, x0, no stabiliser, s = 0.5'
    >>> cell_name({"classifier": "robust", "guidance_scale": 0.0})
    'robust, unguided'
    """
    four = [name_along(dim, cell[dim]) for dim in CELL_DIMS if dim in cell]
    return ", ".join([*four, *(f"{dim} {value}" for dim, value in cell.items() if dim not in CELL_DIMS)])


def name_along(dim: str, value: Any) -> str:
    """One name of a cell in words, which says its dimension where the name alone does not.

    Examples
    --------
    >>> name_along("stabilizer", "none"), name_along("guidance_scale", 0.5), name_along("guidance_scale", 0.0)
    ('no stabiliser', 's = 0.5', 'unguided')
    """
    if dim == "guidance_scale":
        return f"s = {value:g}" if value else "unguided"
    return "no stabiliser" if (dim, value) == ("stabilizer", "none") else str(value)


def _index(dim: str, values: list, wanted: str | float | None) -> int:
    if wanted is None:
        if len(values) > 1:
            raise GradscopeError(f"cell: which {dim}? one of: {', '.join(map(str, values))}")
        return 0
    for i, value in enumerate(values):
        if isinstance(value, float) and isinstance(wanted, int | float):
            found = isclose(value, wanted, rel_tol=1e-5)
        else:
            found = value == wanted
        if found:
            return i
    raise GradscopeError(f"cell: unknown {dim} {wanted!r}; {one_of(wanted, map(str, values))}")
