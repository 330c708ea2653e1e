"""Dimensions and chunks of a store, from the schema that makes it."""

from math import prod

import numpy as np
from markdown_tables import code, table

from gradscope.store import Array, Grid, Schema
from gradscope.store.schema import WRITTEN
from probes.variable import IMAGE_DIMS

SAMPLES, STEPS, IMAGE = 64, 1000, (3, 32, 32)


def text() -> str:
    """One row for each kind of array, in a run of 16 cells, 64 samples in blocks of 32, 1,000 steps of 32 px."""
    tensor = Array("gradient", "tensor", {}, dims=IMAGE_DIMS)
    arrays = (tensor, Array("gradient_norm", "scalar", {}), Array("image", "final", {}, dims=IMAGE_DIMS), WRITTEN)
    schema = Schema(_grid(), arrays)
    rows = []
    for array in arrays:
        chunk = schema.chunks(array)
        size = prod(chunk) * np.dtype(array.dtype).itemsize
        dims = ", ".join(schema.dims(array)[len(schema.grid.cell_dims) :])
        shape = (schema.shape(array), chunk)
        rows.append((code(array.name), array.kind, f"cell, {dims}", *map(_by, shape), f"{size:,}"))
    return table(("array", "kind", "dims", "shape", "chunk", "bytes a chunk"), rows)


def _by(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))


def _grid() -> Grid:
    two = ("a", "b")
    ones = np.ones(STEPS)
    return Grid(
        classifier=two,
        classifier_input=two,
        stabilizer=two,
        guidance_scale=(0.0, 0.5),
        label=np.zeros(SAMPLES, dtype=np.int64),
        seed=np.arange(SAMPLES),
        timestep=np.arange(STEPS)[::-1],
        alphas_cumprod=ones,
        sigma=ones,
        sample_shape=IMAGE,
        batch_size=32,
    )
