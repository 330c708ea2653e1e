"""Tensors and final images as pictures: one PNG for all tiles that are looked at together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly.colors import sample_colorscale, unlabel_rgb

from dashboards.data.cache import Cache
from dashboards.data.limits import check_picture
from dashboards.data.recorded import Recorded
from dashboards.images import png
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS
from probes.variable import IMAGE_DIMS

MAPS = ("gradient", "update", "direction")
"""Tensors that are shown around zero; the others are images in [-1, 1]."""
COLUMNS = 8
"""Thumbnails in a row."""
THUMBNAILS_MOST = 256
MAGENTA = (255, 0, 255)
"""What is not finite."""
_QUANTILE = 0.995
_MEMORY = 96 * 2**20
_DIGITS = 5

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A PNG of several tiles."""

    png: bytes
    complete: bool
    """Whether all its tiles are written: then it never changes."""
    about: str = ""
    """JSON of what the tiles hold, see `Images.frame`."""


class Images:
    """Draws the pictures of recorded runs, and keeps the tensors that it read last, 96 MiB of them."""

    def __init__(self) -> None:
        self._read = Cache(_MEMORY, weigh=lambda tensor: tensor.nbytes)

    def frame(self, run: Recorded, sample: int, step: int, cells: Sequence[int], limits: str) -> Picture:
        """The tensors of one sample at one step: a row a cell, a column for each of `run.tensors`, without gaps.

        Gradients, updates and directions are means over channels in red and blue, white at 0; their colours end at
        the magnitude that 99.5 % of the elements stay within, of the tile (``cell``) or of all tiles of that tensor
        (``shared``). What is not finite is magenta, what is not written is transparent. ``about`` has, by tensor and
        row, these ``limits`` and the l2 ``norms``, and by row what is ``written`` and the number of ``nonfinite``
        elements in all its tensors; null where there is no number.

        Raises
        ------
        GradscopeError
            There is no such sample, step or cell, or it has no tensors.
        """
        _refuse("sample", sample, run.tensor_samples, "samples with tensors")
        _refuse("step", step, run.ds.sizes["timestep"], "steps")
        for cell in cells:
            _refuse("cell", cell, len(run.cells), "cells")
        if step % run.tensor_every:
            raise GradscopeError(f"step {step}: tensors are kept every {run.tensor_every} steps, from step 0")
        check_picture(len(cells) * len(run.tensors) * _elements(run))
        there = np.array([run.written(cell, sample)[step] >= 3 for cell in cells])
        places = [(*_place(run, cell), sample, step) for cell in cells]
        about: dict[str, Any] = {"limits": {}, "norms": {}, "written": there.tolist()}
        nonfinite = np.zeros(len(cells), dtype=int)
        columns = []
        for name in run.tensors:
            tensor = np.stack([self._tensor(run, name, at, bool(k)) for at, k in zip(places, there, strict=True)])
            nonfinite += (~np.isfinite(tensor)).sum(axis=(1, 2, 3))
            pixels, ends = _map(tensor, there, limits) if name in MAPS else (_image(tensor), np.ones(len(cells)))
            about["limits"][name] = _numbers(ends, there)
            about["norms"][name] = _numbers(np.sqrt((tensor.astype(np.float64) ** 2).sum(axis=(1, 2, 3))), there)
            columns.append(pixels)
        about["nonfinite"] = nonfinite.tolist()
        sprite = _sprite(np.stack(columns, axis=1), np.repeat(there[:, None], len(columns), axis=1))
        return Picture(sprite, bool(there.all()), json.dumps(about, separators=(",", ":")))

    def thumbnails(self, run: Recorded, cell: int, first: int, last: int) -> Picture:
        """Final images of the samples from `first` to `last` of one cell, `COLUMNS` in a row.

        Raises
        ------
        GradscopeError
            There is no such cell or sample, or no image.
        """
        if "image" not in run.ds:
            raise GradscopeError("this store has no final images")
        _refuse("cell", cell, len(run.cells), "cells")
        _refuse("sample", first, run.ds.sizes["sample"], "samples")
        _refuse("sample", last, run.ds.sizes["sample"], "samples")
        if not first <= last < first + THUMBNAILS_MOST:
            raise GradscopeError(f"samples {first}-{last}: ascending, and at most {THUMBNAILS_MOST} at once")
        check_picture((last - first + 1) * _elements(run))
        images = run.chunks("image").part((*_place(run, cell), slice(first, last + 1)))
        there = np.array([run.written(cell, sample)[-1] > 0 for sample in range(first, last + 1)])
        columns = min(COLUMNS, len(there))
        rows = -(-len(there) // columns)
        rest = rows * columns - len(there)
        tiles = np.pad(_image(images), [(0, rest), *[(0, 0)] * 3])
        filled = np.pad(there, (0, rest)).reshape(rows, columns)
        return Picture(_sprite(tiles.reshape(rows, columns, *tiles.shape[1:]), filled), bool(there.all()))

    def _tensor(self, run: Recorded, name: str, at: tuple[int, ...], there: bool) -> Floats:
        """One tensor, ``(channel, height, width)``; zeros where it is not written."""
        if not there:
            return np.zeros([run.ds.sizes[dim] for dim in ("channel", "height", "width")], dtype=np.float32)
        chunks = run.chunks(name)
        check_picture(prod(chunks.size))  # where it is compressed it is decoded as a whole
        index = chunks.index(at)
        # The file's stamp: a chunk that was written again, with more steps, is another one.
        key = (run.key, name, at[:-1], index[5], chunks.stamp(index))
        tensor = self._read.get(key, lambda: chunks.around(at))[at[5] % chunks.size[5]]
        if f"{name}_exponent" in run.ds:
            return np.ldexp(tensor.astype(np.float32), int(run.values(f"{name}_exponent")[at]))
        return tensor


def _elements(run: Recorded) -> int:
    """Of one tensor."""
    return prod(run.ds.sizes[dim] for dim in IMAGE_DIMS)


def _place(run: Recorded, cell: int) -> tuple[int, ...]:
    """Indices of a cell over `CELL_DIMS`."""
    return tuple(map(int, np.unravel_index(cell, [run.ds.sizes[dim] for dim in CELL_DIMS])))


def _map(tensor: Floats, there: NDArray[np.bool_], limits: str) -> tuple[Pixels, NDArray[np.float64]]:
    """Means over channels as colours, ``(rows, height, width, 3)``, and the magnitude at which each row's end."""
    with np.errstate(invalid="ignore"):  # inf - inf
        values = tensor.mean(axis=1, dtype=np.float64)
    if limits == "shared":
        ends = np.full(len(values), _end(values[there]))
    else:
        ends = np.array([_end(row) for row in values])
    finite = np.isfinite(values)
    scaled = np.where(finite, values, 0) / np.where(ends > 0, ends, 1)[:, None, None]
    middle = len(_colours()) // 2
    pixels = _colours()[middle + np.rint(middle * scaled.clip(-1, 1)).astype(int)]
    pixels[~finite] = MAGENTA
    return pixels, ends


def _end(values: Floats) -> float:
    known = np.abs(values[np.isfinite(values)])
    return float(np.quantile(known, _QUANTILE)) if known.size else 0.0


@cache
def _colours() -> Pixels:
    """Plotly's RdBu_r, as the heat maps of figures have it; white in the middle, ``(255, 3)``."""
    return np.rint([unlabel_rgb(text) for text in sample_colorscale("RdBu_r", 255)]).astype(np.uint8)


def _image(tensor: Floats) -> Pixels:
    """Images in [-1, 1] as colours, ``(n, height, width, 3)``; another number of channels than 3 is their mean."""
    with np.errstate(invalid="ignore"):
        channels = tensor if tensor.shape[1] == 3 else tensor.mean(axis=1, keepdims=True, dtype=np.float64)
    values = np.moveaxis(np.broadcast_to(channels, (len(tensor), 3, *tensor.shape[2:])), 1, -1)
    finite = np.isfinite(values).all(axis=-1)
    pixels = np.rint(127.5 * (np.where(finite[..., None], values, 0).clip(-1, 1) + 1)).astype(np.uint8)
    pixels[~finite] = MAGENTA
    return pixels


def _sprite(tiles: Pixels, there: NDArray[np.bool_]) -> bytes:
    """A PNG of tiles ``(rows, columns, height, width, 3)``; those that are not `there` are transparent."""
    if not there.all():
        opacity = np.broadcast_to(there[..., None, None, None], (*tiles.shape[:-1], 1))
        tiles = np.concatenate([np.where(opacity, tiles, 0), 255 * opacity], axis=-1).astype(np.uint8)
    rows, columns, height, width, channels = tiles.shape
    return png.encode(tiles.swapaxes(1, 2).reshape(rows * height, columns * width, channels))


def _numbers(values: NDArray[np.floating[Any]], there: NDArray[np.bool_]) -> list[float | None]:
    """As JSON can hold them, with a few digits."""
    known = there & np.isfinite(values)
    return [float(f"{value:.{_DIGITS}g}") if k else None for value, k in zip(values, known, strict=True)]


def _refuse(what: str, number: int, count: int, possible: str) -> None:
    if not 0 <= number < count:
        raise GradscopeError(f"{what} {number}: there are {count} {possible}, from 0")
