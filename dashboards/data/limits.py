"""How much of a store the dashboard holds at once: what its metadata claim is refused before anything is made of it."""

from math import ceil, prod
from pathlib import Path
from typing import Any

from dashboards.data.disk import readable
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS
from gradscope.store.locations.location import ROOT, locate
from gradscope.store.untrusted import root as trust
from gradscope.store.untrusted.arrays import ITEMSIZE

LONGEST = {"sample": ("samples", 100_000), "timestep": ("timesteps", 10_000), "class": ("classes", 10_000)}
CELLS = 4096
CHUNKS = 2**20
"""Of all arrays together."""
MEMORY = 2**30
"""Bytes of what is read as a whole: diagnostics along t, verdicts, distances, coordinates."""
ELEMENTS = 2**26
"""Of all tensors in one picture."""
METADATA = 16 * 2**20
"""Bytes."""


def check(path: Path) -> int:
    """Look at the sizes that a store's metadata claim.

    Returns
    -------
    int
        Bytes of what is read when it is opened.

    Raises
    ------
    GradscopeError
        They are more than the dashboard shows, or no metadata of a store.
    """
    if (size := (path / ROOT).stat().st_size) > METADATA:
        raise _too_much(path, f"has metadata of {readable(size)}", readable(METADATA))
    arrays = trust.parse(locate(path).read(ROOT) or b"", str(path))["consolidated_metadata"]["metadata"]
    lengths: dict[str, int] = {}
    chunks = resident = 0
    for name, array in arrays.items():
        dims, shape = array.get("dimension_names") or [], array["shape"]
        lengths |= zip(dims, shape, strict=True)
        sizes = array["chunk_grid"]["configuration"]["chunk_shape"]
        chunks += prod(ceil(length / max(size, 1)) for length, size in zip(shape, sizes, strict=True))
        if name == "written" or name in dims or not {"timestep", "channel"} & set(dims):
            resident += prod(shape) * ITEMSIZE[array["data_type"]]
    claimed = {what: (lengths[dim], most) for dim, (what, most) in LONGEST.items() if dim in lengths}
    claimed |= {"cells": (prod(lengths[dim] for dim in CELL_DIMS), CELLS), "chunks": (chunks, CHUNKS)}
    for what, (count, most) in claimed.items():
        if count > most:
            raise _too_much(path, f"claims {count:,} {what}", f"{most:,}")
    if resident > MEMORY:
        raise _too_much(path, f"claims {readable(resident)} that are read at once", readable(MEMORY))
    return resident


def check_picture(elements: int) -> None:
    """Raise GradscopeError where a picture would take too much."""
    if elements > ELEMENTS:
        raise GradscopeError(f"a picture of {elements:,} elements; at most {ELEMENTS:,} are drawn: choose fewer cells")


def _too_much(path: Any, what: str, most: str) -> GradscopeError:
    return GradscopeError(f"{path} {what}; the dashboard shows up to {most}. gradscope.open reads it in Python")
