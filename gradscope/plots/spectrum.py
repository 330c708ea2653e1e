"""Where the gradient's power lies in spatial frequency, along t."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.contents import place
from gradscope.plots.cells import INK, Floats, along_t, finite_mean, headline, named
from gradscope.plots.style import cell_name, finish, text
from gradscope.plots.tensors import stored_gradient

_WIDTH, _BINS = 1 / 16, 12
"""Bins of radial frequency, as the probe `spectrum` has them, in cycles a pixel."""
_HALF_NYQUIST = 0.25
_LIMIT = 2
"""Orders of magnitude; the same for every cell, so that figures side by side can be compared."""


def spectrum_numbers(
    ds: xr.Dataset, cell: Mapping[str, str | float], samples: int = 16, timesteps: int = 25
) -> pd.DataFrame:
    """What `spectrum` shows: one row a timestep and radial frequency.

    Parameters
    ----------
    ds
        A store.
    cell
        Its names; dimensions of size one may be left out.
    samples, timesteps
        At most so many, where the spectrum was not recorded and is computed from the stored gradients.

    Returns
    -------
    pandas.DataFrame
        ``timestep``; ``radial_frequency``, the centre of the bin, in cycles a pixel; ``share`` of the gradient's power
        there, the mean over samples; ``white``, the share that white noise would have; ``n``, samples whose gradient
        is finite and not zero. ``attrs["source"]``: what it is made of.

    Raises
    ------
    GradscopeError
        There is no such cell, or neither spectrum nor gradients.
    """
    full = named(ds, cell)
    if "radial_spectrum" in ds:
        recorded = ds["radial_spectrum"].isel(place(ds, cell)).transpose("sample", "timestep", "radial_frequency")
        shares, timestep = recorded.values.astype(np.float64), ds["timestep"].values
        source = f"all {len(shares)} samples, recorded by the probe `spectrum`"
    else:
        stored = stored_gradient(ds, cell, samples, timesteps)
        timestep, source = stored.timestep, str(stored)
        shares = np.full((len(stored.samples), len(timestep), _BINS), np.nan)
        for step, gradient in stored.read():
            shares[stored.there[step], step] = radial_spectrum(gradient)
    mean, n = finite_mean(shares, axis=0)
    members = _bins(ds.sizes["height"], ds.sizes["width"])
    white = np.bincount(members.ravel(), minlength=_BINS) / members.size
    columns = {
        "timestep": np.repeat(timestep, _BINS),
        "radial_frequency": np.tile((np.arange(_BINS) + 0.5) * _WIDTH, len(timestep)),
        "share": mean.ravel(),
        "white": np.tile(white, len(timestep)),
        "n": n.ravel(),
    }
    numbers = pd.DataFrame(columns)
    numbers.attrs = {"cell": cell_name(full), "source": source}
    return numbers


def spectrum(ds: xr.Dataset, cell: Mapping[str, str | float], samples: int = 16, timesteps: int = 25) -> go.Figure:
    """Power of one cell's gradient over timesteps and radial frequencies, against white noise of the same power.

    White noise is 0 everywhere; a gradient of texture is above it at the top, one of shapes at the bottom. See
    `spectrum_numbers` for the arguments.
    """
    return draw_spectrum(spectrum_numbers(ds, cell, samples, timesteps))


def draw_spectrum(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `spectrum_numbers`."""
    known = (numbers["share"] > 0) & (numbers["white"] > 0)
    ratio = np.log10(numbers["share"].where(known) / numbers["white"].where(known)).to_numpy()
    shape = (-1, numbers["radial_frequency"].nunique())
    timestep = numbers["timestep"].unique()
    figure = go.Figure(
        go.Heatmap(
            x=timestep,
            y=numbers["radial_frequency"].unique(),
            z=ratio.reshape(shape).T,
            zmin=-_LIMIT,
            zmax=_LIMIT,
            colorscale="RdBu_r",
            colorbar={"title": {"text": "log10 power / white", "side": "right"}, "thickness": 14},
            customdata=numbers[["share", "n"]].to_numpy(dtype=np.float32).reshape(*shape, 2).swapaxes(0, 1),
            hovertemplate=(
                "t = %{x}, %{y:.3f} cycle/pixel: %{customdata[0]:.3f} of the power, 10^%{z:.2f} times white noise's, "
                "N = %{customdata[1]}<extra></extra>"
            ),
        )
    )
    figure.add_hline(y=_HALF_NYQUIST, line={"color": INK, "dash": "dot", "width": 1.5})
    figure.update_yaxes(title="cycle/pixel")
    headline(figure, f"{text(numbers.attrs['cell'])}: mean over {numbers.attrs['source']}")
    return finish(along_t(figure, timestep), 320).update_layout(margin_t=40)


def radial_spectrum(gradient: Floats) -> Floats:
    """Share of the power in each bin of radial frequency, over all channels, ``(samples, bins)``.

    As the probe `spectrum` defines it: bin j holds the frequencies above j / 16 up to (j + 1) / 16 cycle per pixel, and
    the first one 0 too. NaN for gradients that are zero or not finite.

    Parameters
    ----------
    gradient
        Shape ``(samples, channel, height, width)``.
    """
    power = (np.abs(np.fft.fft2(gradient)) ** 2).sum(axis=1)
    members = _bins(*power.shape[1:])
    binned = np.stack([power[:, members == k].sum(axis=1) for k in range(_BINS)], axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(binned / binned.sum(axis=1, keepdims=True))


def _bins(height: int, width: int) -> NDArray[np.int64]:
    """The bin of each frequency, ``(height, width)``; rounding lifts none on an upper edge into the next bin."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return np.maximum(np.ceil(radius / _WIDTH - 1e-9).astype(int) - 1, 0)
