"""Decide whether to compress the tensors of a run."""

import numpy as np
from numcodecs import Blosc

WORTHWHILE = 1.5
"""Compress tensors if that makes gradients more than this many times smaller."""


def choose_codec(gradient: np.ndarray) -> str:
    """``lz4`` (with bitshuffle) if it makes these gradients over `WORTHWHILE` times smaller, else ``none``."""
    blosc = Blosc(cname="lz4", clevel=1, shuffle=Blosc.BITSHUFFLE)
    packed = len(blosc.encode(np.ascontiguousarray(gradient)))
    return "lz4" if gradient.nbytes > WORTHWHILE * packed else "none"
