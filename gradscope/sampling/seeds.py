"""Seeds of the samples: NumPy's `SeedSequence`, for many samples at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradscope.errors import GradscopeError, whole_number

_AT_ONCE = 2**16
"""Samples whose words lie in the cache together."""
_POOL = 4
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_L, _MIX_R = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_HALF = np.uint32(16)
_MASK = 2**32 - 1
Words = NDArray[np.uint32]


def sample_seeds(seed: int, samples: Sequence[int]) -> NDArray[np.int64]:
    """Seed of each sample's generator, int64 >= 0: a function of ``(seed, sample index)`` only.

    It is the first 64-bit word of ``numpy.random.SeedSequence([seed, index])`` without its last bit.

    Parameters
    ----------
    seed
        The run's seed, a whole number >= 0.
    samples
        Numbers of the samples, ascending, from 0 to 2**32 - 1.

    Raises
    ------
    GradscopeError
        The seed is no whole number >= 0, or a number is too large.

    Examples
    --------
    >>> sample_seeds(0, range(2))
    array([7896617691693857887, 2918264622725855778])
    """
    seed = whole_number(seed, "seed")
    first = [seed & _MASK]
    while seed := seed >> 32:
        first.append(seed & _MASK)
    if len(samples) and max(samples[0], samples[-1]) > _MASK:
        raise GradscopeError(f"first_sample: samples are numbered up to {_MASK}, got {max(samples[0], samples[-1])}")
    numbers = np.asarray(samples, dtype=np.uint32)
    found = np.empty(len(numbers), dtype=np.uint64)
    for i in range(0, len(numbers), _AT_ONCE):
        found[i : i + _AT_ONCE] = _state(_mixed([*first, numbers[i : i + _AT_ONCE]]))
    return (found >> np.uint64(1)).astype(np.int64)


def _mixed(entropy: list[int | Words]) -> list[Words]:
    """The pool of words that `SeedSequence` mixes from its entropy."""
    hashed, words = _Hash(_INIT_A, _MULT_A), [np.atleast_1d(np.asarray(word, dtype=np.uint32)) for word in entropy]
    pool = [hashed(words[i] if i < len(words) else np.zeros(1, dtype=np.uint32)) for i in range(_POOL)]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mix(pool[target], hashed(pool[source]))
    for word in words[_POOL:]:
        for target in range(_POOL):
            pool[target] = _mix(pool[target], hashed(word))
    return pool


def _state(pool: list[Words]) -> NDArray[np.uint64]:
    hashed = _Hash(_INIT_B, _MULT_B)
    low, high = (hashed(pool[i]).astype(np.uint64) for i in range(2))
    return np.asarray(low | (high << np.uint64(32)))


class _Hash:
    """The hash of `SeedSequence`, whose constant changes with each use."""

    def __init__(self, constant: int, factor: int) -> None:
        self._constant, self._factor = constant, factor

    def __call__(self, words: Words) -> Words:
        made = words ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor & _MASK
        made = made * np.uint32(self._constant)
        return np.asarray(made ^ (made >> _HALF))


def _mix(x: Words, y: Words) -> Words:
    made = _MIX_L * x - _MIX_R * y
    return np.asarray(made ^ (made >> _HALF))
