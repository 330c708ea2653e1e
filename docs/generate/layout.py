"""Dimensions and chunks of a store, from the schema that makes it."""

from math import prod

import numpy as np
from diagnostics import diagnostics
from markdown_tables import code, table

from gradscope.store import Array, Grid, Schema
from gradscope.store.schema import IMAGE_DIMS, WRITTEN

CELLS, SAMPLES, STEPS, IMAGE = (2, 2, 2, 2), 64, 1000, (3, 32, 32)


def text() -> str:
    """One row for each kind of array, in a run of 16 cells, 64 samples in blocks of 32, 1,000 steps of 32 px."""
    dims = {d.name: d.dims for d in diagnostics()}
    tensor = Array("gradient", "tensor", {}, dims=dims["gradient"])
    arrays = (tensor, Array("gradient_norm", "scalar", {}), Array("image", "final", {}, dims=IMAGE_DIMS), WRITTEN)
    schema = Schema(_grid(), arrays)
    rows = []
    for array in arrays:
        shape, chunk = schema.shape(array), schema.chunks(array)
        size = prod(chunk) * np.dtype(array.dtype).itemsize
        rows.append((code(array.name), array.kind, ", ".join(schema.dims(array)), _by(shape), _by(chunk), f"{size:,}"))
    return table(("array", "kind", "dims", "shape", "chunk", "bytes a chunk"), rows)


def _by(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))


def _grid() -> Grid:
    names = [tuple(f"{dim}{i}" for i in range(n)) for dim, n in zip("abc", CELLS[:3], strict=True)]
    ones = np.ones(STEPS)
    return Grid(
        *names, (0.0, 0.5), np.zeros(SAMPLES, int), np.arange(SAMPLES), np.arange(STEPS)[::-1], ones, ones, IMAGE, 32
    )
