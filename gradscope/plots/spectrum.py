"""The gradient's power over spatial frequencies, along t."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import cell_name, place
from gradscope.analysis.means import Floats, finite_mean
from gradscope.analysis.tensors import NO_FREQUENCIES
from gradscope.errors import GradscopeError
from gradscope.plots.figure_numbers import full_cell
from gradscope.plots.layout import along_t, finish, title_line
from gradscope.plots.stored_gradient import stored_gradient
from gradscope.plots.style import GREY, escaped
from gradscope.store.dims import sample_dims
from probes.variable import IMAGE_DIMS

_WIDTH, _BINS = 1 / 16, 12
"""Width of a bin of radial frequency in cycles per pixel, and number of bins; the same as in the probe `spectrum`."""
_HALF_NYQUIST = 0.25
_LIMIT = 2
"""Ends of the colour scale, in orders of magnitude: the same for every cell, so that figures can be compared."""


def spectrum(ds: xr.Dataset, cell: Mapping[str, str | float], samples: int = 16, timesteps: int = 25) -> go.Figure:
    """Power of one cell's gradient over timesteps and radial frequencies, relative to white noise of the same power.

    White noise is 0 everywhere. A gradient of texture lies above 0 at high frequencies, one of shapes at low ones.

    Parameters
    ----------
    ds
        A store with the recorded spectrum, or with gradients.
    cell
        Names of the cell; dimensions of size one may be left out.
    samples, timesteps
        Largest number of samples and of timesteps to read, if the spectrum was not recorded and must be computed from
        the stored gradients.

    Raises
    ------
    GradscopeError
        The samples are not images, there is no such cell, or the store has neither its spectrum nor its gradients.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> figure = spectrum(synthetic.trajectories(samples=4, timesteps=10), {})
    >>> figure.data[0].z.shape  # bins of frequency, timesteps
    (12, 10)
    """
    return draw_spectrum(spectrum_numbers(ds, cell, samples, timesteps))


def spectrum_numbers(
    ds: xr.Dataset, cell: Mapping[str, str | float], samples: int = 16, timesteps: int = 25
) -> pd.DataFrame:
    """Numbers of `spectrum`, with the same arguments: one row per timestep and bin of radial frequency.

    Returns
    -------
    pandas.DataFrame
        ``timestep``; ``radial_frequency``, the centre of the bin in cycles per pixel; ``share`` of the gradient's power
        in the bin, the mean over samples; ``white``, the share that white noise would have; ``n``, the number of
        samples whose gradient is finite and not zero. ``attrs["source"]``: which samples and timesteps were used.
    """
    if sample_dims(ds) != IMAGE_DIMS:
        raise GradscopeError(NO_FREQUENCIES)
    full = full_cell(ds, cell)
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
    figure.add_hline(y=_HALF_NYQUIST, line={"color": GREY, "dash": "dot", "width": 1.5})
    figure.update_yaxes(title="cycle/pixel")
    title_line(figure, f"{escaped(numbers.attrs['cell'])}: mean over {numbers.attrs['source']}")
    return finish(along_t(figure, timestep), 320).update_layout(margin_t=40)


def radial_spectrum(gradient: Floats) -> Floats:
    """Share of the power in each bin of radial frequency, over all channels, ``(samples, bins)``.

    The bins are those of the probe `spectrum`: bin j holds the frequencies above j / 16 up to (j + 1) / 16 cycles per
    pixel; the first bin also holds 0. NaN for gradients that are zero or not finite.

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
    """The bin of each frequency, ``(height, width)``.

    A frequency on the upper edge of a bin belongs to it; a tolerance keeps rounding from lifting it into the next one.
    """
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return np.maximum(np.ceil(radius / _WIDTH - 1e-9).astype(int) - 1, 0)
