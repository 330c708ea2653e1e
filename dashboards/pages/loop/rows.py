"""The table of what hooks saw of a watched loop: for each cell, the number of steps that show each field."""

import math

from dashboards.data.open_run import OpenRun
from dashboards.state import State
from dashboards.widgets.grid import Column, Row, number_column, text_column
from dashboards.widgets.links import trajectory_state
from gradscope.analysis.cells import cell_name, place
from gradscope.analysis.seen import fields, seen
from gradscope.plots.seen import NEEDS

_TIPS = {
    "gradient": "steps with a gradient, over all samples",
    "update": "given by watched.update(u)",
    "shift": "guided minus unguided prev_sample; it needs the scheduler's step and what follows",
    "x0-hat": "the denoiser's prediction of the final sample",
    "target classes": "with the guide's logits",
    "two predictions": "with and without the condition",
}


def columns(run: OpenRun) -> list[Column]:
    """A column for each field that the kind of guidance has."""
    return [
        text_column("cell", "cell", 220),
        *(
            number_column(name, name, 110, f"of(params.data[{name!r}], params.data.all)", headerTooltip=_TIPS[name])
            for name in ("gradient", *fields(run.ds))
        ),
    ]


def rows(run: OpenRun, state: State) -> list[Row]:
    """One row for each cell; a field that no probe measured has no number. A click opens the cell's trajectory."""
    return run.memo(("steps seen", state.timestep, state.sample), lambda: _rows(run, state))


def _rows(run: OpenRun, state: State) -> list[Row]:
    found = seen(run.scalars(*(name for name in NEEDS if name in run.ds)))
    made: list[Row] = []
    for i, cell in enumerate(run.cells):
        there = found.isel(place(found.assign_attrs(run.ds.attrs), cell))
        made.append(
            {
                "id": str(i),
                "cell": cell_name(cell),
                "all": math.prod(there["gradient"].shape),
                **{str(name): int(steps.sum()) for name, steps in there.data_vars.items()},
                "href": trajectory_state(run, i).to("trajectory", timestep=state.timestep, sample=state.sample).url(),
            }
        )
    return made
