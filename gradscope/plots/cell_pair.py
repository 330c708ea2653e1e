"""Two cells, of one store or of two, as the figures of a comparison show them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.cells import cell_name
from gradscope.analysis.comparison import SCALARS
from gradscope.analysis.diagnostics import described
from gradscope.analysis.means import Floats
from gradscope.analysis.two_cells import TwoCells
from gradscope.plots.figure_numbers import require_diagnostic
from gradscope.plots.layout import title_line
from gradscope.plots.style import escaped, label


class Quantity(NamedTuple):
    """A diagnostic as it is compared."""

    title: str
    variable: str
    transform: Callable[[Floats], Floats]
    """Applied to the values, ``(samples, timesteps)``."""


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
    """The two cells in words, under ``a`` and ``b``, and why their samples are ``unpaired``, empty where they are."""
    other = " (other store)" if pair.of_two_stores else ""
    return {"a": cell_name(pair.a), "b": cell_name(pair.b) + other, "unpaired": pair.why_unpaired}


def name_cells_above(figure: go.Figure, names: Mapping[str, str]) -> None:
    """Say above the figure which cells are compared, with room for a legend."""
    title_line(figure, f"a: {escaped(names['a'])}  ·  b: {escaped(names['b'])}")
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font_size": 11}, margin_t=70)


class CellPair(TwoCells):
    """Two cells with the values of their quantities; parameters and errors are those of `TwoCells`."""

    def require(self, name: str) -> None:
        """Check that both stores have a diagnostic.

        Raises
        ------
        GradscopeError
            A store lacks it.
        """
        for store in self.stores:
            require_diagnostic(store, name)

    def shown(self, of: Quantity) -> tuple[Floats, Floats]:
        """Values of a and of b, each ``(samples, timesteps)``; they may be NaN or infinite.

        Raises
        ------
        GradscopeError
            A store has no such diagnostic.
        """
        self.require(of.variable)
        with np.errstate(divide="ignore", invalid="ignore"):  # norms may be 0, and their logarithm infinite
            a, b = (of.transform(values) for values in self.values(of.variable))
        return a, b

    def trajectories(self, of: Quantity) -> tuple[Floats, Floats]:
        """Mean of each trajectory in a and in b, computed as in `gradscope.analysis.compare`."""
        return self.means(*self.shown(of))
