"""Unguided controls that are the same trajectory, folded into one curve or one row."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradscope.analysis.cells import cell_name

_TOLERANCE = 1e-6
"""Relative difference of equal means: the rounding of float32."""


class Shown(NamedTuple):
    """One curve or row of a figure."""

    cell: Mapping[str, Any]
    """The cell; of several, the first."""
    rows: pd.DataFrame
    """Its rows in the figure's table."""
    name: str
    """The cell in words; of several unguided ones, the names that they share."""
    cells: list[Mapping[str, Any]]
    """All cells that are shown together."""


def folded(parts: Iterable[tuple[Mapping[str, Any], pd.DataFrame]]) -> list[Shown]:
    """Fold unguided cells whose means are equal at every timestep.

    Without guidance, a stabiliser changes nothing, and neither do the guide and its input, unless the diagnostic is one
    of the guide's.

    Parameters
    ----------
    parts
        Each cell with its rows, as `gradscope.plots.figure_numbers.by_cell` gives them.

    Examples
    --------
    >>> rows = pd.DataFrame({"mean": [0.5, 0.25]})
    >>> cells = [{"classifier": "robust", "stabilizer": name, "guidance_scale": 0.0} for name in ("none", "adam")]
    >>> [shown.name for shown in folded((cell, rows) for cell in cells)]
    ['robust, unguided']
    """
    groups: list[list[tuple[Mapping[str, Any], pd.DataFrame]]] = []
    for cell, rows in parts:
        group = next((group for group in groups if _are_one(group[0], (cell, rows))), None)
        if group is None:
            groups.append([(cell, rows)])
        else:
            group.append((cell, rows))
    found = []
    for group in groups:
        cells = [cell for cell, _ in group]
        found.append(Shown(*group[0], cell_name(shared(cells)), cells))
    return found


def shared(cells: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The names that all cells have."""
    return {dim: name for dim, name in cells[0].items() if all(cell[dim] == name for cell in cells)}


def _are_one(first: tuple[Mapping[str, Any], pd.DataFrame], second: tuple[Mapping[str, Any], pd.DataFrame]) -> bool:
    if any(cell["guidance_scale"] for cell, _ in (first, second)):
        return False
    a, b = (rows["mean"].to_numpy(dtype=np.float64) for _, rows in (first, second))
    same = a.shape == b.shape and np.isfinite(a).any()  # nothing is known of cells without values
    return bool(same and np.allclose(a, b, rtol=_TOLERANCE, atol=0, equal_nan=True))
