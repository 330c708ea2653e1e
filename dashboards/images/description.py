"""The numbers that describe the tiles of a picture: limits, norms, ranges, and what a map cannot show."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.data.open_run import OpenRun
from dashboards.images.kinds import shown_values
from dashboards.images.near_zero import near_zero
from dashboards.images.pixels import scaled
from dashboards.images.tensors import Floats, Tensors

_DIGITS = 5


def described(
    run: OpenRun, cells: Sequence[int], tensors: Tensors, ends: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Describe the tiles of some cells, a row for each, as JSON can hold it.

    Parameters
    ----------
    ends
        The limit of each row, by tensor.

    Returns
    -------
    dict
        By tensor and row: the ``limits``, the l2 ``norms`` of the whole tensors, the smallest and the largest number
        that a tile shows (``low``, ``high``), and ``zero``, see `near_zero`. By row: whether it is ``written``, and the
        number of ``nonfinite`` elements in all its tensors. None where there is no number.
    """
    written = tensors.written
    nonfinite = np.zeros(len(cells), dtype=int)
    about: dict[str, Any] = {key: {} for key in ("limits", "norms", "low", "high", "zero")}
    for name, tensor in tensors.values.items():
        flat = tensor.reshape(len(cells), -1).astype(np.float64)
        nonfinite += (~np.isfinite(flat)).sum(axis=1)
        norms = np.sqrt((flat**2).sum(axis=1))
        low, high = _range(shown_values(run.kind, name, tensor, tensors.channel))
        shares = scaled(np.fmax(-low, high), ends[name], tensors.log)
        about["zero"][name] = near_zero(run, name, cells, norms, shares)
        for key, numbers in {"limits": ends[name], "norms": norms, "low": low, "high": high}.items():
            about[key][name] = _rounded(numbers, written)
    return about | {"written": written.tolist(), "nonfinite": nonfinite.tolist()}


def _range(values: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest and the largest finite number of each row, NaN where there is none."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    finite = np.isfinite(flat)
    some = finite.any(axis=1)
    low = np.where(finite, flat, np.inf).min(axis=1)
    high = np.where(finite, flat, -np.inf).max(axis=1)
    return np.where(some, low, np.nan), np.where(some, high, np.nan)


def _rounded(values: NDArray[np.floating[Any]], written: NDArray[np.bool_]) -> list[float | None]:
    """As JSON can hold them, with a few digits."""
    known = written & np.isfinite(values)
    return [float(f"{value:.{_DIGITS}g}") if k else None for value, k in zip(values, known, strict=True)]
