"""What a store holds: its cells, how much of them is written, and who records what is missing."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from gradscope.errors import GradscopeError, one_of
from gradscope.store.dims import cell_dims, is_tensor
from probes.catalogue import CATALOGUE

Cell = Mapping[str, Any]
"""A value along each dimension of the cells: names, and the guidance scale as a number."""

_ADDED_BY_EVALUATE = (
    "own_",
    "judge_",
    "transfer_ratio",
    "class_accuracy",
    "confusion",
    "fd_",
    "kd_",
    "fid",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
)
"""Beginnings of their names."""
_IN_MEMORY = 2**30


@dataclass(frozen=True)
class Written:
    """How much of a store is written."""

    share: float
    """Of the timesteps of all samples of all cells."""
    finished: xr.DataArray
    """Samples of which every timestep is written, over the cells."""
    samples: int
    """Samples of a cell."""

    @property
    def complete(self) -> bool:
        return bool((self.finished == self.samples).all())

    def __str__(self) -> str:
        if self.complete:
            return f"complete: {self.samples} samples in each of {self.finished.size} cells"
        full = int((self.finished == self.samples).sum())
        counts = f"{int(self.finished.min())} to {int(self.finished.max())} of {self.samples} samples finished a cell"
        return f"{100 * self.share:.0f} % written: {full} of {self.finished.size} cells complete, {counts}"


def in_memory(ds: xr.Dataset) -> xr.Dataset:
    """The same store with all but its tensors and images read, once, where they take less than 1 GiB.

    Raises
    ------
    GradscopeError
        A chunk cannot be read.
    """
    small = ds[[name for name in ds.data_vars if not is_tensor(ds, str(name))]]
    if small.nbytes >= _IN_MEMORY:
        return ds
    try:
        return ds.assign(small.compute())
    except GradscopeError:
        raise
    except Exception as error:  # zarr and codecs raise of many kinds
        raise GradscopeError(f"the store is damaged: {' '.join(str(error).split())}") from error


def written(ds: xr.Dataset) -> Written:
    """How much of a store is written; an analysis says so beside its result."""
    there = ds["written"] > 0
    counts = xr.Dataset({"share": there.mean(), "finished": there.all("timestep").sum("sample")}).compute()
    return Written(float(counts["share"]), counts["finished"], ds.sizes["sample"])


def finished(cell: xr.Dataset) -> np.ndarray:
    """Which samples of one cell have all their timesteps written, ``(samples,)``."""
    return (cell["written"] > 0).all("timestep").values


def guidance(ds: xr.Dataset) -> Mapping[str, Any]:
    """What the configuration says of guidance; empty where the store has none."""
    settings = json.loads(ds.attrs.get("configuration", "{}"))
    return dict(settings.get("guidance", settings))


def factored(ds: xr.Dataset) -> bool:
    """Whether a gradient has the factor 1 - p of the recorded belief: that of log p has, unless noised inputs' mean."""
    settings = guidance(ds)
    return settings.get("objective") == "log_prob" and not settings.get("smoothgrad")


def class_names(ds: xr.Dataset) -> list[str]:
    """Names of the target classes, by the evaluation, or else the run; where neither has them, the labels' numbers."""
    named = ds["class"].values.tolist() if "class" in ds.coords else list(ds.attrs.get("classes", ()))
    return named or [str(number) for number in range(int(ds["label"].max()) + 1)]


def class_name(names: Sequence[str], number: int) -> str:
    """Name of a class; its number where it has none, as a class that a guide sees and no sample is to have."""
    return names[number] if 0 <= number < len(names) else str(number)


def judged(cell: xr.Dataset) -> np.ndarray:
    """Which samples of one cell are finished and have a verdict by the judge, ``(samples,)``.

    There is none for an image that is not finite, nor for samples recorded after the evaluation.
    """
    return finished(cell) & (cell["judge_prediction"] >= 0).values


def seen_right(cell: xr.Dataset, name: str) -> np.ndarray:
    """In which samples of one cell a verdict, such as ``judge_prediction``, is the target class, ``(samples,)``."""
    return np.asarray(cell[name] == cell["label"])


def absent(ds: xr.Dataset, name: str) -> str:
    """Why a variable is not in the store, and what adds it; empty where it is there."""
    if name in ds:
        return ""
    if name in CATALOGUE and (probe := CATALOGUE[name].probe):
        return f"{name} is not in this store; the probe `{probe}` records it: add it under `probes`"
    if name == "judge_prediction" and "own_prediction" in ds:
        return "judge_prediction is not in this store; the run has no judge"
    if name.startswith(_ADDED_BY_EVALUATE):
        return f"{name} is not in this store; `gradscope evaluate STORE` adds it"
    return f"{name} is not in this store; {one_of(name, map(str, ds.data_vars))}"


def require(ds: xr.Dataset, *names: str) -> None:
    """Raise GradscopeError where one of the variables is not in the store, saying what records it."""
    if missing := [reason for name in names if (reason := absent(ds, name))]:
        raise GradscopeError("\n".join(missing))


def cells(ds: xr.Dataset) -> Iterator[Cell]:
    """Every cell, the last dimension fastest."""
    dims = cell_dims(ds)
    values = [ds[dim].values.tolist() for dim in dims]
    return (dict(zip(dims, value, strict=True)) for value in product(*values))


def place(ds: xr.Dataset, cell: Mapping[str, str | float]) -> dict[str, int]:
    """Indices of one cell over the dimensions of the cells.

    Parameters
    ----------
    cell
        Its names and its guidance scale; dimensions of size one may be left out.

    Raises
    ------
    GradscopeError
        A name is unknown, or one that is needed is left out.
    """
    dims = cell_dims(ds)
    if unknown := [str(dim) for dim in cell if dim not in dims]:
        raise GradscopeError(f"cell: unknown dimension {unknown[0]!r}; {one_of(unknown[0], dims)}")
    return {dim: _index(dim, ds[dim].values.tolist(), cell.get(dim)) for dim in dims}


def _index(dim: str, values: list, wanted: str | float | None) -> int:
    if wanted is None:
        if len(values) > 1:
            raise GradscopeError(f"cell: which {dim}? one of: {', '.join(map(str, values))}")
        return 0
    numeric = isinstance(values[0], float) and isinstance(wanted, int | float)
    for i, value in enumerate(values):
        if np.isclose(value, wanted, atol=0) if numeric else value == wanted:
            return i
    raise GradscopeError(f"cell: unknown {dim} {wanted!r}; {one_of(wanted, map(str, values))}")
