"""Maps of gradients that are zero, nearly zero beside the others of their cell, or too weak for their limit."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dashboards.data.open_run import OpenRun
from dashboards.images.tensors import MAPS, Floats

NEARLY = 1e-3
"""Share of the cell's median norm below which a map is nearly zero."""
FAINT = 0.02
"""Share of its limit below which a map looks white."""
Zero = Literal["", "all", "nearly", "faint"]


def near_zero(run: OpenRun, name: str, cells: Sequence[int], norms: NDArray[np.float64], shares: Floats) -> list[Zero]:
    """Whether each map is zero (``all``), ``nearly`` zero, or nearly white since its limit is far higher (``faint``).

    It is empty for other maps, and for images of samples.

    Parameters
    ----------
    norms
        The l2 norm of the tensor in each of the cells.
    shares
        The largest magnitude that each map shows, as a share of its limit on the scale of its colours.
    """
    if name not in MAPS:
        return [""] * len(norms)
    typical = _typical(run, name)[list(cells)]
    return [_kind(*row) for row in zip(norms.tolist(), typical.tolist(), shares.tolist(), strict=True)]


def _kind(norm: float, typical: float, share: float) -> Zero:
    if norm == 0:
        return "all"
    if norm < NEARLY * typical:
        return "nearly"
    return "faint" if share < FAINT else ""


def _typical(run: OpenRun, name: str) -> NDArray[np.float64]:
    """Each cell's median norm over samples and timesteps, without zeros; NaN where the norm is not recorded."""
    count, norm = len(run.cells), f"{name}_norm"
    if norm not in run.ds:
        return np.full(count, np.nan)
    return run.memo(("typical", norm), lambda: np.array([_median(row) for row in run.values(norm).reshape(count, -1)]))


def _median(values: NDArray[np.floating]) -> float:
    known = values[np.isfinite(values) & (values > 0)]
    return float(np.median(known)) if known.size else np.nan
