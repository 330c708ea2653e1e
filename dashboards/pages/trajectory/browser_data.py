"""Data for the browser, which moves the cursor by itself: a description of the run, and the numbers of one sample."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.data.open_run import OpenRun
from dashboards.images.pixels import shown_frames
from dashboards.images.tensors import MAPS
from dashboards.images.words import limit_text
from dashboards.state import CELLS_MAX, State, channels
from dashboards.widgets.swatches import swatch
from gradscope.analysis.cells import cell_name, name_along
from gradscope.analysis.missing import absent
from gradscope.analysis.verdicts import class_name, class_names
from gradscope.plots.cell_style import coordinates, look
from gradscope.store.dims import cell_dims, over

LABELS = {
    "gradient": "gradient",
    "update": "update",
    "direction": "direction",
    "x_t": "x_t",
    "pred_original_sample": "x0-hat",
}
"""Labels of tensors on the page."""


def with_focus(cells: tuple[int, ...], cell: int) -> tuple[int, ...]:
    """The cells that are shown: the focused one is always among them."""
    return cells if cell in cells else tuple(sorted((*cells[: CELLS_MAX - 1], cell)))


def description(run: OpenRun, state: State) -> dict[str, Any]:
    """Describe a run to maps, slider and keys; ``at`` is the position of the cursor."""
    ds, known = run.ds, coordinates(run.ds)
    classes = class_names(ds)
    timesteps = ds["timestep"].values.tolist()
    return {
        "key": run.key,
        "version": run.version,
        "cells": [
            {
                "name": cell_name(cell),
                "swatch": swatch(look(known, cell)),
                "row": f"{cell['classifier']}, {cell['classifier_input']}",
                "column": ", ".join(name_along(dim, cell[dim]) for dim in ("stabilizer", "guidance_scale")),
            }
            for cell in run.cells
        ],
        "tensors": [
            {
                "name": name,
                "label": LABELS[name],
                "unit": unit(run, name),
                "diverging": name in MAPS,
                "limit": limit_text(run.kind, name),
            }
            for name in run.tensors
        ],
        "timesteps": timesteps,
        "targets": [class_name(classes, label) for label in ds["label"].values.tolist()],
        "tensor_samples": run.tensor_samples if run.tensors else 0,
        "tensor_every": run.tensor_every,
        "kept": tensors_kept(run),
        "kind": run.kind.name,
        "frames": _frames(run),
        "channels": len(channels(run)) - 1,
        "at": {
            "cell": state.cell,
            "sample": state.sample,
            "step": timesteps.index(state.timestep),
            "cells": list(with_focus(state.cells, state.cell)),
            "variables": list(state.variables),
            "limits": state.limits,
            "scale": state.scale,
            "channel": state.channel,
        },
        "zoom": state.zoom,
    }


def _frames(run: OpenRun) -> list[int]:
    """Numbers of the frames in a tile of a video; none for other samples."""
    if run.kind.name != "video" or not run.tensors:
        return []
    return shown_frames(run.sample_shape[run.kind.dims.index("frame")]).tolist()


def tensors_kept(run: OpenRun) -> str:
    """The samples and steps that have tensors, in words."""
    if not run.tensors:
        return run.not_drawn or absent(run.ds, "gradient")
    last, steps = run.ds.sizes["sample"] - 1, run.tensor_every
    samples = f"tensors are kept for samples 0 to {run.tensor_samples - 1} of 0 to {last}"
    return samples if steps == 1 else f"{samples}, every {steps} steps"


def readout_names(run: OpenRun) -> list[str]:
    """Names of the diagnostics with one number, or one class, for each cell, sample and timestep."""
    names = (str(name) for name, v in run.ds.variables.items() if set(v.dims) == {*over(run.ds)})
    return sorted(name for name in names if name != "written")


def sample_numbers(run: OpenRun, cell: int, sample: int) -> dict[str, Any]:
    """The numbers of one sample in one cell.

    Returns
    -------
    dict
        ``cell``, ``sample``; ``values``, by diagnostic and step: a number with 4 digits, the name of a class, "NaN" or
        "inf", None where nothing is written; ``written``, the number of steps that are written from the first.
    """
    written = run.written(cell, sample) > 0
    index = np.unravel_index(cell, [run.ds.sizes[dim] for dim in cell_dims(run.ds)])
    classes = class_names(run.ds)
    values = {}
    for name in readout_names(run):
        stored = run.values(name)[(*index, sample)]
        shown = [class_name(classes, int(v)) for v in stored] if name == "predicted_class" else _rounded(stored)
        values[name] = [value if there else None for value, there in zip(shown, written, strict=True)]
    steps = len(written) if written.all() else int(written.argmin())
    return {"cell": cell, "sample": sample, "values": values, "written": steps}


def unit(run: OpenRun, name: str) -> str:
    """The unit of a variable; empty where it is 1."""
    text = run.ds[name].attrs.get("units", "1")
    return "" if text == "1" else text


def _rounded(values: NDArray) -> list[float | str]:
    texts = (f"{value:.4g}" for value in values.astype(np.float64).tolist())
    return [value if math.isfinite(value := float(text)) else text.replace("nan", "NaN") for text in texts]
