"""Limits on a store's size: one whose metadata claim more is refused before anything is allocated."""

from math import ceil, prod
from typing import Any

from dashboards.data.remote import StoreAddress, root_size
from gradscope.errors import GradscopeError
from gradscope.store.locations.location import ROOT, locate
from gradscope.store.untrusted.root import parse
from gradscope.text import size as size_text

LONGEST = {"sample": ("samples", 100_000), "timestep": ("timesteps", 10_000), "class": ("classes", 10_000)}
"""Longest dimensions, with their words for errors."""
CELLS = 4096
CHUNKS = 2**20
"""Chunks of all arrays together."""
MEMORY = 2**30
"""Bytes of a store that are held in memory: diagnostics along t, verdicts, distances, coordinates."""
ELEMENTS = 2**26
"""Tensor elements in one picture."""
METADATA = 16 * 2**20
"""Bytes of a store's metadata."""


def check_store(path: StoreAddress) -> int:
    """Check the sizes that a store's metadata claim.

    Returns
    -------
    int
        Bytes that opening the store reads.

    Raises
    ------
    GradscopeError
        The sizes exceed a limit, or the metadata are not those of a store.
    """
    if (size := root_size(path)) > METADATA:
        raise _too_large(path, f"has metadata of {size_text(size)}", size_text(METADATA))
    root = parse(locate(path).read(ROOT) or b"", str(path))
    sample = set(root.attributes.sample_dims)
    lengths: dict[str, int] = {}
    chunks = resident = 0
    for name, array in root.arrays.items():
        dims, shape = array.dims, array.shape
        lengths |= zip(dims, shape, strict=True)
        chunks += prod(ceil(length / max(size, 1)) for length, size in zip(shape, array.stored, strict=True))
        if name == "written" or name in dims or not ("timestep" in dims or sample <= set(dims)):
            resident += prod(shape) * array.itemsize
    claims = {words: (lengths[dim], most) for dim, (words, most) in LONGEST.items() if dim in lengths}
    claims |= {"cells": (prod(lengths[dim] for dim in root.attributes.cell_dims), CELLS), "chunks": (chunks, CHUNKS)}
    for words, (count, most) in claims.items():
        if count > most:
            raise _too_large(path, f"claims {count:,} {words}", f"{most:,}")
    if resident > MEMORY:
        raise _too_large(path, f"claims {size_text(resident)} that are read at once", size_text(MEMORY))
    return resident


def check_picture(elements: int) -> None:
    """Raise GradscopeError where a picture has too many tensor elements."""
    if elements > ELEMENTS:
        raise GradscopeError(f"a picture of {elements:,} elements; at most {ELEMENTS:,} are drawn: choose fewer cells")


def _too_large(path: Any, claim: str, most: str) -> GradscopeError:
    return GradscopeError(f"{path} {claim}; the dashboard shows up to {most}. gradscope.open reads it in Python")
