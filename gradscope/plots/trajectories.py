"""One sample along t in several cells: x_t, x0-hat and the gradient, drawn as its kind of sample is."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import xarray as xr

from gradscope.plots.panels import draw_panels
from gradscope.plots.paths import draw_paths, path_table
from gradscope.plots.picture_strips import FRAMES, draw_pictures, pictures
from gradscope.plots.stored_trajectory import stored_trajectory
from gradscope.store.dims import sample_dims
from gradscope.store.sample_kind import sample_kind


def trajectories(ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]], sample: int, steps: int = 8) -> go.Figure:
    """x_t, x0-hat and the gradient of one sample along t, in some cells, which share its noise.

    Images are shown as such, and four frames of a video side by side; their gradients are divided by their norm, which
    stands below each, and averaged over channels. Signals and trajectories are curves, sets of points lie in the plane
    of their first two axes with gradients as arrows; a single point is a path through that plane. All of one tensor
    have the same limits, symmetric around 0.

    Parameters
    ----------
    ds
        A store with some of ``x_t``, ``pred_original_sample`` and ``gradient``.
    cells
        Names of the cells; dimensions of size one may be left out.
    sample
        Number of the sample.
    steps
        Largest number of timesteps; they are spaced evenly among those whose tensors are kept in all these cells. Of
        videos, fewer fit.

    Raises
    ------
    GradscopeError
        Such samples cannot be drawn, or the store has none of the tensors, or not those of this sample.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> figure = trajectories(synthetic.trajectories(samples=4), [{}], sample=0, steps=3)
    >>> figure.layout.xaxis.ticktext, figure.layout.yaxis.ticktext
    (('t = 980', 't = 500', 't = 0'), ('x_t', 'x0-hat', 'gradient'))
    """
    return draw_trajectories(trajectory_numbers(ds, cells, sample, steps))


def trajectory_numbers(
    ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]], sample: int, steps: int = 8
) -> xr.Dataset:
    """Numbers of `trajectories`, with the same arguments.

    Returns
    -------
    xarray.Dataset
        Over ``cell`` (its name) and ``timestep``: the tensors, with ``gradient`` divided by its l2 norm, and
        ``gradient_norm``. For images and videos these are images in [0, 1], over height, width and channel (1 or 3);
        ``gradient`` averaged over channels; without dimensions ``limit``, the largest magnitude of 99 % of these
        averages in all cells.
    """
    kind = sample_kind(sample_dims(ds)).name
    if kind == "video":
        steps = min(steps, 16 // FRAMES)
    numbers = stored_trajectory(ds, cells, sample, steps)
    return pictures(numbers) if kind in ("image", "video") else numbers


def draw_trajectories(numbers: xr.Dataset) -> go.Figure:
    """Draw the numbers of `trajectory_numbers`."""
    kind = numbers.attrs["kind"]
    if kind == "point":
        return draw_paths(path_table(numbers))
    return draw_pictures(numbers) if kind in ("image", "video") else draw_panels(numbers)
