"""Diagnostics recomputed from stored tensors: for stores recorded without the probes, and to check those with."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.contents import absent, cells, place
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS

_CLIP = 1.0  # diffusers' clip_sample_range, where nobody changed it
_CHUNKS = {"sample": 8, "timestep": 10}  # of data in memory
_OVER = (*CELL_DIMS, "sample", "timestep")

Floats = NDArray[np.float64]
Block = Mapping[str, Floats]
"""Tensors of some samples and timesteps, ``(n, 1 + steps, channel, height, width)``, the step before the first ahead of
them, and ``alphas_cumprod``, ``(steps,)``."""


def from_tensors(ds: xr.Dataset) -> xr.Dataset:
    """Recompute what the probes of the same names measure, from the tensors that the store holds.

    Parameters
    ----------
    ds
        A store with some of ``gradient``, ``update``, ``x_t`` and ``pred_original_sample``; read a chunk at a time.

    Returns
    -------
    xarray.Dataset
        float64 over cells, sample and timestep: gradient_norm, update_norm, gradient_cosine, update_cosine,
        gradient_lipschitz, unit_gradient_lipschitz, zero_fraction, finite_fraction, clipped_fraction, score_cosine
        and high_frequency_share, as far as their tensors exist. NaN where no tensor is stored, or, for what compares
        successive steps, where the tensor of the step before is not. ``attrs["absent"]`` says why the others are
        missing. ``ds.assign(from_tensors(ds))`` is a store that has them.

    Raises
    ------
    GradscopeError
        The store holds no tensor.
    """
    reasons = {name: "; ".join(filter(None, (absent(ds, n) for n in d.needs))) for name, d in _DEFINITIONS.items()}
    definitions = {name: d for name, d in _DEFINITIONS.items() if not reasons[name]}
    needed = sorted({name for d in definitions.values() for name in d.needs})
    if not needed:
        raise GradscopeError(absent(ds, "gradient"))
    tensors = ds[[*needed, "written"]]
    if ds[needed[0]].variable.chunks is None:
        tensors = tensors.chunk(_CHUNKS)
    out = {name: np.full([ds.sizes[dim] for dim in _OVER], np.nan) for name in definitions}
    successive = False
    for cell in cells(ds):
        index = place(ds, cell)
        for rows, steps, there, block in _blocks(tensors.isel(index), needed):
            follows = there[:, 1:] & there[:, :-1]
            successive |= bool(follows.any())
            for name, definition in definitions.items():
                with np.errstate(invalid="ignore", divide="ignore"):
                    values = definition.measure(block)
                known = follows if definition.successive else there[:, 1:]
                out[name][tuple(index.values())][rows, steps] = np.where(known, values, np.nan)
    for name, definition in definitions.items():
        if definition.successive and not successive:
            del out[name]
            reasons[name] = "no two successive timesteps have their tensors (recording.tensor_every)"
    return xr.Dataset(
        {name: (_OVER, values, {"note": definitions[name].note}) for name, values in out.items()},
        coords=ds.coords,
        attrs={"absent": {name: reason for name, reason in reasons.items() if reason}},
    )


def _blocks(cell: xr.Dataset, names: list[str]) -> Iterator[tuple[slice, slice, NDArray[np.bool_], Block]]:
    """Samples, timesteps, which tensors are stored (the step before ahead of them), and the tensors of each chunk."""
    stored = cell["written"].values >= 3
    alphas_cumprod = cell["alphas_cumprod"].values
    chunks = cell[names[0]].variable.chunksizes
    image = tuple(cell.sizes[dim] for dim in ("channel", "height", "width"))
    for rows in _slices(chunks["sample"]):
        n = rows.stop - rows.start
        last, last_there = {name: np.full((n, 1, *image), np.nan) for name in names}, np.zeros((n, 1), dtype=bool)
        for steps in _slices(chunks["timestep"]):
            here = stored[rows, steps]
            there = np.concatenate([last_there, here], axis=1)
            last_there = here[:, -1:]
            if not here.any():
                continue
            loaded = cell[names].isel(sample=rows, timestep=steps).transpose("sample", "timestep", ...).compute()
            tensors = {
                name: np.concatenate([last[name], loaded[name].values.astype(np.float64)], axis=1) for name in names
            }
            last = {name: values[:, -1:] for name, values in tensors.items()}
            yield rows, steps, there, {**tensors, "alphas_cumprod": alphas_cumprod[steps]}


def _slices(sizes: tuple[int, ...]) -> Iterator[slice]:
    ends = np.cumsum(sizes).tolist()
    return (slice(end - size, end) for end, size in zip(ends, sizes, strict=True))


def _sum(x: NDArray) -> Floats:
    return np.asarray(x.sum(axis=(-3, -2, -1)))


def _share(mask: NDArray[np.bool_]) -> Floats:
    return np.asarray(mask.mean(axis=(-3, -2, -1)))


def _norm(x: Floats) -> Floats:
    return np.sqrt(_sum(x**2))


def _cosine(a: Floats, b: Floats) -> Floats:
    return _sum(a * b) / (_norm(a) * _norm(b))


def _unit(x: Floats) -> Floats:
    length = _norm(x)
    return x / np.where(length == 0, 1, length)[..., None, None, None]


def _moved(x: Floats) -> Floats:
    return _norm(x[:, 1:] - x[:, :-1])


def _clipped(x_0: Floats) -> Floats:
    size = np.abs(x_0)
    return np.where((size > _CLIP).any(axis=(-3, -2, -1)), np.nan, _share(size >= _CLIP))


def _score_cosine(gradient: Floats, x_t: Floats, x_0: Floats, alphas_cumprod: Floats) -> Floats:
    alphas = alphas_cumprod[:, None, None, None]
    score = (np.sqrt(alphas) * x_0 - x_t) / np.sqrt(1 - alphas)
    return np.where((np.abs(x_0) >= _CLIP).any(axis=(-3, -2, -1)), np.nan, _cosine(gradient, score))


def _high_frequency_share(x: Floats) -> Floats:
    """Share of the spectral power at radial frequencies above half of Nyquist's, 0.25 cycles a pixel."""
    power = np.abs(np.fft.fft2(x)) ** 2
    radius = np.hypot(np.fft.fftfreq(x.shape[-2])[:, None], np.fft.fftfreq(x.shape[-1]))
    return _sum(power * (radius > 0.25 + 1e-9)) / _sum(power)  # not what rounding lifts above it


