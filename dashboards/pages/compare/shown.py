"""What the Compare page compares: two cells, of one store or of two, of all samples or of those of one class."""

from collections.abc import Sequence
from typing import NamedTuple

import xarray as xr

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.data.two_runs import TwoRuns, other_run
from dashboards.pages.compare.differences import why_incomparable
from dashboards.state import State
from dashboards.widgets.export import Call
from dashboards.widgets.links import View, shown_state, trajectory_state
from gradscope.analysis.by_class import of_class
from gradscope.analysis.cells import Cell
from gradscope.analysis.comparison import SCALARS, Comparison, compare
from gradscope.analysis.two_cells import TwoCells


class Compared(NamedTuple):
    """The two cells on the page."""

    run: OpenRun
    other: OpenRun
    """The store of b; that of a where both are of one store."""
    state: State
    a: Cell
    b: Cell
    label: int | None
    """The target class; None for all."""

    @property
    def two_stores(self) -> bool:
        return self.other is not self.run

    @property
    def drawn(self) -> OpenRun | TwoRuns:
        """What the page's figures read."""
        return TwoRuns(self.run, self.other) if self.two_stores else self.run

    def scalars(self, *names: str) -> tuple[xr.Dataset, xr.Dataset | None]:
        """Diagnostics of the store of a, and of that of b where it is another one."""
        stores = (self.run, self.other) if self.two_stores else (self.run,)
        read = [run.scalars(*[name for name in names if name in run.ds] or ["written"]) for run in stores]
        chosen = [ds if self.label is None else of_class(ds, self.label) for ds in read]
        return chosen[0], chosen[1] if self.two_stores else None

    def why_not(self) -> str:
        """Why the cells cannot be compared; empty where they can."""
        ds, other = self.scalars("written")
        return why_incomparable(ds, self.a, self.b, other)

    def comparison(self) -> Comparison:
        """All statistics."""
        ds, other = self.scalars(*(scalar.variable for scalar in SCALARS.values()))
        key = ("comparison", self.label, *self.a.values(), *self.b.values())
        return self.drawn.memo(key, lambda: compare(ds, self.a, self.b, other))

    def call(self, figure: str, **arguments: object) -> Call:
        """A figure of the two cells."""
        return Call(figure, arguments | {"a": dict(self.a), "b": dict(self.b)}, self.label)

    def partners(self, samples: Sequence[int]) -> list[tuple[int, int]]:
        """Numbers of these samples in the stores of a and b; none where samples are not pairs."""
        if not self.two_stores:
            return [(sample, sample) for sample in samples]
        ds, other = self.scalars("written")
        pair = TwoCells(ds, self.a, self.b, other)
        if not pair.paired:
            return []
        first, second = (numbers.tolist() for numbers in pair.samples)
        of_b = dict(zip(first, second, strict=True))
        return [(sample, of_b[sample]) for sample in samples if sample in of_b]

    def trajectory(self, run: OpenRun, number: int, cells: tuple[int, int], name: str) -> State:
        """The state of the Trajectory page of a cell; in one store, both cells are shown there."""
        if not self.two_stores:
            shown = tuple(sorted(cells))
            return self.state.to("trajectory", cell=number, cells=shown, variables=(name,), other_store="")
        start = trajectory_state(run, number, (name,))
        timesteps = run.ds["timestep"].values.tolist()
        nearest = min(timesteps, key=lambda t: abs(t - self.state.timestep))
        return start.to("trajectory", cells=(number,), timestep=nearest)


def compared(library: Library, view: View | None, first: int, second: int, label: int | None) -> Compared:
    """The cells of these numbers on the page of a view.

    Raises
    ------
    GradscopeError
        A store has no such cell, or cannot be read.
    """
    run, state = shown_state(library, view)
    other = other_run(library, run, state.other_store)
    return Compared(run, other, state, run.cell(first), other.cell(second), label)
