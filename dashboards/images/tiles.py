"""Tensors and final samples as tiles of one PNG."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.data.limits import check_picture
from dashboards.data.open_run import OpenRun
from dashboards.images import png
from dashboards.images.kinds import draw, draw_finals
from dashboards.images.tensor_reader import CROWD, TensorReader
from dashboards.images.tensors import Pixels, Tensors
from gradscope.errors import GradscopeError

COLUMNS = 8
"""Thumbnails in a row."""
THUMBNAILS_MAX = 256
_DIGITS = 5


@dataclass(frozen=True)
class Picture:
    """A PNG of several tiles."""

    png: bytes
    complete: bool
    """Whether all its tiles are written, so that it never changes."""
    description: str = ""
    """JSON that describes the tiles, see `Tiles.frame`."""


class Tiles:
    """Draws the pictures of recorded runs, and keeps the tensors that it read last."""

    def __init__(self) -> None:
        self._reader = TensorReader()

    def frame(self, run: OpenRun, sample: int, step: int, cells: Sequence[int], limits: str) -> Picture:
        """Draw the tensors of one sample at one step: one row per cell, one column per tensor, without gaps.

        Gradients, updates and directions are means over channels in red and blue, white at 0; their colour limit is
        the 99.5 % quantile of the magnitudes. Samples that are no images are drawn as `dashboards.images.words` says;
        their limit is the largest magnitude. A limit is that of one tile (``cell``) or of all tiles of that tensor
        (``shared``). Values that are not finite are magenta, tiles that are not written are transparent. The
        description has by tensor and row these ``limits`` and the l2 ``norms``, and by row whether it is ``written``
        and the number of ``nonfinite`` elements in all its tensors; null where there is no number.

        Raises
        ------
        GradscopeError
            There is no such sample, step or cell, or it has no tensors.
        """
        _check_index("sample", sample, run.tensor_samples, "samples with tensors")
        _check_index("step", step, run.ds.sizes["timestep"], "steps")
        for cell in cells:
            _check_index("cell", cell, len(run.cells), "cells")
        if run.not_drawn:
            raise GradscopeError(run.not_drawn)
        if step % run.tensor_every:
            raise GradscopeError(f"step {step}: tensors are kept every {run.tensor_every} steps, from step 0")
        check_picture(len(cells) * len(run.tensors) * prod(run.sample_shape))
        written = np.array([run.written(cell, sample)[step] >= 3 for cell in cells])
        values = {name: self._reader.rows(run, name, cells, sample, step, written) for name in run.tensors}
        crowd, complete = self._reader.crowd(run, cells, step)
        drawn = draw(run.kind, Tensors(values, written, limits == "shared", sample, crowd))
        nonfinite = np.zeros(len(cells), dtype=int)
        about: dict[str, Any] = {"limits": {}, "norms": {}, "written": written.tolist()}
        for name, tensor in values.items():
            flat = tensor.reshape(len(cells), -1).astype(np.float64)
            nonfinite += (~np.isfinite(flat)).sum(axis=1)
            about["limits"][name] = _rounded(drawn[name][1], written)
            about["norms"][name] = _rounded(np.sqrt((flat**2).sum(axis=1)), written)
        about["nonfinite"] = nonfinite.tolist()
        columns = [pixels for pixels, _ in drawn.values()]
        sprite = _sprite(np.stack(columns, axis=1), np.repeat(written[:, None], len(columns), axis=1))
        return Picture(sprite, bool(written.all()) and complete, json.dumps(about, separators=(",", ":")))

    def thumbnails(self, run: OpenRun, cell: int, first: int, last: int) -> Picture:
        """Draw the final samples from `first` to `last` of one cell, `COLUMNS` in a row.

        Raises
        ------
        GradscopeError
            There is no such cell or sample, or no final samples that can be drawn.
        """
        if not run.has_pictures:
            raise GradscopeError(run.not_drawn or "this store has no final images")
        _check_index("cell", cell, len(run.cells), "cells")
        _check_index("sample", first, run.ds.sizes["sample"], "samples")
        _check_index("sample", last, run.ds.sizes["sample"], "samples")
        if not first <= last < first + THUMBNAILS_MAX:
            raise GradscopeError(f"samples {first}-{last}: ascending, and at most {THUMBNAILS_MAX} at once")
        finished = _finished(run, cell, first, last)
        samples = self._reader.finals(run, cell, first, last)
        if run.ds.attrs.get("watched"):  # a sample that was not seen is NaN
            finished &= ~np.isnan(samples).reshape(len(samples), -1).all(axis=1)
        crowd, complete = None, True
        if run.kind.name == "point":
            end = min(run.ds.sizes["sample"], CROWD) - 1
            there = _finished(run, cell, 0, end)
            crowd = np.where(there[:, None], self._reader.finals(run, cell, 0, end), np.nan)
            complete = bool(there.all())
        columns = min(COLUMNS, len(finished))
        rows = -(-len(finished) // columns)
        rest = rows * columns - len(finished)
        drawn = draw_finals(run.kind, samples, first, crowd)
        tiles = np.pad(drawn, [(0, rest), *[(0, 0)] * 3])
        filled = np.pad(finished, (0, rest)).reshape(rows, columns)
        sprite = _sprite(tiles.reshape(rows, columns, *tiles.shape[1:]), filled)
        return Picture(sprite, bool(finished.all()) and complete)


def _finished(run: OpenRun, cell: int, first: int, last: int) -> NDArray[np.bool_]:
    """Which samples have their final sample. A watched loop may take no gradient at its last step."""
    written = np.stack([run.written(cell, sample) > 0 for sample in range(first, last + 1)])
    return np.asarray(written.any(axis=1)) if run.ds.attrs.get("watched") else written[:, -1]


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
