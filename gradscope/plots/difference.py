"""One cell less another along t, for one diagnostic."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.means import mean_interval
from gradscope.analysis.statistics import MINIMUM, cluster_permutation
from gradscope.plots.cells import INK, along_t, diagnostic, finite_mean
from gradscope.plots.curve_grid import band
from gradscope.plots.paired import DIFFERENCE, Pair, head, names, quantity, titled
from gradscope.plots.style import finish, shade, text

_LEVEL = 0.05


def difference_numbers(
    ds: xr.Dataset,
    name: str,
    a: Mapping[str, str | float],
    b: Mapping[str, str | float],
    highlight: Sequence[int] = (),
) -> pd.DataFrame:
    """What `difference` shows: one row a timestep.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    name
        A diagnostic over cells, sample and timestep; norms and what else spans orders of magnitude as log10.
    a, b
        Names of the two cells; dimensions of size one may be left out.
    highlight
        Samples whose own mean is given.

    Returns
    -------
    pandas.DataFrame
        ``timestep``; ``mean``, that of b − a over the samples that are finished in both, with its 95 % (Student)
        interval ``low``, ``high``; ``n``, those finite at t; ``highlighted``, the mean of `highlight`. ``attrs``: the
        ``samples``; the ``clusters`` of timesteps, as `gradscope.analysis.statistics.cluster_permutation` finds them.

    Raises
    ------
    GradscopeError
        There is no such diagnostic or cell in the store, or both cells are the same.
    """
    diagnostic(ds, name)
    of, pair = quantity(ds, name), Pair(ds, a, b)
    apart = pair.values(of)[-1]
    timestep = ds["timestep"].values.tolist()
    mean, low, high, n = mean_interval(apart)
    chosen = np.isin(pair.samples, highlight)
    own, _ = finite_mean(apart[chosen], axis=0)
    numbers = pd.DataFrame({"timestep": timestep, "mean": mean, "low": low, "high": high, "n": n, "highlighted": own})
    clusters = [replace(c, first=timestep[c.first], last=timestep[c.last]) for c in cluster_permutation(apart)]
    numbers.attrs = {
        **names(pair),
        "label": titled(ds, of),
        "samples": len(pair.samples),
        "clusters": [asdict(cluster) for cluster in clusters],
        "highlighted": int(chosen.sum()),
    }
    return numbers


def difference(
    ds: xr.Dataset,
    name: str,
    a: Mapping[str, str | float],
    b: Mapping[str, str | float],
    highlight: Sequence[int] = (),
) -> go.Figure:
    """Cell b less cell a along t, paired over samples: mean, 95 % interval, and where the curves differ.

    Shaded are clusters of timesteps whose p is at most 0.05. See `difference_numbers` for the arguments.
    """
    return draw_difference(difference_numbers(ds, name, a, b, highlight))


def draw_difference(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `difference_numbers`."""
    about = numbers.attrs
    much = f"mean of {about['samples']} samples, 95 % interval<br>{_tested(numbers)}"
    figure = go.Figure(band(numbers, "low", "high", shade(DIFFERENCE, 0.3), "mean"))
    figure.add_trace(
        go.Scatter(
            x=numbers["timestep"],
            y=numbers["mean"],
            mode="lines",
            name=much,
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
                line={"color": INK, "width": 2, "dash": "dash"},
                hovertemplate="selected: %{y:.3g}<extra></extra>",
            )
        )
    figure.add_hline(y=0, line={"color": INK, "dash": "dot", "width": 1.5})
    edges = _edges(numbers["timestep"].to_numpy(dtype=np.float64))
    for cluster in about["clusters"]:
        if cluster["p"] <= _LEVEL:
            figure.add_vrect(
                x0=edges[cluster["first"]][0], x1=edges[cluster["last"]][1], fillcolor=INK, opacity=0.16, line_width=0,
                layer="below", annotation_text=f"p = {cluster['p']:.2g}", annotation_position="inside top",
            )  # fmt: skip
    figure.update_yaxes(title=f"{text(about['label'])}, b − a")
    figure.update_layout(hovermode="x unified")
    finish(along_t(figure, numbers["timestep"]), 320)
    head(figure, about)
    return figure.update_layout(margin_t=92)


def _tested(numbers: pd.DataFrame) -> str:
    """Where there is a p, which takes enough samples that are finite."""
    enough, known = numbers["n"] >= MINIMUM, numbers["n"] > 0
    if not enough.any():
        return f"no p: N up to {numbers['n'].max()}, below {MINIMUM}"
    told = f"shaded: p at most {_LEVEL:g}"
    if enough[known].all():
        return told
    return f"{told}; tested where N is at least {MINIMUM}: {enough.sum()} of {known.sum()} timesteps"


def _edges(timestep: NDArray[np.float64]) -> dict[float, tuple[float, float]]:
    """Half way to the neighbours of each timestep."""
    middles = (timestep[1:] + timestep[:-1]) / 2
    first, last = np.append(timestep[:1], middles), np.append(middles, timestep[-1:])
    return {t: (a, b) for t, a, b in zip(timestep.tolist(), first.tolist(), last.tolist(), strict=True)}
