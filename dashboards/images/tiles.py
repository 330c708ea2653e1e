"""Tensors and final samples as tiles of one PNG."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from dashboards.data.cache import Cache
from dashboards.data.limits import check_picture
from dashboards.data.open_run import OpenRun
from dashboards.images import png
from dashboards.images.description import described
from dashboards.images.kinds import draw, draw_finals, limits
from dashboards.images.tensor_reader import CROWD, TensorReader
from dashboards.images.tensors import MAPS, Floats, Pixels, Tensors
from dashboards.state import channels
from gradscope.errors import GradscopeError

COLUMNS = 8
"""Thumbnails in a row."""
THUMBNAILS_MAX = 256
_LIMITS_KEPT = 4096
"""Limits over t that are kept."""


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
        self._limits = Cache(_LIMITS_KEPT)

    def frame(
        self,
        run: OpenRun,
        sample: int,
        step: int,
        cells: Sequence[int],
        limits: str = "cell",
        scale: str = "linear",
        channel: int | None = None,
    ) -> Picture:
        """Draw the tensors of one sample at one step: one row per cell, one column per tensor, without gaps.

        Gradients, updates and directions are maps in red and blue, white at 0: means over channels, or one `channel`.
        Their colour limit is the 99.5 % quantile of the magnitudes. Images are shown in their colours, or one channel
        in grey. Samples that are no images are drawn as `dashboards.images.words` says; their limit is the largest
        magnitude. A limit is that of one tile (`limits` is ``cell``), of all tiles of that tensor (``shared``), or the
        largest of the tile's own limits over all timesteps (``fixed``). `scale` is that of maps' colours, see
        `dashboards.images.pixels.scaled`. Values that are not finite are magenta, tiles that are not written are
        transparent.

        The description is that of `dashboards.images.description`.

        Raises
        ------
        GradscopeError
            There is no such sample, step or cell, or it has no tensors.
        """
        self._check(run, sample, step, cells)
        if channel is not None and str(channel) not in channels(run):
            raise GradscopeError(f"channel {channel}: one of {', '.join(channels(run))}")
        check_picture(len(cells) * len(run.tensors) * prod(run.sample_shape))
        written = np.array([run.written(cell, sample)[step] >= 3 for cell in cells])
        values = {name: self._reader.rows(run, name, cells, sample, step, written) for name in run.tensors}
        crowd, complete = self._reader.crowd(run, cells, step)
        fixed = self._fixed(run, sample, cells, channel) if limits == "fixed" else {}
        if limits == "fixed":  # they may grow with the run
            complete &= all(bool((run.written(cell, sample)[:: run.tensor_every] >= 3).all()) for cell in cells)
        tensors = Tensors(values, written, limits == "shared", sample, crowd, fixed, scale == "log", channel)
        drawn = draw(run.kind, tensors)
        about = described(run, cells, tensors, {name: ends for name, (_, ends) in drawn.items()})
        columns = [pixels for pixels, _ in drawn.values()]
        sprite = _sprite(np.stack(columns, axis=1), np.repeat(written[:, None], len(columns), axis=1))
        return Picture(sprite, bool(written.all()) and complete, json.dumps(about, separators=(",", ":")))

    def values(self, run: OpenRun, name: str, cell: int, sample: int, step: int) -> Floats:
        """One tensor of a sample, cell and step, with the dimensions of `OpenRun.kind`.

        Raises
        ------
        GradscopeError
            There is no such tensor, cell, sample or step, or it is not written.
        """
        self._check(run, sample, step, (cell,))
        if name not in run.tensors:
            raise GradscopeError(f"tensor {name[:40]!r}: one of {', '.join(run.tensors)}")
        if run.written(cell, sample)[step] < 3:
            raise GradscopeError(f"step {step} of sample {sample} is not recorded yet")
        return self._reader.rows(run, name, (cell,), sample, step, np.ones(1, dtype=bool))[0]

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

    def _check(self, run: OpenRun, sample: int, step: int, cells: Sequence[int]) -> None:
        _check_index("sample", sample, run.tensor_samples, "samples with tensors")
        _check_index("step", step, run.ds.sizes["timestep"], "steps")
        for cell in cells:
            _check_index("cell", cell, len(run.cells), "cells")
        if run.not_drawn:
            raise GradscopeError(run.not_drawn)
        if step % run.tensor_every:
            raise GradscopeError(f"step {step}: tensors are kept every {run.tensor_every} steps, from step 0")

    def _fixed(
        self, run: OpenRun, sample: int, cells: Sequence[int], channel: int | None
    ) -> dict[str, NDArray[np.float64]]:
        """By tensor, the largest limit of each cell over all written timesteps. It is computed once for each cell."""

        def largest(name: str, cell: int) -> float:
            parts = [limits(run.kind, name, part, channel) for part in self._reader.along_t(run, name, cell, sample)]
            return float(np.concatenate(parts).max()) if parts else 0.0

        def kept(name: str, cell: int) -> float:
            key = (run.key, run.version, name, cell, sample, channel)
            return float(self._limits.get(key, lambda: largest(name, cell)))

        pixels = run.kind.name in ("image", "video")  # images of samples have no limits
        names = [name for name in run.tensors if name in MAPS or not pixels]
        return {name: np.array([kept(name, cell) for cell in cells]) for name in names}


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


def _check_index(name: str, number: int, count: int, items: str) -> None:
    if not 0 <= number < count:
        raise GradscopeError(f"{name} {number}: there are {count} {items}, from 0")
