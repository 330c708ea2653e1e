"""What the browser moves the cursor through: the run once, and the numbers of one sample at a time."""

import math
from typing import Any

import numpy as np
from gradscope.plots.cell_style import coordinates, look
from numpy.typing import NDArray

from dashboards.data.library import Recorded
from dashboards.state import SHOWN_MOST, State
from dashboards.widgets.controls import name_of
from dashboards.widgets.swatches import swatch
from gradscope.analysis.missing import absent
from gradscope.analysis.verdicts import class_name, class_names
from gradscope.store import CELL_DIMS

TENSORS = {
    "gradient": "gradient",
    "update": "update",
    "direction": "direction",
    "x_t": "x_t",
    "pred_original_sample": "x0-hat",
}
"""Tensors by the names that they have on the page."""
DIVERGING = ("gradient", "update", "direction")
"""Of these a map shows the mean over channels, around zero; the others are images."""
_OVER = {*CELL_DIMS, "sample", "timestep"}


def with_focus(cells: tuple[int, ...], cell: int) -> tuple[int, ...]:
    """The cells that are shown: the focused one is always among them."""
    return cells if cell in cells else tuple(sorted((*cells[: SHOWN_MOST - 1], cell)))


def described(run: Recorded, state: State) -> dict[str, Any]:
    """All that maps, slider and keys need to know of a run, and where the cursor starts."""
    ds, known = run.ds, coordinates(run.ds)
    classes = class_names(ds)
    return {
        "key": run.key,
        "version": run.version,
        "cells": [
            {
                "name": name_of(run, number),
                "swatch": swatch(look(known, cell)),
                "row": f"{cell['classifier']}, {cell['classifier_input']}",
                "column": f"{cell['stabilizer']}, {cell['guidance_scale']:g}",
            }
            for number, cell in enumerate(run.cells)
        ],
        "tensors": [
            {"name": name, "label": TENSORS[name], "unit": unit(run, name), "diverging": name in DIVERGING}
            for name in run.tensors
        ],
        "timesteps": ds["timestep"].values.tolist(),
        "targets": [class_name(classes, label) for label in ds["label"].values.tolist()],
        "tensor_samples": run.tensor_samples,
        "tensor_every": run.tensor_every,
        "kept": kept(run),
        "at": {
            "cell": state.cell,
            "sample": state.sample,
            "step": ds["timestep"].values.tolist().index(state.timestep),
            "cells": list(with_focus(state.cells, state.cell)),
            "variables": list(state.variables),
            "limits": state.limits,
        },
    }


def kept(run: Recorded) -> str:
    """Which tensors there are, in words."""
    if not run.tensors:
        return absent(run.ds, "gradient")
    last, steps = run.ds.sizes["sample"] - 1, run.tensor_every
    which = f"tensors are kept for samples 0 to {run.tensor_samples - 1} of 0 to {last}"
    return which if steps == 1 else f"{which}, every {steps} steps"


def readable(run: Recorded) -> list[str]:
    """Names of the diagnostics that are a number, or a class, a sample and timestep."""
    return sorted(str(name) for name, v in run.ds.data_vars.items() if set(v.dims) == _OVER and name != "written")


def trajectory(run: Recorded, cell: int, sample: int) -> dict[str, Any]:
    """The numbers of one sample in one cell.

    Returns
    -------
    dict
        ``cell``, ``sample``; ``values``: by diagnostic and step a number with 4 digits, or a text where it is none: the
        name of a class, "NaN", "inf"; None where nothing is written. ``written``: so many steps are, from the first.
    """
    there = run.written(cell, sample) > 0
    index = np.unravel_index(cell, [run.ds.sizes[dim] for dim in CELL_DIMS])
    classes = class_names(run.ds)
    values = {}
    for name in readable(run):
        own = run.values(name)[(*index, sample)]
        shown = [class_name(classes, int(v)) for v in own] if name == "predicted_class" else _rounded(own)
        values[name] = [value if known else None for value, known in zip(shown, there, strict=True)]
    written = len(there) if there.all() else int(there.argmin())
    return {"cell": cell, "sample": sample, "values": values, "written": written}


def unit(run: Recorded, name: str) -> str:
    """Empty where it has none."""
    unit = run.ds[name].attrs.get("units", "1")
    return "" if unit == "1" else unit


def _rounded(values: NDArray) -> list[float | str]:
    texts = (f"{value:.4g}" for value in values.astype(np.float64).tolist())
    return [float(text) if math.isfinite(float(text)) else text.replace("nan", "NaN") for text in texts]
