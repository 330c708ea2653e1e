"""Which blocks of a store are recorded, and whether a run can resume it."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscope.errors import GradscopeError
from gradscope.store.chunks import Chunks
from gradscope.store.dims import cell_dims_of, last_repetitions
from gradscope.store.locations.location import Location
from gradscope.store.opening import open_arrays
from gradscope.store.schema import MOST_FILES, RESUMED, VERSION, WRITTEN, Schema

_BLOCK_BYTES = 2**30
"""Largest size of a block's marker."""


def finished(location: Location) -> NDArray[np.bool_]:
    """Whether each block is recorded from its first to its last step, ``(*cells, blocks)``.

    Raises
    ------
    GradscopeError
        The store cannot be read, or its marker is larger than any that is recorded.
    """
    group = open_arrays(location)
    marker: Any = group[WRITTEN.name]
    chunks = Chunks(location, marker)
    attributes = group.attrs.asdict()
    axis = len(cell_dims_of(attributes))
    samples, block = chunks.shape[axis], chunks.size[axis]
    grid = (*chunks.shape[:axis], -(-samples // max(1, block)))
    size = block * prod(chunks.shape[axis + 1 :])
    if prod(chunks.grid) > MOST_FILES or size > _BLOCK_BYTES:
        raise GradscopeError(f"{location}: its marker claims {prod(chunks.grid):,} chunks, {size:,} values a block")
    last = last_repetitions(attributes, np.arange(chunks.shape[axis + 1])) if marker.ndim > axis + 2 else None
    done = np.empty(grid, bool)
    for at in np.ndindex(grid):
        there = chunks.select((*at[:-1], slice(at[-1] * block, (at[-1] + 1) * block))) > 0
        if last is not None:  # over repetitions, too
            there = np.take_along_axis(there, np.broadcast_to(last[:, None], (*there.shape[:-1], 1)), axis=-1)
        done[at] = there.all()
    return done


def unfinished(location: Location) -> list[tuple[tuple[int, ...], int]]:
    """Cell and number of each block that is not finished, in the order of recording."""
    return [(tuple(map(int, cell)), int(block)) for *cell, block in np.argwhere(~finished(location))]


def refuse_other(location: Location, schema: Schema) -> None:
    """Raise GradscopeError, naming the difference, if a store has other arrays or another grid than a schema."""
    group = open_arrays(location)
    if (schema_version := group.attrs.get("schema_version")) not in RESUMED:
        raise GradscopeError(
            f"{location}: cannot resume a store of schema {schema_version}, this version records schema {VERSION}; "
            "record the run into another store"
        )
    older = [name for name in schema.names if name in group]  # older stores do not list them
    recorded: Any = group.attrs.get("recorded", older)
    if differing := set(recorded) ^ set(schema.names):
        raise GradscopeError(f"{location}: cannot resume: these variables differ from the store's: {sorted(differing)}")
    for array in (*schema.arrays, WRITTEN):
        stored: Any = group[array.name]
        wanted = (schema.shape(array), schema.chunks(array), array.dtype, schema.dims(array))
        found = (stored.shape, stored.chunks, str(stored.dtype), stored.metadata.dimension_names)
        if wanted != found:
            raise GradscopeError(f"{location}: cannot resume: {array.name} is {found} in the store, now {wanted}")
    grid = schema.grid
    values = {name: grid.along(name) for name in grid.cell_dims}
    values |= {name: getattr(grid, name) for name in ("label", "seed", "timestep")} | grid.times
    for name, value in values.items():
        coordinate: Any = group[name]
        if not np.array_equal(coordinate[...], np.asarray(value)):
            raise GradscopeError(f"{location}: cannot resume: the coordinate {name} has other values in the store")
