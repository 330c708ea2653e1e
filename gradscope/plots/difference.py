"""One cell minus another along t, for one diagnostic."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.independent import mean_difference
from gradscope.analysis.means import finite_mean, mean_interval
from gradscope.analysis.paired_cells import paired_difference
from gradscope.analysis.statistics import MINIMUM_SAMPLES, cluster_permutation
from gradscope.errors import GradscopeError
from gradscope.plots.bands import band
from gradscope.plots.cell_pair import CellPair, cell_names, name_cells_above, quantity, titled
from gradscope.plots.layout import along_t, edges, finish, nearest_curve
from gradscope.plots.style import DIFFERENCE, GREY, escaped, shade

_LEVEL = 0.05
"""Largest p of a cluster that is shaded."""


def difference(
    ds: xr.Dataset,
    name: str,
    a: Mapping[str, str | float],
    b: Mapping[str, str | float],
    highlight: Sequence[int] = (),
    other: xr.Dataset | None = None,
) -> go.Figure:
    """Cell b minus cell a along t: mean, 95 % interval, and where the curves differ.

    Samples are paired as `gradscope.compare` pairs them. Clusters of timesteps whose p is at most 0.05 are shaded;
    samples that are not pairs have no p.

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
    other
        The store of b, or its scalars; None if it is that of a. Timesteps that both stores have are shown.

    Raises
    ------
    GradscopeError
        The store has no such diagnostic or cell, both cells are the same, or the stores have no timestep in common.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> parts = [synthetic.trajectories(seed=k).assign_coords(stabilizer=[name]) for k, name in enumerate("ab")]
    >>> both = xr.concat(parts, "stabilizer", data_vars="all", join="outer")
    >>> difference(both, "gradient_norm", {"stabilizer": "a"}, {"stabilizer": "b"}).layout.yaxis.title.text
    'log10 gradient_norm, b − a'
    """
    return draw_difference(difference_numbers(ds, name, a, b, highlight, other))


def difference_numbers(
    ds: xr.Dataset,
    name: str,
    a: Mapping[str, str | float],
    b: Mapping[str, str | float],
    highlight: Sequence[int] = (),
    other: xr.Dataset | None = None,
) -> pd.DataFrame:
    """Numbers of `difference`, with the same arguments: one row per timestep.

    Returns
    -------
    pandas.DataFrame
        ``timestep``; ``mean`` of b − a over the samples that are finished in both, with its 95 % interval (Student's,
        Welch's for samples that are not pairs) ``low``, ``high``; ``n``, the number of samples that are finite at t, of
        the cell with fewer; ``highlighted``, the mean of `highlight`. ``attrs``: the numbers of ``samples`` in a and of
        ``samples_b``; the ``clusters`` of timesteps, as `gradscope.analysis.statistics.cluster_permutation` finds them.
    """
    shown, pair = quantity(ds, name), CellPair(ds, a, b, other=other)
    pair.require(name)  # a title such as "final log_prob" has no curve
    steps = pair.steps
    if not len(steps[0]):
        raise GradscopeError(f"difference of {name}: the two stores have no timestep in common")
    first, second = (values[:, at] for values, at in zip(pair.shown(shown), steps, strict=True))
    timestep = pair.stores[0]["timestep"].values[steps[0]].tolist()
    clusters, own, chosen = [], np.full(len(timestep), np.nan), np.zeros(0, dtype=bool)
    if pair.paired:
        apart = paired_difference(first, second)
        found = mean_interval(apart)
        chosen = np.isin(pair.samples[0], highlight)
        own, _ = finite_mean(apart[chosen], axis=0)
        clusters = [replace(c, first=timestep[c.first], last=timestep[c.last]) for c in cluster_permutation(apart)]
    else:
        found = mean_difference(first, second)
    columns = dict(zip(("mean", "low", "high", "n"), found, strict=True))
    numbers = pd.DataFrame({"timestep": timestep, **columns, "highlighted": own})
    numbers.attrs = {
        **cell_names(pair),
        "label": titled(ds, shown),
        "samples": len(pair.rows[0]),
        "samples_b": len(pair.rows[1]),
        "clusters": [asdict(cluster) for cluster in clusters],
        "highlighted": int(chosen.sum()),
    }
    return numbers


def draw_difference(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `difference_numbers`."""
    about = numbers.attrs
    count = f"{about['samples']} samples" if not about["unpaired"] else f"{about['samples']} and {about['samples_b']}"
    legend = f"mean of {count}, 95 % interval<br>{_tested(numbers)}"
    figure = go.Figure(band(numbers, "low", "high", shade(DIFFERENCE, 0.3), "mean"))
    figure.add_trace(
        go.Scatter(
            x=numbers["timestep"],
            y=numbers["mean"],
            mode="lines",
            name=legend,
            line={"color": DIFFERENCE, "width": 2},
            customdata=numbers[["low", "high", "n"]],
            hovertemplate=(
                "t = %{x}: %{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], N = %{customdata[2]}<extra></extra>"
            ),
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
                hovertemplate="t = %{x}, selected: %{y:.3g}<extra></extra>",
            )
        )
    figure.add_hline(y=0, line={"color": GREY, "dash": "dot", "width": 1.5})
    ends = edges(numbers["timestep"])
    for cluster in about["clusters"]:
        if cluster["p"] <= _LEVEL:
            figure.add_vrect(
                x0=ends[cluster["first"]][0], x1=ends[cluster["last"]][1], fillcolor=GREY, opacity=0.16, line_width=0,
                layer="below", annotation_text=f"p = {cluster['p']:.2g}", annotation_position="inside top",
            )  # fmt: skip
    figure.update_yaxes(title=f"{escaped(about['label'])}, b − a")
    nearest_curve(figure)
    finish(along_t(figure, numbers["timestep"]), 320)
    name_cells_above(figure, about)
    return figure.update_layout(margin_t=92)


def _tested(numbers: pd.DataFrame) -> str:
    """Which clusters are shaded, and at which timesteps there are enough finite samples for a p."""
    if numbers.attrs["unpaired"]:
        return "no p: samples are not pairs"
    enough, known = numbers["n"] >= MINIMUM_SAMPLES, numbers["n"] > 0
    if not enough.any():
        return f"no p: N up to {numbers['n'].max()}, below {MINIMUM_SAMPLES}"
    shaded = f"shaded: p at most {_LEVEL:g}"
    if enough[known].all():
        return shaded
    return f"{shaded}; tested where N is at least {MINIMUM_SAMPLES}: {enough.sum()} of {known.sum()} timesteps"
