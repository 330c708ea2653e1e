"""Two cells, paired over the samples that are finished in both: what the figures of a comparison start from."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.comparison import SCALARS, paired_difference
from gradscope.analysis.contents import Cell, finished, place
from gradscope.analysis.diagnostics import described
from gradscope.errors import GradscopeError
from gradscope.plots.cells import Floats, diagnostic, finite_mean, headline, named, values
from gradscope.plots.style import PALETTE, cell_name, label, text

DIFFERENCE = PALETTE[3]
"""Colour of what belongs to neither cell alone."""


class Quantity(NamedTuple):
    """What is compared of a diagnostic."""

    title: str
    variable: str
    transform: Callable[[Floats], Floats]
    """Of the values ``(samples, timesteps)``."""


class Trajectories(NamedTuple):
    """Of each sample, the means over the timesteps at which both cells are finite, ``(samples,)``."""

    a: Floats
    b: Floats
    difference: Floats


def variable_of(name: str) -> str:
    """The diagnostic that a title of the table of `gradscope.analysis.compare` is about, or that `name` is."""
    return SCALARS[name].variable if name in SCALARS else name


def quantity(ds: xr.Dataset, name: str) -> Quantity:
    """As `gradscope.analysis.compare` looks at it: by a title of its table, or by the name of a diagnostic."""
    logarithm = f"log10 {name}"
    for title in (name, logarithm):
        if title in SCALARS:
            return Quantity(title, *SCALARS[title])
    return Quantity(logarithm, name, np.log10) if described(ds, name).logarithmic else Quantity(name, name, np.asarray)


def titled(ds: xr.Dataset, of: Quantity) -> str:
    """Title and unit."""
    return label(ds, of.variable).replace(of.variable, of.title)


def names(pair: "Pair") -> dict[str, str]:
    """The two cells in words, by ``a`` and ``b``."""
    return {"a": cell_name(pair.a), "b": cell_name(pair.b)}


def head(figure: go.Figure, about: Mapping[str, str]) -> None:
    """Say above the figure which cells are compared, and keep room for that and for a legend."""
    headline(figure, f"a: {text(about['a'])}  ·  b: {text(about['b'])}")
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font_size": 11}, margin_t=70)


class Pair:
    """Cells a and b of a store.

    Raises
    ------
    GradscopeError
        A cell is unknown or ambiguous, or both are the same.
    """

    def __init__(self, ds: xr.Dataset, a: Mapping[str, str | float], b: Mapping[str, str | float]) -> None:
        self.ds = ds
        self.a: Cell = named(ds, a)
        self.b: Cell = named(ds, b)
        if self.a == self.b:
            raise GradscopeError("a and b are the same cell; choose two")
        self.cells = tuple(ds.isel(place(ds, cell)) for cell in (a, b))
        self.both = finished(self.cells[0]) & finished(self.cells[1])
        self.samples: NDArray[np.int64] = ds["sample"].values[self.both]
        """Those that are finished in both."""

    def values(self, of: Quantity) -> tuple[Floats, Floats, Floats]:
        """Those of a, of b, and b − a, each ``(samples, timesteps)``; not finite where they are not.

        Raises
        ------
        GradscopeError
            There is no such diagnostic in the store.
        """
        diagnostic(self.ds, of.variable)
        with np.errstate(divide="ignore", invalid="ignore"):  # of the logarithm
            a, b = (of.transform(values(self.ds, of.variable, cell)[self.both]) for cell in (self.a, self.b))
        return a, b, paired_difference(a, b)

    def trajectories(self, of: Quantity) -> Trajectories:
        """Means over timesteps, as `gradscope.analysis.compare` takes them."""
        a, b, difference = self.values(of)
        known = np.isfinite(difference)
        return Trajectories(*(finite_mean(np.where(known, x, np.nan), axis=1)[0] for x in (a, b, difference)))
