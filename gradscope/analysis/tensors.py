"""Recompute diagnostics from stored tensors: for stores without the probes' values, and to check these values."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.missing import absent
from gradscope.errors import GradscopeError, one_of
from gradscope.store.dims import over, sample_dims
from probes.variable import IMAGE_DIMS

NO_FREQUENCIES = "frequencies over height and width are those of images, and these samples are not images"
_CLIP = 1.0  # default clip_sample_range of diffusers
_CHUNKS = {"sample": (8,), "timestep": (10,)}  # used for data in memory, which have no chunks
_READ_BYTES = 16 * 2**20  # float32 that each thread reads at once
_PIECE_BYTES = 2**20  # float64 of one tensor that is processed at once, to stay in a core's cache
_THREADS = min(4, os.cpu_count() or 1)

Floats = NDArray[np.float64]
Block = Mapping[str, Floats]
"""Tensors of one sample at successive timesteps, and ``signal``, ``(steps,)``. A tensor has the shape
``(1 + steps, *sample)``: its first row is the step before."""
Place = tuple[int | slice, ...]
"""Indices along the dimensions of cells, sample and timestep."""


def from_tensors(ds: xr.Dataset, names: Iterable[str] | None = None) -> xr.Dataset:
    """Recompute diagnostics that probes measure, from the tensors in the store.

    Parameters
    ----------
    ds
        A store with some of ``gradient``, ``update``, ``x_t`` and ``pred_original_sample``. It is read once, a few
        megabytes at a time, so memory does not grow with the store.
    names
        The diagnostics to recompute; by default all. Only the tensors that they need are read.

    Returns
    -------
    xarray.Dataset
        float64 over cells, sample and timestep: gradient_norm, update_norm, gradient_cosine, update_cosine,
        gradient_lipschitz, unit_gradient_lipschitz, zero_fraction, finite_fraction, clipped_fraction, score_cosine
        and high_frequency_share, if the store has their tensors. A value is NaN where its tensor is not stored; a
        diagnostic that compares successive steps also needs the tensor of the step before. ``attrs["absent"]`` says
        why a diagnostic is missing. ``ds.assign(from_tensors(ds))`` adds the diagnostics to a store.

    Raises
    ------
    GradscopeError
        A name is unknown, or the store has none of the necessary tensors.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories(samples=4, timesteps=10)
    >>> found = from_tensors(ds, ["gradient_norm", "gradient_cosine"])
    >>> bool(abs(found.gradient_norm - ds.gradient_norm).max() < 1e-12)
    True
    """
    wanted = list(_DEFINITIONS if names is None else names)
    if unknown := [name for name in wanted if name not in _DEFINITIONS]:
        raise GradscopeError(f"cannot compute {unknown[0]!r} from tensors; {one_of(unknown[0], _DEFINITIONS)}")
    reasons = {name: "; ".join(filter(None, (absent(ds, n) for n in _DEFINITIONS[name].needs))) for name in wanted}
    if "high_frequency_share" in reasons and (why := _without_pixels(ds)):
        reasons["high_frequency_share"] = why
    definitions = {name: _DEFINITIONS[name] for name in wanted if not reasons[name]}
    if wanted and not definitions:
        raise GradscopeError(reasons[wanted[0]])
    needed = sorted({name for d in definitions.values() for name in d.needs})
    along = over(ds)
    stored = ds["written"].transpose(*along).values >= 3
    follows = stored & np.insert(stored[..., :-1], 0, False, axis=-1)
    if "step" in ds:  # a selection of timesteps may have gaps
        follows &= np.diff(ds["step"].values, prepend=-2) == 1
    signal = ds["signal"].values if "signal" in ds else np.sqrt(ds["alphas_cumprod"].values)  # stores of schema 1
    out = {name: np.full(stored.shape, np.nan) for name in definitions}

    def measure(place: Place) -> None:
        with np.errstate(invalid="ignore", divide="ignore"):
            for where, block in _blocks(ds, needed, place):
                block["signal"] = signal[where[-1]]
                for name, definition in definitions.items():
                    out[name][where] = definition.measure(block)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(measure, _places(ds, needed, stored)))
    found = {}
    for name, definition in definitions.items():
        if definition.successive and not follows.any():
            reasons[name] = "no two successive timesteps have their tensors (recording.tensor_every)"
            continue
        values = np.where(follows if definition.successive else stored, out[name], np.nan)
        found[name] = along, values, {"note": definition.note}
    absences = {name: reason for name, reason in reasons.items() if reason}
    return xr.Dataset(found, coords=ds.coords, attrs={"absent": absences})


def _without_pixels(ds: xr.Dataset) -> str:
    """Why the store has no frequencies over height and width; empty if it has."""
    if sample_dims(ds) != IMAGE_DIMS:
        return NO_FREQUENCIES
    recorded = ds["radial_frequency"].attrs.get("units", "cycle/pixel") if "radial_frequency" in ds else "cycle/pixel"
    return "" if recorded == "cycle/pixel" else "the probe spectrum was given axes, which the store does not name"


def _places(ds: xr.Dataset, names: list[str], stored: NDArray[np.bool_]) -> Iterator[Place]:
    """Parts to read at once: one chunk of samples, and as many chunks of timesteps as `_READ_BYTES` hold."""
    if not names:
        return
    chunks = ds[names[0]].variable.chunksizes or _CHUNKS
    rows, steps = max(chunks["sample"]), max(chunks["timestep"])
    step_bytes = 4 * len(names) * rows * prod(ds.sizes[dim] for dim in sample_dims(ds))
    steps *= max(1, _READ_BYTES // (step_bytes * steps))
    *cells, samples, timesteps = stored.shape
    for cell in np.ndindex(*cells):
        for row in range(0, samples, rows):
            for step in range(0, timesteps, steps):
                place = (*cell, slice(row, min(row + rows, samples)), slice(step, min(step + steps, timesteps)))
                if stored[place].any():
                    yield place


def _blocks(ds: xr.Dataset, names: list[str], place: Place) -> Iterator[tuple[Place, dict[str, Floats]]]:
    """The blocks of a part, each with its own place; every block overwrites the one before."""
    *cell, rows, steps = place
    assert isinstance(rows, slice)
    assert isinstance(steps, slice)
    begin = max(0, steps.start - 1)
    index = dict(zip(over(ds), (*cell, rows, slice(begin, steps.stop)), strict=True))
    own = sample_dims(ds)
    read = {name: ds[name].variable.isel(index).transpose("sample", "timestep", *own).values for name in names}
    image = tuple(ds.sizes[dim] for dim in own)
    length = max(1, _PIECE_BYTES // (8 * prod(image)))
    buffers = {name: np.full((1 + length, *image), np.nan) for name in names}
    for sample in range(rows.start, rows.stop):
        for first in range(steps.start, steps.stop, length):
            last = min(first + length, steps.stop)
            before = max(0, first - 1)  # the first step has none before it
            block = {name: buffer[: 1 + last - first] for name, buffer in buffers.items()}
            for name, values in read.items():
                block[name][0] = np.nan
                block[name][before - last :] = values[sample - rows.start, before - begin : last - begin]
            yield (*cell, sample, slice(first, last)), block


def _rows(x: NDArray) -> NDArray:
    """Steps as rows, ``(1 + steps, elements)``."""
    return x.reshape(len(x), -1)


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.vecdot(_rows(a), _rows(b)))


def _share(mask: NDArray[np.bool_]) -> Floats:
    return np.asarray(_rows(mask).mean(axis=1))


def _norm(x: Floats) -> Floats:
    return np.sqrt(_dot(x, x))


def _cosine(a: Floats, b: Floats) -> Floats:
    return _dot(a, b) / (_norm(a) * _norm(b))


def _successive_cosine(x: Floats) -> Floats:
    """Cosine between each step and the one before."""
    norm = _norm(x)
    return _dot(x[1:], x[:-1]) / (norm[1:] * norm[:-1])


def _per_step(values: Floats, like: Floats) -> Floats:
    """One number per step, in a shape that broadcasts with tensors."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _unit(x: Floats) -> Floats:
    length = _norm(x)
    return x / _per_step(np.where(length == 0, 1, length), x)


