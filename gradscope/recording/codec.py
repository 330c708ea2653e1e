"""Whether compression pays for a run's gradients."""

import numpy as np
from numcodecs import Blosc

WORTHWHILE = 1.5
"""Gradients are compressed where that makes them so many times smaller."""


def choose_codec(gradient: np.ndarray) -> str:
    """``lz4`` (with bitshuffle) where it gains over `WORTHWHILE` times on these gradients, else ``none``."""
    blosc = Blosc(cname="lz4", clevel=1, shuffle=Blosc.BITSHUFFLE)
    packed = len(blosc.encode(np.ascontiguousarray(gradient)))
    return "lz4" if gradient.nbytes > WORTHWHILE * packed else "none"
