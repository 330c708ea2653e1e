"""Verdicts of the guide and the judge on the final images of a cell."""

import numpy as np
import pandas as pd
import xarray as xr

from dashboards.state import SAMPLE_FILTERS, SampleFilter
from gradscope.analysis.verdicts import class_name, class_names
from gradscope.analysis.written import finished

RIGHT, WRONG, NONE = "✓", "✗", "–"
"""Symbols, for readers who cannot distinguish the colours."""
NAMES = {"own": "guide", "judge": "judge"}
"""Names on the pages, by the prefix of the store's variables."""
_TITLES = ("all", "judge wrong", "guide fooled", "judge right", "not finite")
FILTER_TITLES = dict(zip(SAMPLE_FILTERS, _TITLES, strict=True))
"""A guide is fooled where it sees the target class in a sample and the judge does not."""


def verdicts(cell: xr.Dataset) -> pd.DataFrame:
    """The verdicts on the samples of one cell.

    Parameters
    ----------
    cell
        One cell in memory: ``written``, ``label`` and, where they exist, ``own_prediction``, ``judge_prediction`` and
        ``finite_fraction``.

    Returns
    -------
    pandas.DataFrame
        One row for each sample: ``sample``; ``label``, ``own`` and ``judge``, names of classes, empty where there is no
        verdict; ``own_right`` and ``judge_right``, 1, 0 or NaN; ``finished``; ``nonfinite``, the number of gradients
        that are not finite.
    """
    names = class_names(cell)
    label, done = cell["label"].values.astype(int), finished(cell)
    targets = [class_name(names, number) for number in label]
    table = pd.DataFrame({"sample": cell["sample"].values, "label": targets, "finished": done})
    for who in NAMES:
        seen = np.full(len(label), -1)
        if f"{who}_prediction" in cell:
            seen = np.where(done, cell[f"{who}_prediction"].values, -1).astype(int)
        table[who] = [class_name(names, number) if number >= 0 else "" for number in seen]
        table[f"{who}_right"] = np.where(seen >= 0, seen == label, np.nan)
    bad = cell["finite_fraction"] < 1 if "finite_fraction" in cell else xr.zeros_like(cell["written"], dtype=bool)
    table["nonfinite"] = bad.transpose("sample", "timestep").values.sum(axis=1)
    return table


def filter_rows(table: pd.DataFrame) -> dict[SampleFilter, pd.Series]:
    """By filter, whether it shows each row of `verdicts`."""
    wrong, right = table["judge_right"] == 0, table["judge_right"] == 1
    return {
        "all": pd.Series(True, table.index),
        "wrong": wrong,
        "fooled": wrong & (table["own_right"] == 1),
        "right": right,
        "nonfinite": table["nonfinite"] > 0,
    }


def verdict_text(name: str, right: float) -> str:
    """A verdict as a symbol and the name of the class."""
    return f"{RIGHT if right else WRONG} {name}" if name else NONE
