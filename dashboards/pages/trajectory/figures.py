"""The figures of the trajectory page: which ones, of what, and where."""

from collections.abc import Sequence
from typing import NamedTuple

from dashboards.data.library import Recorded
from dashboards.state import VARIABLES_MOST
from dashboards.widgets.export import Call
from gradscope.analysis.missing import absent, require
from gradscope.analysis.verdicts import class_names

CURVES = tuple(f"curve-{i}" for i in range(VARIABLES_MOST))
PLACES = (*CURVES, "belief")
"""Ids of the figures."""
CURVE = 240
"""Height of a figure in pixels,"""
STRIP = 26
"""and of what is added for a cell where each has a strip of its own."""


class Exhibit(NamedTuple):
    """A figure of the page."""

    call: Call
    title: str
    caption: str
    height: int


def exhibits(
    run: Recorded, cell: int, sample: int, cells: Sequence[int], variables: Sequence[str]
) -> dict[str, Exhibit]:
    """The figures along t, by their places: each diagnostic, and what the guides believe of the sample."""
    about = [dict(run.cell(number)) for number in cells]
    found = {}
    for place, name in zip(CURVES, variables, strict=False):
        call = Call("curves", {"name": name, "cells": about, "sample": sample, "focus": dict(run.cell(cell))})
        require(run.ds, name)
        long_name = run.ds[name].attrs.get("long_name", name)
        caption = f"{long_name}: mean, 25 to 75 and 5 to 95 % of samples; grey: sample {sample}"
        found[place] = Exhibit(call, name, caption, CURVE)
    if not without_belief(run):
        call = Call("belief", {"cells": about, "sample": sample})
        classes = ", ".join(f"{number} {name}" for number, name in enumerate(class_names(run.ds)))
        caption = f"what each guide takes it for ({classes}), and how sure it is of the target class"
        found["belief"] = Exhibit(call, f"belief of sample {sample}", caption, 2 * CURVE - 100 + STRIP * len(cells))
    return found


def without_belief(run: Recorded) -> str:
    """Why there is no figure of the belief; empty where there is one."""
    return next(filter(None, (absent(run.ds, name) for name in ("predicted_class", "log_prob", "entropy"))), "")