def _change(x: Floats) -> Floats:
    return _norm(x[1:] - x[:-1])


def _clipped(x_0: Floats) -> Floats:
    size = _rows(np.abs(x_0))
    return np.where((size > _CLIP).any(axis=1), np.nan, _share(size >= _CLIP))


def _score_cosine(gradient: Floats, x_t: Floats, x_0: Floats, signal: Floats) -> Floats:
    score = _per_step(signal, x_t) * x_0 - x_t  # times a positive number
    return np.where((_rows(np.abs(x_0)) >= _CLIP).any(axis=1), np.nan, _cosine(gradient, score))


def _high_frequency_share(x: Floats) -> Floats:
    """Share of the spectral power at radial frequencies above half the Nyquist frequency, 0.25 cycles per pixel."""
    power = np.abs(np.fft.fft2(x)) ** 2
    radius = np.hypot(np.fft.fftfreq(x.shape[-2])[:, None], np.fft.fftfreq(x.shape[-1]))
    high = _rows(power * (radius > 0.25 + 1e-9)).sum(axis=1)  # tolerance: rounding must not lift a frequency above it
    return np.asarray(high / _rows(power).sum(axis=1))


class _Definition(NamedTuple):
    needs: tuple[str, ...]
    measure: Callable[[Block], Floats]
    """Values of shape ``(steps,)``."""
    successive: bool = False
    """Whether it compares with the step before."""
    note: str = ""


_DEFINITIONS: Mapping[str, _Definition] = {
    "gradient_norm": _Definition(("gradient",), lambda b: _norm(b["gradient"][1:])),
    "update_norm": _Definition(("update",), lambda b: _norm(b["update"][1:])),
    "gradient_cosine": _Definition(("gradient",), lambda b: _successive_cosine(b["gradient"]), successive=True),
    "update_cosine": _Definition(("update",), lambda b: _successive_cosine(b["update"]), successive=True),
    "gradient_lipschitz": _Definition(
        ("gradient", "x_t"), lambda b: _change(b["gradient"]) / _change(b["x_t"]), successive=True
    ),
    "unit_gradient_lipschitz": _Definition(
        ("gradient", "x_t"),
        lambda b: _change(_unit(b["gradient"])) / _change(b["x_t"]),
        successive=True,
    ),
    "zero_fraction": _Definition(("gradient",), lambda b: _share(b["gradient"][1:] == 0)),
    "finite_fraction": _Definition(("gradient",), lambda b: _share(np.isfinite(b["gradient"][1:]))),
    "clipped_fraction": _Definition(
        ("pred_original_sample",),
        lambda b: _clipped(b["pred_original_sample"][1:]),
        note=f"for a clamp at {_CLIP:g}; NaN where pred_original_sample goes beyond it",
    ),
    "score_cosine": _Definition(
        ("gradient", "x_t", "pred_original_sample"),
        lambda b: _score_cosine(b["gradient"][1:], b["x_t"][1:], b["pred_original_sample"][1:], b["signal"]),
        note=f"NaN where pred_original_sample reaches {_CLIP:g}: the clamp hides model_output",
    ),
    "high_frequency_share": _Definition(("gradient",), lambda b: _high_frequency_share(b["gradient"][1:])),
}
