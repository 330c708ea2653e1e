"""Stores of random values, written by frames."""

import numpy as np

from gradscope.store import (
    Array,
    Frame,
    Grid,
    StoreWriter,
    create,
)

IMAGE = ("channel", "height", "width")
ABOUT = {"long_name": "something", "units": "1", "equation": "x"}
ARRAYS = (
    Array("gradient", "tensor", ABOUT, dims=IMAGE),
    Array("norm", "scalar", ABOUT),
    Array("predicted_class", "scalar", ABOUT, dtype="int16"),
    Array("spectrum", "scalar", ABOUT, dims=("frequency",), sizes={"frequency": 5}),
    Array("image", "final", ABOUT, dims=IMAGE),
)


def grid(samples=7, timesteps=23, batch_size=4, size=4):
    return Grid(
        classifier=("robust", "non_robust"),
        classifier_input=("x_t",),
        stabilizer=("none", "adam"),
        guidance_scale=(0.4,),
        label=np.arange(samples) % 3,
        seed=np.arange(samples) + 100,
        timestep=np.arange(timesteps)[::-1] * 10,
        alphas_cumprod=np.linspace(0, 1, timesteps),
        sigma=np.linspace(1, 0, timesteps),
        sample_shape=(3, size, size),
        batch_size=batch_size,
    )


def frames(schema, seed=0):
    """Random values of a whole run, block by block, with the full arrays for comparison."""
    rng = np.random.default_rng(seed)
    whole = {}
    for array in schema.arrays:
        values = (
            rng.integers(0, 9, schema.shape(array)) if array.dtype == "int16" else rng.normal(size=schema.shape(array))
        )
        whole[array.name] = values.astype(array.dtype)
    blocks = []
    for cell in np.ndindex(schema.grid.cells):
        for first in range(0, schema.grid.samples, schema.grid.batch_size):
            rows = slice(first, min(first + schema.grid.batch_size, schema.grid.samples))
            kept = slice(first, first + schema.kept_samples(first, rows.stop - first))
            block = []
            for step in range(schema.grid.timesteps):
                arrays = {a.name: whole[a.name][(*cell, rows, step)] for a in schema.scalars}
                if schema.keeps_tensor(step) and kept.stop > kept.start:
                    arrays |= {a.name: whole[a.name][(*cell, kept, step)] for a in schema.tensors}
                if step == schema.grid.timesteps - 1:
                    arrays |= {a.name: whole[a.name][(*cell, rows)] for a in schema.finals}
                block.append(Frame(cell, first, step, arrays))
            blocks.append(block)
    return whole, blocks


def write(path, schema, blocks):
    create(path, schema, {"status": "recording"})
    writer = StoreWriter(path, schema)
    for block in blocks:
        for frame in block:
            writer.submit(frame)
    writer.close()
    return writer
