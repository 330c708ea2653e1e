"""Reads the tensors of a picture; the chunks that it read last stay in memory (96 MiB)."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.data.cache import Cache
from dashboards.data.limits import check_picture
from dashboards.data.open_run import OpenRun
from dashboards.images.tensors import MAPS, Floats
from gradscope.store.chunks import Where
from gradscope.store.dims import cell_dims, final_samples, final_shape, sample_dims

CROWD = 256
"""Points that are shown around a sample's own at most."""
_MEMORY = 96 * 2**20


class TensorReader:
    """Reads tensors with the dimensions of `OpenRun.kind`, in its order."""

    def __init__(self) -> None:
        self._kept = Cache(_MEMORY, weigh=lambda tensor: tensor.nbytes)

    def rows(
        self, run: OpenRun, name: str, cells: Sequence[int], sample: int, step: int, written: NDArray[np.bool_]
    ) -> Floats:
        """One tensor of a sample at a step in some cells, ``(rows, *sample)``; zeros where it is not written."""
        stored = [
            self._tensor(run, name, (*cell_index(run, cell), sample, step))
            if there
            else np.zeros(run.sample_shape, dtype=np.float32)
            for cell, there in zip(cells, written, strict=True)
        ]
        return _ordered(run, np.stack(stored))

    def along_t(self, run: OpenRun, name: str, cell: int, sample: int) -> Iterator[Floats]:
        """The written tensors of one sample along t, ``(steps, *sample)``, a part of the timesteps at a time."""
        chunks, index, last = run.chunks(name), (*cell_index(run, cell), sample), run.ds.sizes["timestep"]
        check_picture(last // run.tensor_every * prod(run.sample_shape))
        written = run.written(cell, sample) >= 3
        for first in range(0, last, chunks.size[len(index)]):
            part = slice(first, min(first + chunks.size[len(index)], last))
            if (kept := written[part]).any():
                values = chunks.select((*index, part))
                chunks.refuse_missing((*index, part), kept, values, len(index) + 1)
                yield _ordered(run, _scaled(run, name, values, (*index, part))[kept])

    def finals(self, run: OpenRun, cell: int, first: int, last: int) -> Floats:
        """Final samples of a cell, ``(samples, *sample)``; decoded where the store has pictures."""
        check_picture((last - first + 1) * prod(final_shape(run.ds)))
        final = run.chunks(str(final_samples(run.ds).name))
        where: Where = (*cell_index(run, cell), slice(first, last + 1))
        values = final.part(where)
        if "configuration" in run.ds.attrs:  # not a user's own sampler, which may give none
            there = np.array([run.written(cell, sample)[-1] > 0 for sample in range(first, last + 1)])
            final.refuse_missing(where, there, values, len(where))
        return _ordered(run, values)

    def crowd(self, run: OpenRun, cells: Sequence[int], step: int) -> tuple[dict[str, Floats], bool]:
        """The points of the first samples at a step, by tensor, and whether all are written.

        Returns
        -------
        dict, bool
            By tensor that is not an arrow, ``(rows, samples, axis)``, NaN where it is not written; none where a sample
            is not a point.
        """
        if run.kind.name != "point":
            return {}, True
        count = min(run.tensor_samples, CROWD)
        written = np.array([[run.written(cell, sample)[step] >= 3 for sample in range(count)] for cell in cells])
        found = {}
        for name in (name for name in run.tensors if name not in MAPS):
            rows = [self._points(run, name, cell_index(run, cell), count, step) for cell in cells]
            found[name] = np.where(written[..., None], np.stack(rows), np.nan)
        return found, bool(written.all())

    def _tensor(self, run: OpenRun, name: str, index: tuple[int, ...]) -> Floats:
        chunks, along = run.chunks(name), len(index) - 1
        check_picture(prod(chunks.size))  # a compressed chunk is decoded as a whole
        chunk = chunks.index(index)
        # With the file's stamp, which object stores lack: a growing chunk is written again with more steps.
        key = (run.key, name, index[:-1], chunk[along], chunks.stamp(chunk) or run.version)
        tensor = self._kept.get(key, lambda: chunks.around(index))[index[-1] % chunks.size[along]]
        chunks.refuse_missing(index, np.ones(1, bool), tensor, len(index))
        return _scaled(run, name, tensor, index)

    def _points(self, run: OpenRun, name: str, cell: tuple[int, ...], count: int, step: int) -> Floats:
        """One tensor of the first samples of a cell at a step, ``(samples, axis)``."""
        chunks, along = run.chunks(name), len(cell) + 1
        steps = chunks.size[along]
        check_picture(count * steps * prod(run.sample_shape))
        firsts = range(0, count, chunks.size[along - 1])
        stamps = tuple(chunks.stamp(chunks.index((*cell, sample, step))) or run.version for sample in firsts)
        first = step - step % steps
        key = (run.key, name, cell, first, stamps)
        points = self._kept.get(key, lambda: chunks.select((*cell, slice(count), slice(first, first + steps))))
        return _scaled(run, name, points[:, step - first], (*cell, slice(count), step))


def cell_index(run: OpenRun, cell: int) -> tuple[int, ...]:
    """Indices of a cell over the dimensions of the cells."""
    return tuple(map(int, np.unravel_index(cell, [run.ds.sizes[dim] for dim in cell_dims(run.ds)])))


def _scaled(run: OpenRun, name: str, tensor: Floats, index: Any) -> Floats:
    """A tensor of half precision times its power of two; any other as it is."""
    if f"{name}_exponent" not in run.ds:
        return tensor
    exponent = run.values(f"{name}_exponent")[index].astype(int)
    return np.ldexp(tensor.astype(np.float32), exponent.reshape(exponent.shape + (1,) * (tensor.ndim - exponent.ndim)))


def _ordered(run: OpenRun, tensors: Floats) -> Floats:
    """Tensors ``(n, *sample)`` as stored, with the sample's dimensions in the order of the kind."""
    dims = sample_dims(run.ds)
    return tensors.transpose(0, *(1 + dims.index(dim) for dim in run.kind.dims))
