"""One cell minus another along t, for one diagnostic."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.means import finite_mean, mean_interval
from gradscope.analysis.statistics import MINIMUM_SAMPLES, cluster_permutation
from gradscope.plots.bands import band
from gradscope.plots.cell_pair import DIFFERENCE, CellPair, cell_names, name_cells_above, quantity, titled
from gradscope.plots.figure_numbers import require_diagnostic
from gradscope.plots.layout import along_t, finish
from gradscope.plots.style import GREY, escaped, shade

_LEVEL = 0.05
"""Largest p of a cluster that is shaded."""


def difference(
    ds: xr.Dataset,
    name: str,
    a: Mapping[str, str | float],
    b: Mapping[str, str | float],
    highlight: Sequence[int] = (),
) -> go.Figure:
    """Cell b minus cell a along t, paired over samples: mean, 95 % interval, and where the curves differ.

    Clusters of timesteps whose p is at most 0.05 are shaded.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    name
        A diagnostic over cells, sample and timestep. Norms, and others that span orders of magnitude, are compared as
        log10.
    a, b
        Names of the two cells; dimensions of size one may be left out.
    highlight
        Samples whose own mean is drawn too.

    Raises
    ------
    GradscopeError
        The store has no such diagnostic or cell, or both cells are the same.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> parts = [synthetic.trajectories(seed=k).assign_coords(stabilizer=[name]) for k, name in enumerate("ab")]
    >>> both = xr.concat(parts, "stabilizer", data_vars="all", join="outer")
    >>> difference(both, "gradient_norm", {"stabilizer": "a"}, {"stabilizer": "b"}).layout.yaxis.title.text
    'log10 gradient_norm, b − a'
    """
    return draw_difference(difference_numbers(ds, name, a, b, highlight))


def difference_numbers(
    ds: xr.Dataset,
    name: str,
    a: Mapping[str, str | float],
    b: Mapping[str, str | float],
    highlight: Sequence[int] = (),
) -> pd.DataFrame:
    """Numbers of `difference`, with the same arguments: one row per timestep.

    Returns
    -------
    pandas.DataFrame
        ``timestep``; ``mean`` of b − a over the samples that are finished in both, with its 95 % interval (Student)
        ``low``, ``high``; ``n``, the number of samples that are finite at t; ``highlighted``, the mean of `highlight`.
        ``attrs``: the number of ``samples``; the ``clusters`` of timesteps, as
        `gradscope.analysis.statistics.cluster_permutation` finds them.
    """
    require_diagnostic(ds, name)
    shown, pair = quantity(ds, name), CellPair(ds, a, b)
    apart = pair.values(shown)[-1]
    timestep = ds["timestep"].values.tolist()
    mean, low, high, n = mean_interval(apart)
    chosen = np.isin(pair.samples, highlight)
    own, _ = finite_mean(apart[chosen], axis=0)
    numbers = pd.DataFrame({"timestep": timestep, "mean": mean, "low": low, "high": high, "n": n, "highlighted": own})
    clusters = [replace(c, first=timestep[c.first], last=timestep[c.last]) for c in cluster_permutation(apart)]
    numbers.attrs = {
        **cell_names(pair),
        "label": titled(ds, shown),
        "samples": len(pair.samples),
        "clusters": [asdict(cluster) for cluster in clusters],
        "highlighted": int(chosen.sum()),
    }
    return numbers


def draw_difference(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `difference_numbers`."""
    about = numbers.attrs
    legend = f"mean of {about['samples']} samples, 95 % interval<br>{_tested(numbers)}"
    figure = go.Figure(band(numbers, "low", "high", shade(DIFFERENCE, 0.3), "mean"))
    figure.add_trace(
        go.Scatter(
            x=numbers["timestep"],
            y=numbers["mean"],
            mode="lines",
            name=legend,
            line={"color": DIFFERENCE, "width": 2},
            customdata=numbers[["low", "high", "n"]],
            hovertemplate="%{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], N = %{customdata[2]}<extra></extra>",
        )
    )
    if about["highlighted"]:
        figure.add_trace(
            go.Scatter(
                x=numbers["timestep"],
                y=numbers["highlighted"],
                mode="lines",
                name=f"mean of the {about['highlighted']} selected",
                line={"color": GREY, "width": 2, "dash": "dash"},
                hovertemplate="selected: %{y:.3g}<extra></extra>",
            )
        )
    figure.add_hline(y=0, line={"color": GREY, "dash": "dot", "width": 1.5})
    edges = _edges(numbers["timestep"].to_numpy(dtype=np.float64))
    for cluster in about["clusters"]:
        if cluster["p"] <= _LEVEL:
            figure.add_vrect(
                x0=edges[cluster["first"]][0], x1=edges[cluster["last"]][1], fillcolor=GREY, opacity=0.16, line_width=0,
                layer="below", annotation_text=f"p = {cluster['p']:.2g}", annotation_position="inside top",
            )  # fmt: skip
    figure.update_yaxes(title=f"{escaped(about['label'])}, b − a")
    figure.update_layout(hovermode="x unified")
    finish(along_t(figure, numbers["timestep"]), 320)
    name_cells_above(figure, about)
    return figure.update_layout(margin_t=92)


def _tested(numbers: pd.DataFrame) -> str:
    """Which clusters are shaded, and at which timesteps there are enough finite samples for a p."""
    enough, known = numbers["n"] >= MINIMUM_SAMPLES, numbers["n"] > 0
    if not enough.any():
        return f"no p: N up to {numbers['n'].max()}, below {MINIMUM_SAMPLES}"
    shaded = f"shaded: p at most {_LEVEL:g}"
    if enough[known].all():
        return shaded
    return f"{shaded}; tested where N is at least {MINIMUM_SAMPLES}: {enough.sum()} of {known.sum()} timesteps"


def _edges(timestep: NDArray[np.float64]) -> dict[float, tuple[float, float]]:
    """The interval around each timestep that reaches half way to its neighbours."""
    middles = (timestep[1:] + timestep[:-1]) / 2
    first, last = np.append(timestep[:1], middles), np.append(middles, timestep[-1:])
    return {t: (a, b) for t, a, b in zip(timestep.tolist(), first.tolist(), last.tolist(), strict=True)}
