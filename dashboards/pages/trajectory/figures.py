"""The figures of the trajectory page: a curve for each diagnostic, and the belief of each guide."""

from collections.abc import Sequence
from typing import NamedTuple

from dashboards.data.open_run import OpenRun
from dashboards.state import VARIABLES_MAX
from dashboards.widgets.export import Call
from gradscope.analysis.by_class import class_sizes
from gradscope.analysis.missing import absent, require
from gradscope.analysis.verdicts import class_names
from gradscope.errors import GradscopeError

CURVES = tuple(f"curve-{i}" for i in range(VARIABLES_MAX))
PATH = "path"
"""Id of the figure of a point's path, which other samples lack."""
ON_EVERY_PAGE = (*CURVES, "belief")
"""Ids of the other figures."""
HEIGHT = 240
"""Height of a curve in pixels."""
_STRIP = 26
"""Height that each cell adds to the figure of the belief, in pixels."""


class CursorFigure(NamedTuple):
    """A figure along t on the page."""

    call: Call
    title: str
    caption: str
    height: int


def figures(
    run: OpenRun, cell: int, sample: int, cells: Sequence[int], variables: Sequence[str], label: int | None = None
) -> dict[str, CursorFigure]:
    """The figures by id. With a class, the means and bands of the curves are over its samples."""
    shown = [dict(run.cell(number)) for number in cells]
    labels, sizes = run.ds["label"].values.tolist(), class_sizes(run.ds)
    if label is not None and label not in sizes:
        raise GradscopeError(f"label: no sample has the class {label}")
    found = {}
    for id, name in zip(CURVES, variables, strict=False):
        inside = label is None or label in labels[sample : sample + 1]
        own = {"sample": sample} if inside else {}
        call = Call("curves", {"name": name, "cells": shown, **own, "focus": dict(run.cell(cell))}, label)
        require(run.ds, name)
        long_name = run.ds[name].attrs.get("long_name", name)
        whose = "samples" if label is None else "the samples of class {} (N = {})".format(*sizes[label])
        line = f"grey: sample {sample}" if inside else f"sample {sample} is of another class"
        caption = f"{long_name}: mean, 25 to 75 and 5 to 95 % of {whose}; {line}"
        found[id] = CursorFigure(call, name, caption, HEIGHT)
    if not why_no_belief(run):
        call = Call("belief", {"cells": shown, "sample": sample})
        classes = ", ".join(f"{number} {name}" for number, name in enumerate(class_names(run.ds)))
        caption = f"the class that each guide sees ({classes}), its log-probability of the target, and its entropy"
        height = 2 * HEIGHT - 100 + _STRIP * len(cells)
        found["belief"] = CursorFigure(call, f"belief of sample {sample}", caption, height)
    if run.kind.name == "point" and "x_t" in run.tensors and sample < run.tensor_samples:
        call = Call("paths", {"cells": shown, "sample": sample})
        caption = (
            "x_t from noise to the end in each cell; dotted: x0-hat; arrows: the direction of the gradient, all of one "
            "length"
        )
        found[PATH] = CursorFigure(call, f"path of sample {sample}", caption, HEIGHT + 120)
    return found


def why_no_belief(run: OpenRun) -> str:
    """Why there is no figure of the belief; empty where there is one."""
    return next(filter(None, (absent(run.ds, name) for name in ("predicted_class", "log_prob", "entropy"))), "")
