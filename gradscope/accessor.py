"""``ds.gradscope``: the analysis of a store as methods, for notebooks.

The methods that make figures and pages import what they need: reading a store needs neither plotly nor jinja2.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr

from gradscope.analysis import comparison, signatures, stability, technique_effects, vectors
from gradscope.analysis.samples import samples
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.summary import summary
from gradscope.store import open_store

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from dashboards.notebook.view import View
    from gradscope.analysis.findings import Finding
    from gradscope.reporting.report import Report

__all__ = ["Accessor", "open_store"]

Names = Mapping[str, str | float]


@xr.register_dataset_accessor("gradscope")
class Accessor:
    """The functions of `gradscope.analysis` and `gradscope.plots` as methods of an open store.

    Examples
    --------
    >>> ds = gradscope.open("runs/both.zarr")
    >>> ds.gradscope.summary().judge_accuracy.dims
    ('classifier', 'classifier_input', 'stabilizer', 'guidance_scale')
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._selected = ds

    @cached_property
    def _ds(self) -> xr.Dataset:
        """The dataset with all dimensions of a store; raises GradscopeError if it is not a store."""
        return restore_dims(self._selected)

    def summary(self) -> xr.Dataset:
        """Summarise each cell, see `gradscope.summary`."""
        return summary(self._ds)

    def signatures(self) -> pd.DataFrame:
        """Find signatures of failure, see `gradscope.signatures`."""
        return signatures.signatures(self._ds)

    def untested(self) -> dict[str, str]:
        """Signatures that could not be tested, and what each of them needs."""
        return signatures.untested(self._ds)

    def curves(self, names: str | Sequence[str] | None = None) -> xr.Dataset:
        """Compute means, intervals and quantiles along t, see `gradscope.stability.curves`."""
        return stability.curves(self._ds, names)

    def compare(self, a: Names, b: Names) -> comparison.Comparison:
        """Compare cell b with cell a, see `gradscope.compare`."""
        return comparison.compare(self._ds, a, b)

    def compare_all(self, baseline: str = "none") -> pd.DataFrame:
        """Compare stabilisers with `baseline`, and x0 with x_t, see `gradscope.analysis.compare_all`."""
        return technique_effects.compare_all(self._ds, baseline)

    def samples(self, early: float = 0.25, names: str | Sequence[str] | None = None) -> pd.DataFrame:
        """Join each sample's verdicts with means over its first timesteps, see `gradscope.analysis.samples`."""
        return samples(self._ds, early, names)

    def norm(self, a: vectors.Tensor) -> xr.DataArray:
        """The l2 norm of each sample's tensor, right for any size, see `gradscope.analysis.norm`."""
        return vectors.norm(self._selected, a)

    def cosine(self, a: vectors.Tensor, b: vectors.Tensor) -> xr.DataArray:
        """The cosine of two tensors of each sample, right for any size, see `gradscope.analysis.cosine`."""
        return vectors.cosine(self._selected, a, b)

    def report(self) -> "Report":
        """Collect all of these, see `gradscope.report`."""
        from gradscope.reporting.report import report

        return report(self._ds)

    def show(
        self,
        finding: "int | Finding | None" = None,
        cell: Names | None = None,
        sample: int | None = None,
        timestep: float | None = None,
    ) -> "View":
        """Show a finding, a cell or several cells inline: maps of all tensors at one position, and curves along t.

        It needs the extra ``notebook`` (anywidget), and no network.

        Parameters
        ----------
        finding
            Number of a row of `signatures`, or a finding of a report. Its cell is shown, at the sample and timestep
            that show it best.
        cell
            Names of one cell; dimensions of size one may be left out. Without a finding or a cell, up to eight guided
            cells are shown.
        sample
            Number of the sample; by default the first that has tensors.
        timestep
            The timestep; by default the middle one.

        Returns
        -------
        View
            The widget. ``view.cursor`` is its position, for ``ds.sel(view.cursor)``; ``view.link()`` its address in
            the dashboard; ``view.figures`` its curves as plotly figures; ``view.tiles()`` its maps as PNG files.

        Raises
        ------
        GradscopeError
            anywidget is not installed; or there is no such finding, cell, sample or timestep.

        Examples
        --------
        >>> view = ds.gradscope.show(finding=0)
        >>> view.finding.signature, view.cell["classifier"]
        ('unstable', 'non_robust')
        """
        from dashboards.notebook import show

        return show(self._selected, finding, cell, sample, timestep)

    def to_html(self, path: str | Path) -> None:
        """Write the report as one HTML page that needs no network."""
        from gradscope.reporting.html import to_html

        Path(path).write_text(to_html(self.report(), self._ds), encoding="utf-8")

    def plot_curve(self, name: str) -> "go.Figure":
        """Plot a diagnostic along t, with bands."""
        from gradscope import plots

        return plots.curve(self._ds, name)

    def plot_heatmap(self, name: str) -> "go.Figure":
        """Plot a diagnostic over cells and t; the timesteps that findings flag are outlined."""
        from gradscope import plots
        from gradscope.plots.heatmap import flagged_spans

        return plots.heatmap(self._ds, name, flagged_spans(signatures.find(self._ds), name))

    def plot_trajectories(self, cells: Sequence[Names], sample: int = 0, steps: int = 8) -> "go.Figure":
        """Show x_t, x0-hat and the gradient of one sample along t, in some cells."""
        from gradscope import plots

        return plots.trajectories(self._ds, cells, sample, steps)

    def plot_accuracy(self) -> "go.Figure":
        """Plot accuracies by judge and guide, with intervals."""
        from gradscope import plots

        return plots.accuracy(self._ds)

    def plot_confusion(self, cell: Names) -> "go.Figure":
        """Plot the judge's class by target class, in one cell."""
        from gradscope import plots

        return plots.confusion(self._ds, cell)
