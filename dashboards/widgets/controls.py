"""Controls of the state: selects of cells and diagnostics, and the types of their values."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import dash_mantine_components as dmc
from pydantic import BeforeValidator, Field

from dashboards.data.open_run import OpenRun
from dashboards.state import CELLS_MAX, VARIABLES_MAX, diagnostics
from gradscope.analysis.by_class import class_sizes
from gradscope.analysis.cells import cell_name


def _number(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch("[0-9]{1,9}", value):
        raise ValueError("a number as text is needed")
    return int(value)


NumberText = Annotated[int, BeforeValidator(_number)]
"""Value of `cell_select`, and of other selects whose options are numbers."""
CellNumbers = Annotated[list[NumberText], Field(max_length=CELLS_MAX, fail_fast=True)]
"""Value of `cells_select`."""


def _label(value: Any) -> int | None:
    return None if value == "all" else _number(value)


LabelText = Annotated[int | None, BeforeValidator(_label)]
"""Value of `class_select`: the number of a class, None for all."""


def control_id(key: str) -> dict[str, str]:
    """Id of a control whose value is part of the state: the browser writes it to the URL."""
    return {"type": "control", "key": key}


def cell_select(run: OpenRun, key: str, value: int, label: str) -> dmc.Select:
    """Select one cell, by its number."""
    return dmc.Select(
        id=control_id(key),
        label=label,
        data=cell_options(run),
        value=str(value),
        allowDeselect=False,
        searchable=True,
        size="xs",
        w=270,
    )


def class_select(run: OpenRun, value: int | None, label: str = "class") -> dmc.Select:
    """Select the target class whose samples are shown; the options name the number of samples."""
    sizes = run.memo("class sizes", lambda: class_sizes(run.ds))
    options = [{"value": str(number), "label": f"{name} (N = {n})"} for number, (name, n) in sizes.items()]
    return dmc.Select(
        id=control_id("label"),
        label=label,
        data=[{"value": "all", "label": f"all (N = {run.ds.sizes['sample']})"}, *options],
        value="all" if value is None else str(value),
        allowDeselect=False,
        searchable=True,
        size="xs",
        w=170,
    )


def cells_select(run: OpenRun, value: Sequence[int], label: str = "cells", most: int = CELLS_MAX) -> dmc.MultiSelect:
    """Select the cells that are shown together, by their numbers."""
    return dmc.MultiSelect(
        id=control_id("cells"),
        label=label,
        data=cell_options(run),
        value=[str(number) for number in value],
        maxValues=most,
        searchable=True,
        hidePickedOptions=True,
        size="xs",
        className="many",
    )


def variable_select(run: OpenRun, value: Sequence[str], label: str) -> dmc.Select:
    """Select one diagnostic; the first of `value` is selected."""
    return dmc.Select(
        id=control_id("variables"),
        label=label,
        data=sorted(diagnostics(run)),
        value=value[0],
        allowDeselect=False,
        searchable=True,
        size="xs",
        w=220,
    )


def variables_select(run: OpenRun, value: Sequence[str]) -> dmc.MultiSelect:
    """Select up to `VARIABLES_MAX` diagnostics."""
    return dmc.MultiSelect(
        id=control_id("variables"),
        label="diagnostics",
        data=sorted(diagnostics(run)),
        value=list(value),
        maxValues=VARIABLES_MAX,
        searchable=True,
        size="xs",
        className="many",
    )


def cell_options(run: OpenRun) -> list[dict[str, str]]:
    """Options of a select of cells."""
    return [{"value": str(number), "label": cell_name(cell)} for number, cell in enumerate(run.cells)]
