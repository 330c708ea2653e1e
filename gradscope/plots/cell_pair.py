"""Two cells, paired over the samples that are finished in both: the base of the figures of a comparison."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import Cell, place
from gradscope.analysis.comparison import SCALARS
from gradscope.analysis.diagnostics import described
from gradscope.analysis.means import Floats, row_means
from gradscope.analysis.paired_cells import paired_difference
from gradscope.analysis.written import finished
from gradscope.errors import GradscopeError
from gradscope.plots.figure_numbers import cell_values, full_cell, require_diagnostic
from gradscope.plots.layout import title_line
from gradscope.plots.style import PALETTE, cell_name, escaped, label

DIFFERENCE = PALETTE[3]
"""Colour of a difference, which belongs to neither cell alone."""


class Quantity(NamedTuple):
    """A diagnostic as it is compared."""

    title: str
    variable: str
    transform: Callable[[Floats], Floats]
    """Applied to the values, ``(samples, timesteps)``."""


class Trajectories(NamedTuple):
    """Means of each sample over the timesteps at which both cells are finite, ``(samples,)``."""

    a: Floats
    b: Floats
    difference: Floats


def variable_of(name: str) -> str:
    """The variable of a title in the table of `gradscope.analysis.compare`; any other name is a variable itself."""
    return SCALARS[name].variable if name in SCALARS else name


def quantity(ds: xr.Dataset, name: str) -> Quantity:
    """How `gradscope.analysis.compare` compares a diagnostic: on a logarithmic scale, or as it is.

    Parameters
    ----------
    name
        A title in the table of that function, or the name of a diagnostic.
    """
    logarithm = f"log10 {name}"
    for title in (name, logarithm):
        if title in SCALARS:
            return Quantity(title, *SCALARS[title])
    return Quantity(logarithm, name, np.log10) if described(ds, name).logarithmic else Quantity(name, name, np.asarray)


def titled(ds: xr.Dataset, shown: Quantity) -> str:
    """Title and unit of a quantity."""
    return label(ds, shown.variable).replace(shown.variable, shown.title)


def cell_names(pair: "CellPair") -> dict[str, str]:
    """The two cells in words, under ``a`` and ``b``."""
    return {"a": cell_name(pair.a), "b": cell_name(pair.b)}


def name_cells_above(figure: go.Figure, names: Mapping[str, str]) -> None:
    """Say above the figure which cells are compared, with room for a legend."""
    title_line(figure, f"a: {escaped(names['a'])}  ·  b: {escaped(names['b'])}")
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font_size": 11}, margin_t=70)


class CellPair:
    """Cells a and b of a store.

    Raises
    ------
    GradscopeError
        A cell is unknown or ambiguous, or both are the same.
    """

    def __init__(self, ds: xr.Dataset, a: Mapping[str, str | float], b: Mapping[str, str | float]) -> None:
        self.ds = ds
        self.a: Cell = full_cell(ds, a)
        self.b: Cell = full_cell(ds, b)
        if self.a == self.b:
            raise GradscopeError("a and b are the same cell; choose two")
        self.cells = tuple(ds.isel(place(ds, cell)) for cell in (a, b))
        self.both = finished(self.cells[0]) & finished(self.cells[1])
        self.samples: NDArray[np.int64] = ds["sample"].values[self.both]
        """Numbers of the samples that are finished in both cells."""

    def values(self, shown: Quantity) -> tuple[Floats, Floats, Floats]:
        """Values of a, of b, and b − a, each ``(samples, timesteps)``; they may be NaN or infinite.

        Raises
        ------
        GradscopeError
            The store has no such diagnostic.
        """
        require_diagnostic(self.ds, shown.variable)
        with np.errstate(divide="ignore", invalid="ignore"):  # norms may be 0, and their logarithm infinite
            a, b = (shown.transform(cell_values(self.ds, shown.variable, cell)[self.both]) for cell in (self.a, self.b))
        return a, b, paired_difference(a, b)

    def trajectories(self, shown: Quantity) -> Trajectories:
        """Means over timesteps, computed as in `gradscope.analysis.compare`."""
        a, b, difference = self.values(shown)
        known = np.isfinite(difference)
        return Trajectories(*(row_means(np.where(known, x, np.nan)) for x in (a, b, difference)))
