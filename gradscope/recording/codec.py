"""Decide whether to compress the tensors of a run."""

import numpy as np
import torch
from numcodecs import Blosc

WORTHWHILE = 1.5
"""Compress tensors if that makes gradients more than this many times smaller."""
_TRIED = 8
"""Number of gradients that are compressed to decide."""


def choose_codec(gradient: torch.Tensor, dtype: str) -> str:
    """``lz4`` (with bitshuffle) if it makes these gradients over `WORTHWHILE` times smaller, else ``none``.

    Parameters
    ----------
    gradient
        Gradients of a block, ``(n, ...)``.
    dtype
        Type in which tensors are stored.
    """
    stored = gradient[:_TRIED].to(getattr(torch, dtype)).cpu().numpy()
    blosc = Blosc(cname="lz4", clevel=1, shuffle=Blosc.BITSHUFFLE)
    packed = len(blosc.encode(np.ascontiguousarray(stored)))
    return "lz4" if stored.nbytes > WORTHWHILE * packed else "none"