class _Definition(NamedTuple):
    needs: tuple[str, ...]
    measure: Callable[[Block], Floats]
    """Values of shape ``(n, steps)``."""
    successive: bool = False
    """Compares with the step before."""
    note: str = ""


_DEFINITIONS: Mapping[str, _Definition] = {
    "gradient_norm": _Definition(("gradient",), lambda b: _norm(b["gradient"][:, 1:])),
    "update_norm": _Definition(("update",), lambda b: _norm(b["update"][:, 1:])),
    "gradient_cosine": _Definition(
        ("gradient",), lambda b: _cosine(b["gradient"][:, 1:], b["gradient"][:, :-1]), successive=True
    ),
    "update_cosine": _Definition(
        ("update",), lambda b: _cosine(b["update"][:, 1:], b["update"][:, :-1]), successive=True
    ),
    "gradient_lipschitz": _Definition(
        ("gradient", "x_t"), lambda b: _moved(b["gradient"]) / _moved(b["x_t"]), successive=True
    ),
    "unit_gradient_lipschitz": _Definition(
        ("gradient", "x_t"), lambda b: _moved(_unit(b["gradient"])) / _moved(b["x_t"]), successive=True
    ),
    "zero_fraction": _Definition(("gradient",), lambda b: _share(b["gradient"][:, 1:] == 0)),
    "finite_fraction": _Definition(("gradient",), lambda b: _share(np.isfinite(b["gradient"][:, 1:]))),
    "clipped_fraction": _Definition(
        ("pred_original_sample",),
        lambda b: _clipped(b["pred_original_sample"][:, 1:]),
        note=f"for a clamp at {_CLIP:g}; NaN where pred_original_sample goes beyond it",
    ),
    "score_cosine": _Definition(
        ("gradient", "x_t", "pred_original_sample"),
        lambda b: _score_cosine(
            b["gradient"][:, 1:], b["x_t"][:, 1:], b["pred_original_sample"][:, 1:], b["alphas_cumprod"]
        ),
        note=f"NaN where pred_original_sample reaches {_CLIP:g}: the clamp hides model_output",
    ),
    "high_frequency_share": _Definition(("gradient",), lambda b: _high_frequency_share(b["gradient"][:, 1:])),
}
