"""Several stores of one grid as one dataset, with a dimension `run`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import xarray as xr

from gradscope.analysis.selections import restore_dims
from gradscope.errors import GradscopeError
from gradscope.store.dims import OF_TIMESTEPS, cell_dims, sample_dims
from gradscope.store.locations.location import StorePath
from gradscope.store.reader import open_store

RUN = "run"
"""Dimension of several stores; it is one of the dimensions of the cells."""
_MERGED = ("configuration", "evaluation")
"""Attributes with JSON, of which the entries stay that all runs have alike."""

Stores = Sequence[StorePath] | Mapping[str, StorePath | xr.Dataset]


def open_many(stores: Stores) -> xr.Dataset:
    """Open several stores of the same grid as one dataset, lazily.

    Parameters
    ----------
    stores
        Paths or URLs; or names with paths, URLs or open datasets, which may be selections:
        ``{"seed 0": "a.zarr", "seed 1": gradscope.open("b.zarr").isel(sample=slice(32))}``. Without names, a run has
        that of its store, without ``.zarr``.

    Returns
    -------
    xarray.Dataset
        As `gradscope.open` gives it, with ``run`` as a further dimension of the cells: analyses and figures take it as
        they take one store. Variables that a store lacks, or that belong to no cell and differ, are left out;
        ``attrs["left_out"]`` names them. ``seed`` lies over run and sample where the seeds differ.

    Raises
    ------
    GradscopeError
        There are no stores, two have the same name, one cannot be read, or their grids differ: cells, samples, labels,
        timesteps, the noise schedule, the guided timesteps or the shape of a sample.

    Examples
    --------
    >>> one = gradscope.open("runs/both.zarr").sel(classifier_input=["x_t"], stabilizer=["none"], guidance_scale=[0.5])
    >>> runs = gradscope.open_many({"both": one, "quickstart": "runs/quickstart.zarr"})
    >>> runs.sizes["run"], runs.gradscope.summary().judge_accuracy.dims[-1]
    (2, 'run')
    """
    named = _named(stores)
    opened = {
        name: restore_dims(each if isinstance(each, xr.Dataset) else open_store(each)) for name, each in named.items()
    }
    (first_name, first), *others = opened.items()
    if RUN in cell_dims(first):
        raise GradscopeError(f"{first_name} already has a dimension {RUN!r}: name all of its stores at once")
    for name, ds in others:
        _refuse_difference(first_name, first, name, ds)
    order = {dim: first[dim].values.tolist() for dim in cell_dims(first)}
    return _joined({name: ds.sel(order) for name, ds in opened.items()})


def _named(stores: Stores) -> dict[str, Any]:
    if isinstance(stores, Mapping):
        named = {str(name): each for name, each in stores.items()}
    else:
        if isinstance(stores, str) or not isinstance(stores, Sequence):
            raise GradscopeError(f"takes a list of stores, or a mapping of names to stores, got {stores!r:.80}")
        if any(isinstance(each, xr.Dataset) for each in stores):
            raise GradscopeError('open datasets need names: {"a": ds, "b": "b.zarr"}')
        names = [PurePosixPath(str(each)).name.removesuffix(".zarr") for each in stores]
        if again := [name for name in names if names.count(name) > 1]:
            raise GradscopeError(f"two stores have the name {again[0]!r}; give names: {{'a': path, 'b': path}}")
        named = dict(zip(names, stores, strict=True))
    if not named:
        raise GradscopeError("got no stores; name one or more")
    return named


def _refuse_difference(a_name: str, a: xr.Dataset, b_name: str, b: xr.Dataset) -> None:
    """Raise GradscopeError where two grids differ."""

    def refuse(what: str, mine: Any, other: Any) -> None:
        raise GradscopeError(
            f"grids differ: {what} is {mine} in {a_name}, {other} in {b_name}; "
            "give names and selections: {'a': ds_a.sel(...), 'b': ds_b.sel(...)}"
        )

    for what, of in {"cell_dims": cell_dims, "sample_dims": sample_dims}.items():
        if of(a) != of(b):
            refuse(what, of(a), of(b))
    for dim in cell_dims(a):
        mine, other = (ds[dim].values.tolist() for ds in (a, b))
        if sorted(mine) != sorted(other):
            refuse(dim, mine, other)
    for dim in ("sample", "timestep", *sample_dims(a)):
        if a.sizes.get(dim) != b.sizes.get(dim):
            refuse(f"the length of {dim}", a.sizes.get(dim), b.sizes.get(dim))
    for name in ("sample", "label", "timestep", *OF_TIMESTEPS, "class"):
        if name in a.coords and name in b.coords:  # stores of schema 1 have fewer
            mine, other = a[name].values, b[name].values
            if not _equal(mine, other):
                refuse(name, _shortly(mine), _shortly(other))
    mine, other = (_guidance(ds).get("interval") for ds in (a, b))
    if mine != other:
        refuse("guidance.interval", mine, other)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.kind == "f":
        return bool(np.allclose(a, b, rtol=1e-6, atol=0, equal_nan=True))
    return a.tolist() == b.tolist()


def _shortly(values: np.ndarray) -> str:
    listed = np.atleast_1d(values).tolist()
    return f"{listed[:4]}".replace("]", ", ...]") if len(listed) > 4 else f"{listed}"


def _guidance(ds: xr.Dataset) -> Mapping[str, Any]:
    configuration = json.loads(ds.attrs.get("configuration", "{}"))
    return dict(configuration.get("guidance", configuration))


def _joined(runs: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Datasets of one grid, with the runs as the last dimension of the cells."""
    every = list(runs.values())
    first, cells = every[0], cell_dims(every[0])
    found: dict[str, xr.Variable] = {}
    for name in (str(name) for name in first.data_vars if all(name in ds for ds in every)):
        variables = [ds[name].variable for ds in every]
        if set(cells) <= set(variables[0].dims):
            found[name] = _stacked(variables, cells)
        elif all(_alike(variable, variables[0]) for variable in variables):
            found[name] = variables[0]
    coords: dict[str, Any] = {str(name): coord for name, coord in first.coords.items()} | {RUN: list(runs)}
    seeds = [ds["seed"].variable for ds in every if "seed" in ds.coords]
    if seeds and not all(_alike(seed, seeds[0]) for seed in seeds):
        coords["seed"] = _stacked(seeds, ())
    attrs = _common([ds.attrs for ds in every])
    for name in (name for name in _MERGED if all(name in ds.attrs for ds in every)):
        attrs[name] = json.dumps(_common([json.loads(ds.attrs[name]) for ds in every]))
    attrs |= {
        "cell_dims": [*cells, RUN],
        "runs": json.dumps({name: ds.attrs.get("run_id", "") for name, ds in runs.items()}),
        "left_out": sorted({str(name) for ds in every for name in ds.data_vars} - set(found)),
    }
    return xr.Dataset(found, coords=coords, attrs=attrs)


def _stacked(variables: Sequence[xr.Variable], cells: Sequence[str]) -> xr.Variable:
    """Variables along `RUN`, which comes after the dimensions of the cells."""
    rest = [dim for dim in variables[0].dims if dim not in cells]
    return xr.Variable.concat(variables, RUN).transpose(*cells, RUN, *rest)


def _alike(a: xr.Variable, b: xr.Variable) -> bool:
    return a.dims == b.dims and a.shape == b.shape and a.dtype.kind == b.dtype.kind and _equal(a.values, b.values)


def _common(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries that all mappings have alike; of nested mappings, their common entries."""
    first, *others = mappings
    found = {}
    for key, value in first.items():
        values = [value, *(other.get(key) for other in others)]
        if all(isinstance(each, Mapping) for each in values):
            found[key] = _common(values)
        elif all(each == value for each in values[1:]):
            found[key] = value
    return found
