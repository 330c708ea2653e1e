"""Tensors and final images as tiles of one PNG."""

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
from dashboards.data.open_run import OpenRun
from dashboards.images import png
from gradscope.errors import GradscopeError
from gradscope.store import cell_dims
from probes.variable import IMAGE_DIMS

MAPS = ("gradient", "update", "direction")
"""Tensors that are shown as maps around zero; the others are images in [-1, 1]."""
COLUMNS = 8
"""Thumbnails in a row."""
THUMBNAILS_MAX = 256
MAGENTA = (255, 0, 255)
"""Colour of values that are not finite."""
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
    """Whether all its tiles are written, so that it never changes."""
    description: str = ""
    """JSON that describes the tiles, see `Tiles.frame`."""


class Tiles:
    """Draws the pictures of recorded runs, and keeps the tensors that it read last (96 MiB)."""

    def __init__(self) -> None:
        self._tensors = Cache(_MEMORY, weigh=lambda tensor: tensor.nbytes)

    def frame(self, run: OpenRun, sample: int, step: int, cells: Sequence[int], limits: str) -> Picture:
        """Draw the tensors of one sample at one step: one row per cell, one column per tensor, without gaps.

        Gradients, updates and directions are means over channels in red and blue, white at 0. Their colour limit is
        the 99.5 % quantile of the magnitudes of one tile (``cell``) or of all tiles of that tensor (``shared``).
        Values that are not finite are magenta, tiles that are not written are transparent. The description has by
        tensor and row these ``limits`` and the l2 ``norms``, and by row whether it is ``written`` and the number of
        ``nonfinite`` elements in all its tensors; null where there is no number.

        Raises
        ------
        GradscopeError
            There is no such sample, step or cell, or it has no tensors.
        """
        _check_index("sample", sample, run.tensor_samples, "samples with tensors")
        _check_index("step", step, run.ds.sizes["timestep"], "steps")
        for cell in cells:
            _check_index("cell", cell, len(run.cells), "cells")
        if step % run.tensor_every:
            raise GradscopeError(f"step {step}: tensors are kept every {run.tensor_every} steps, from step 0")
        check_picture(len(cells) * len(run.tensors) * _elements(run))
        written = np.array([run.written(cell, sample)[step] >= 3 for cell in cells])
        indices = [(*_cell_index(run, cell), sample, step) for cell in cells]
        about: dict[str, Any] = {"limits": {}, "norms": {}, "written": written.tolist()}
        nonfinite = np.zeros(len(cells), dtype=int)
        columns = []
        for name in run.tensors:
            rows = zip(indices, written, strict=True)
            tensor = np.stack([self._tensor(run, name, index, bool(there)) for index, there in rows])
            nonfinite += (~np.isfinite(tensor)).sum(axis=(1, 2, 3))
            is_map = name in MAPS
            pixels, ends = _map(tensor, written, limits) if is_map else (_image(tensor), np.ones(len(cells)))
            about["limits"][name] = _rounded(ends, written)
            about["norms"][name] = _rounded(np.sqrt((tensor.astype(np.float64) ** 2).sum(axis=(1, 2, 3))), written)
            columns.append(pixels)
        about["nonfinite"] = nonfinite.tolist()
        sprite = _sprite(np.stack(columns, axis=1), np.repeat(written[:, None], len(columns), axis=1))
        return Picture(sprite, bool(written.all()), json.dumps(about, separators=(",", ":")))

    def thumbnails(self, run: OpenRun, cell: int, first: int, last: int) -> Picture:
        """Draw the final images of the samples from `first` to `last` of one cell, `COLUMNS` in a row.

        Raises
        ------
        GradscopeError
            There is no such cell or sample, or no image.
        """
        if "image" not in run.ds:
            raise GradscopeError(run.not_drawn or "this store has no final images")
        _check_index("cell", cell, len(run.cells), "cells")
        _check_index("sample", first, run.ds.sizes["sample"], "samples")
        _check_index("sample", last, run.ds.sizes["sample"], "samples")
        if not first <= last < first + THUMBNAILS_MAX:
            raise GradscopeError(f"samples {first}-{last}: ascending, and at most {THUMBNAILS_MAX} at once")
        check_picture((last - first + 1) * _elements(run))
        images = run.chunks("image").part((*_cell_index(run, cell), slice(first, last + 1)))
        finished = np.array([run.written(cell, sample)[-1] > 0 for sample in range(first, last + 1)])
        columns = min(COLUMNS, len(finished))
        rows = -(-len(finished) // columns)
        rest = rows * columns - len(finished)
        tiles = np.pad(_image(images), [(0, rest), *[(0, 0)] * 3])
        filled = np.pad(finished, (0, rest)).reshape(rows, columns)
        return Picture(_sprite(tiles.reshape(rows, columns, *tiles.shape[1:]), filled), bool(finished.all()))

    def _tensor(self, run: OpenRun, name: str, index: tuple[int, ...], written: bool) -> Floats:
        """One tensor, ``(channel, height, width)``; zeros where it is not written."""
        if not written:
            return np.zeros([run.ds.sizes[dim] for dim in ("channel", "height", "width")], dtype=np.float32)
        chunks = run.chunks(name)
        check_picture(prod(chunks.size))  # a compressed chunk is decoded as a whole
        chunk = chunks.index(index)
        # With the file's stamp: a growing chunk is written again with more steps.
        key = (run.key, name, index[:-1], chunk[5], chunks.stamp(chunk))
        tensor = self._tensors.get(key, lambda: chunks.around(index))[index[5] % chunks.size[5]]
        if f"{name}_exponent" in run.ds:
            return np.ldexp(tensor.astype(np.float32), int(run.values(f"{name}_exponent")[index]))
        return tensor


def _elements(run: OpenRun) -> int:
    """Elements of one tensor."""
    return prod(run.ds.sizes[dim] for dim in IMAGE_DIMS)


def _cell_index(run: OpenRun, cell: int) -> tuple[int, ...]:
    """Indices of a cell over the dimensions of the cells."""
    return tuple(map(int, np.unravel_index(cell, [run.ds.sizes[dim] for dim in cell_dims(run.ds)])))


def _map(tensor: Floats, written: NDArray[np.bool_], limits: str) -> tuple[Pixels, NDArray[np.float64]]:
    """Means over channels as colours, ``(rows, height, width, 3)``, and the colour limit of each row."""
    with np.errstate(invalid="ignore"):  # inf - inf
        values = tensor.mean(axis=1, dtype=np.float64)
    if limits == "shared":
        ends = np.full(len(values), _limit(values[written]))
    else:
        ends = np.array([_limit(row) for row in values])
    finite = np.isfinite(values)
    scaled = np.where(finite, values, 0) / np.where(ends > 0, ends, 1)[:, None, None]
    middle = len(_colors()) // 2
    pixels = _colors()[middle + np.rint(middle * scaled.clip(-1, 1)).astype(int)]
    pixels[~finite] = MAGENTA
    return pixels, ends


def _limit(values: Floats) -> float:
    known = np.abs(values[np.isfinite(values)])
    return float(np.quantile(known, _QUANTILE)) if known.size else 0.0


@cache
def _colors() -> Pixels:
    """Plotly's RdBu_r, the colours of the heat maps; white in the middle, ``(255, 3)``."""
    return np.rint([unlabel_rgb(text) for text in sample_colorscale("RdBu_r", 255)]).astype(np.uint8)


def _image(tensor: Floats) -> Pixels:
    """Images in [-1, 1] as colours, ``(n, height, width, 3)``; the mean over channels unless there are three."""
    with np.errstate(invalid="ignore"):
        channels = tensor if tensor.shape[1] == 3 else tensor.mean(axis=1, keepdims=True, dtype=np.float64)
    values = np.moveaxis(np.broadcast_to(channels, (len(tensor), 3, *tensor.shape[2:])), 1, -1)
    finite = np.isfinite(values).all(axis=-1)
    pixels = np.rint(127.5 * (np.where(finite[..., None], values, 0).clip(-1, 1) + 1)).astype(np.uint8)
    pixels[~finite] = MAGENTA
    return pixels


def _sprite(tiles: Pixels, written: NDArray[np.bool_]) -> bytes:
    """A PNG of tiles ``(rows, columns, height, width, 3)``; tiles that are not written are transparent."""
    if not written.all():
        opacity = np.broadcast_to(written[..., None, None, None], (*tiles.shape[:-1], 1))
        tiles = np.concatenate([np.where(opacity, tiles, 0), 255 * opacity], axis=-1).astype(np.uint8)
    rows, columns, height, width, channels = tiles.shape
    return png.encode(tiles.swapaxes(1, 2).reshape(rows * height, columns * width, channels))


def _rounded(values: NDArray[np.floating[Any]], written: NDArray[np.bool_]) -> list[float | None]:
    """As JSON can hold them, with a few digits."""
    known = written & np.isfinite(values)
    return [float(f"{value:.{_DIGITS}g}") if k else None for value, k in zip(values, known, strict=True)]


def _check_index(name: str, number: int, count: int, items: str) -> None:
    if not 0 <= number < count:
        raise GradscopeError(f"{name} {number}: there are {count} {items}, from 0")
