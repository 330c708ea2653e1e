"""Verify a store: check its metadata and chunks, then recompute its scalars from its tensors."""

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.selections import restore_dims
from gradscope.errors import GradscopeError
from gradscope.store import cell_dims, open_store
from gradscope.store.dims import COORDINATES, REPEAT, over
from gradscope.store.locations.location import ROOT, StorePath, locate
from gradscope.verification.chunks import Integrity, examine
from gradscope.verification.metadata import RECORD_AGAIN, Finding
from gradscope.verification.ranges import VERDICTS, outside, range_of, unlike_levels
from gradscope.verification.recomputation import NORMS, expected, finite_so_far

_SLAB = 2**20  # most values of a scalar that are compared together


@dataclass(frozen=True)
class Verification:
    """The result of `verify`: what is wrong with a store, and how much was checked."""

    findings: tuple[Finding, ...]
    """What is wrong; empty for a sound store."""
    remarks: tuple[str, ...]
    """Remarks that are not about damage."""
    chunks: int
    """Number of chunks that were read."""
    bytes: int
    """Number of bytes that were read."""
    values: int
    """Number of scalar values that were recomputed."""
    recomputed: tuple[str, ...]
    """Names of the arrays whose values were recomputed."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(where: StorePath) -> Verification:
    """Check everything that a store marks as written; the rest of an unfinished store is not checked.

    The metadata must agree with each other and with the files. Every marked chunk must exist, have the right size and
    pass its checksum. Norms, cosines and other scalars must be those of the stored tensors. Memory grows only with the
    number of files.

    Parameters
    ----------
    where
        A path or URL.

    Returns
    -------
    Verification
        The findings, and how much was checked.

    Raises
    ------
    GradscopeError
        There is no store, this version does not read it, or it cannot be reached.

    Examples
    --------
    >>> gradscope.verify("guided.zarr").sound
    True
    """
    location = locate(where)
    integrity = examine(location)
    values = _Values(integrity)
    if integrity.readable:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # from damaged values that overflow
                ds = open_store(location)
                if REPEAT in ds.dims:
                    values.remarks.append("values of repeated timesteps are not recomputed")
                else:
                    ds = restore_dims(ds)
                    in_order = ds["written"].dims == over(ds)
                    values.compare(ds if in_order else ds.transpose(*over(ds), ..., missing_dims="ignore"))
        except GradscopeError as error:
            values.findings.append(Finding("", ROOT, str(error), RECORD_AGAIN))
    return Verification(
        (*integrity.findings, *values.findings),
        (*integrity.remarks, *values.remarks),
        integrity.chunks,
        integrity.bytes,
        sum(values.counts.values()),
        tuple(sorted(values.counts)),
    )


@dataclass
class _Worst:
    """Where an array differs most from its recomputed values."""

    wrong: int = 0
    excess: float = -1.0
    place: str = ""
    what: str = ""


class _Values:
    """Compares stored values with recomputed ones and with their ranges."""

    def __init__(self, integrity: Integrity) -> None:
        self._damaged = integrity.damaged
        self._worst: dict[str, _Worst] = {}
        self.remarks: list[str] = []
        self.counts: Counter[str] = Counter()
        """Number of recomputed values, by array."""
        self.findings: list[Finding] = []

    def compare(self, ds: xr.Dataset) -> None:
        """Recompute all values that can be, block by block."""
        for slab in _slabs(ds, self._is_damaged):
            for name, (value, tolerance) in expected(slab).items():
                self._compare(slab, name, value, tolerance)
            for name in NORMS & set(slab.data_vars):
                self._refuse_nan(slab, name)
            for scalar in (str(key) for key, variable in slab.data_vars.items() if variable.dims == over(slab)):
                self._refuse_outside(slab, scalar)
        self.findings += _beside(ds)
        for name, worst in sorted(self._worst.items()):
            what = f"{worst.what}; {worst.wrong} of its values are wrong, this one most"
            self.findings.append(Finding(name, worst.place, what, f"it, or the tensor, is damaged: {RECORD_AGAIN}"))
        scalars = (str(name) for name, variable in ds.data_vars.items() if variable.dims == over(ds))
        left = sorted(n for n in scalars if n != "written" and not n.endswith("_exponent") and not self.counts[n])
        if left and self.counts:
            self.remarks.append(f"not recomputed, because nothing in the store determines them: {', '.join(left)}")

    def _is_damaged(self, place: tuple[slice, ...]) -> bool:
        """Whether a damaged chunk, which is reported already, overlaps these cells and samples."""
        return any(
            all(a.start < b.stop and b.start < a.stop for a, b in zip(place, found, strict=False))
            for name, chunks in self._damaged.items()
            for found in chunks.values()
            if len(found) > len(place)
        )

    def _compare(self, slab: xr.Dataset, name: str, value: NDArray[Any], tolerance: NDArray[Any]) -> None:
        """Compare with `value`, which is NaN where it is unknown, and infinite where the stored value is not finite."""
        stored, known = slab[name].values.astype(np.float64), ~np.isnan(value)
        with np.errstate(invalid="ignore", over="ignore"):
            excess = np.abs(stored - value) / tolerance
        both = np.isfinite(stored), np.isfinite(value)
        excess = np.where(both[0] & both[1], excess, np.where(both[0] == both[1], 0, np.inf))
        self.counts[name] += int(known.sum())
        excess = np.where(known, excess, 0)
        self._note(slab, name, excess, lambda at: f"stored {stored[at]:.7g}, recomputed {value[at]:.7g}")

    def _refuse_nan(self, slab: xr.Dataset, name: str) -> None:
        wrong = np.isnan(slab[name].values) & finite_so_far(slab)
        self._note(slab, name, np.where(wrong, np.inf, 0), lambda at: "stored NaN, but the gradient is finite")

    def _refuse_outside(self, slab: xr.Dataset, name: str) -> None:
        low, high = range_of(slab, name)
        wrong = outside(slab, name) & (slab["written"].values > 0)
        stored = slab[name].values
        bounds = f"which lies outside of [{low:g}, {high:g}]"
        self._note(slab, name, np.where(wrong, np.inf, 0), lambda at: f"stored {stored[at]:.7g}, {bounds}")

    def _note(self, slab: xr.Dataset, name: str, excess: NDArray[Any], what: Callable[[tuple[int, ...]], str]) -> None:
        """Remember the value that exceeds its tolerance most."""
        if not (excess > 1).any():
            return
        worst = self._worst.setdefault(name, _Worst())
        worst.wrong += int((excess > 1).sum())
        if excess.max() > worst.excess:
            at = tuple(int(i) for i in np.unravel_index(excess.argmax(), excess.shape))
            place = ", ".join(f"{dim} {slab[dim].values[i]}" for dim, i in zip(over(slab), at, strict=True))
            worst.excess, worst.place, worst.what = float(excess.max()), place, what(at)


def _beside(ds: xr.Dataset) -> Iterator[Finding]:
    """Findings about verdicts and coordinates outside their ranges."""
    evaluated = json.loads(ds.attrs.get("evaluation", "{}")).get("variables", ())
    for name in dict.fromkeys((*VERDICTS, *COORDINATES, *evaluated)):
        if name not in ds.variables or not (wrong := outside(ds, name)).any():
            continue
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = ", ".join(f"{dim} {ds[dim].values[i]}" for dim, i in zip(ds[name].dims, at, strict=True))
        low, high = range_of(ds, name)
        what = (
            f"{ds[name].values[at]}, which lies outside of [{low:g}, {high:g}], as {int(wrong.sum())} of its values do"
        )
        remedy = RECORD_AGAIN if name in COORDINATES else "`gradscope evaluate` makes it again"
        yield Finding(name, place, f"stored {what}", remedy)
    for name in ("alphas_cumprod", "log_snr"):
        wrong_levels = unlike_levels(ds, name)
        if wrong_levels is not None and wrong_levels.any() and not outside(ds, name).any():
            place = f"timestep {np.atleast_1d(ds['timestep'].values)[wrong_levels][0]}"
            what = f"it is not that of signal and noise, as {int(wrong_levels.sum())} of its values are not"
            yield Finding(name, place, what, RECORD_AGAIN)


def _slabs(ds: xr.Dataset, skip: Callable[[tuple[slice, ...]], bool]) -> Iterator[xr.Dataset]:
    """Parts of the store: one cell, usually one block of samples, all timesteps. Only their tensors are lazy."""
    along = over(ds)
    sizes = [ds.sizes[dim] for dim in cell_dims(ds)]
    rows = max((ds["written"].variable.chunksizes or {"sample": (1,)})["sample"], default=1)
    rows = max(1, min(rows, _SLAB // max(1, ds.sizes["timestep"])))
    ds = ds.set_coords([name for name in COORDINATES if name in ds])
    coordinates = {name: ds[name].load() for name in ds.coords}
    ds = ds[[name for name, variable in ds.data_vars.items() if variable.dims[: len(along)] == along]]
    scalars = [str(name) for name, variable in ds.data_vars.items() if variable.dims == along]
    scalars.sort(key=lambda name: name != "written")  # before the values that it marks: a recording may be running
    for cell in np.ndindex(*sizes):
        for first in range(0, ds.sizes["sample"], rows):
            place = (*(slice(i, i + 1) for i in cell), slice(first, min(first + rows, ds.sizes["sample"])))
            if skip(place):
                continue
            slab = ds.assign_coords(coordinates).isel(dict(zip(along, place, strict=False)))
            slab = slab.assign({name: (along, slab[name].variable.values) for name in scalars})
            if slab["written"].values.any():
                yield slab
