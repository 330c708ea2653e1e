"""Links from a notebook to the dashboard."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dashboards.data.open_run import OpenRun
from dashboards.state import default
from gradscope.errors import GradscopeError

ADDRESS = "http://127.0.0.1:8050/"
"""Where `gradscope dashboard` listens."""


def dashboard_link(path: str, cell: Mapping[str, Any], at: Mapping[str, Any], address: str) -> str:
    """The address of a position on the dashboard's page of trajectories.

    Parameters
    ----------
    path
        The store, as the dataset's encoding names it.
    cell
        The names along all dimensions of the cell.
    at
        The values of the coordinates ``sample``, ``timestep`` and, where the store has it, ``step``.
    address
        Where the dashboard of this store listens.

    Raises
    ------
    GradscopeError
        The dataset is not that of one store on a disk.
    """
    if not path or "://" in path:
        raise GradscopeError(
            "link: the dashboard shows stores of this machine; take a dataset of gradscope.open(path), or a selection"
        )
    run = OpenRun(Path(path))
    cells = [dict(each) for each in run.cells]
    state = default(run, "trajectory")
    number = cells.index(dict(cell))
    sample = run.ds["sample"].values.tolist().index(at["sample"])
    # Timesteps that are not whole have other numbers in the dashboard: the step says which it is.
    along = "step" if "step" in at else "timestep"
    step = run.ds[along].values.tolist().index(at[along])
    shown = state.cells if number in state.cells else (number,)
    moved = replace(state, cell=number, sample=sample, timestep=int(run.ds["timestep"].values[step]), cells=shown)
    return f"{address.rstrip('/')}/{moved.url()}"
