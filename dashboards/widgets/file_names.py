"""Names of exported files: the store, the cell, the figure or diagnostic, and the sample."""

import re
from collections.abc import Mapping
from typing import Any

from gradscope.store.dims import CELL_DIMS

_LONGEST = 150
"""Characters; file systems take 255 bytes."""


def file_name(store: str, figure: str, arguments: Mapping[str, Any]) -> str:
    """Name of a figure's file, without its ending.

    Parameters
    ----------
    store
        Name of the store.
    figure, arguments
        The call that draws the figure.

    Examples
    --------
    >>> cell = {"classifier": "robust", "classifier_input": "x_t", "stabilizer": "none", "guidance_scale": 0.5}
    >>> file_name("both.zarr", "curves", {"name": "gradient_cosine", "cells": [cell], "sample": 3, "focus": cell})
    'both_robust_x_t_none_0.5_gradient_cosine_sample3'
    >>> file_name("both.zarr", "stability", {"name": "gradient_norm"})
    'both_gradient_norm_stability'
    """
    cells = [arguments[key] for key in ("focus", "cell", "a", "b") if arguments.get(key)]
    if not cells and len(arguments.get("cells", [])) == 1:
        cells = arguments["cells"]
    named = [arguments["name"]] if "name" in arguments else []
    what = named if named and figure == "curves" else [*named, figure]
    sample = [f"sample{arguments['sample']}"] if arguments.get("sample") is not None else []
    return safe("_".join([stem(store), "_vs_".join(map(cell_text, cells)), *what, *sample]))


def cell_text(cell: Mapping[str, Any]) -> str:
    """A cell as part of a file's name: ``robust_x_t_none_0.5``, whatever the order of its keys."""
    known = [dim for dim in CELL_DIMS if dim in cell]
    values = [cell[dim] for dim in (*known, *sorted(set(cell) - set(known)))]
    return "_".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def stem(store: str) -> str:
    """Name of a store without its ending."""
    return store.removesuffix(".zarr")


def safe(name: str) -> str:
    """A name that every file system takes, in one piece."""
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", name)
    return re.sub("_{2,}", "_", plain).strip("-._")[:_LONGEST] or "figure"
