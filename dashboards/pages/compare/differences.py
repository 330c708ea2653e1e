"""Differences between two cells, as a table and in words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gradscope.analysis.cells import Cell, cell_name, place
from gradscope.analysis.comparison import Comparison
from gradscope.analysis.two_cells import TwoCells
from gradscope.analysis.verdicts import correct, judged
from gradscope.analysis.written import finished
from gradscope.plots.cell_pair import quantity, titled

ACCURACY = "judge's accuracy"
NONE = "–"
HEADS = ("quantity", "a", "b", "b − a", "95 % interval", "effect", "N", "p", "Holm's p", "note")
_COLUMNS = ("quantity", "mean_a", "mean_b", "estimate", "low", "high", "effect", "n", "p", "p_holm", "note")


def differences(ds: xr.Dataset, comparison: Comparison, other: xr.Dataset | None = None) -> pd.DataFrame:
    """All differences that `gradscope.analysis.compare` finds, as one table.

    Parameters
    ----------
    ds
        The store, in memory.
    comparison
        The comparison of two cells.
    other
        The store of b; None if it is that of a.

    Returns
    -------
    pandas.DataFrame
        One row for the judge's accuracy, for each diagnostic and for each distance: ``quantity`` with its unit;
        ``mean_a``, ``mean_b`` and ``estimate``, b − a, with its 95 % interval ``low``, ``high``; ``effect``, as the
        tests of `gradscope.analysis.compare` name it; ``n``, the samples; ``p``, and Holm's ``p_holm`` over the
        diagnostics; ``note``. NaN where there is no number.
    """
    rows = [_accuracy(ds, comparison, other)] if comparison.accuracy else []
    for row in comparison.scalars.to_dict("records"):
        rows.append({**row, "quantity": titled(ds, quantity(ds, row["diagnostic"]))})
    for name, change in comparison.distance.items():
        a, b = (float(ds[name].isel(place(ds, cell))) for cell in (comparison.a, comparison.b))
        interval = {"estimate": change.estimate, "low": change.low, "high": change.high}
        rows.append({"quantity": name, "mean_a": a, "mean_b": b, **interval, "note": "paired bootstrap"})
    return pd.DataFrame(rows, columns=list(_COLUMNS)).fillna({"note": ""})


def _accuracy(ds: xr.Dataset, comparison: Comparison, other: xr.Dataset | None) -> dict[str, Any]:
    pair = TwoCells(ds, comparison.a, comparison.b, other)
    seen = [judged(cell)[rows] for cell, rows in zip(pair.cells, pair.rows, strict=True)]
    if pair.paired:
        seen = [seen[0] & seen[1]] * 2
    each = zip(pair.cells, pair.rows, seen, strict=True)
    right = [correct(cell, "judge_prediction")[rows][known] for cell, rows, known in each]
    shares = [float(one.mean()) if len(one) else np.nan for one in right]
    return {**vars(comparison.accuracy), "quantity": ACCURACY, "mean_a": shares[0], "mean_b": shares[1]}


def differing(a: Cell, b: Cell) -> dict[str, tuple[Any, Any]]:
    """The dimensions in which two cells differ, with both values."""
    return {dim: (a[dim], b[dim]) for dim in a if a[dim] != b[dim]}


def hint(a: Cell, b: Cell, two_stores: bool = False) -> str:
    """A sentence that names the dimensions in which two cells differ."""
    if two_stores and not differing(a, b):
        return "The cells have the same names; the stores differ."
    parts = [f"{dim}: {_text(value_a)} → {_text(value_b)}" for dim, (value_a, value_b) in differing(a, b).items()]
    if not parts:
        return "They are the same cell."
    if len(parts) == 1:
        return f"They differ in {parts[0]}."
    return f"They differ in {len(parts)} ways: {'; '.join(parts)}."


def why_incomparable(ds: xr.Dataset, a: Cell, b: Cell, other: xr.Dataset | None = None) -> str:
    """Why two cells cannot be compared; empty where they can."""
    if other is None and not differing(a, b):
        return f"a and b are the same cell, {cell_name(a)}. Choose another a or b."
    pair = TwoCells(ds, a, b, other)
    if all(len(rows) for rows in pair.rows):
        return ""
    counts = ", ".join(f"{finished(cell).sum()} in {key}" for key, cell in zip("ab", pair.cells, strict=True))
    if not pair.paired:
        return f"A cell has no finished sample yet (finished: {counts})."
    return f"No sample is finished in both cells yet (finished: {counts}). Samples are compared in pairs."


def table_texts(table: pd.DataFrame) -> list[list[str]]:
    """The table as texts, row by row, with the columns `HEADS`."""
    return [
        [
            row["quantity"],
            _number(row["mean_a"]),
            _number(row["mean_b"]),
            f"{row['estimate']:+.3g}" if np.isfinite(row["estimate"]) else NONE,
            _interval(row, ".3g"),
            _number(row["effect"]),
            _number(row["n"]),
            _number(row["p"]),
            _number(row["p_holm"]),
            row["note"],
        ]
        for row in table.to_dict("records")
    ]


def _number(value: float) -> str:
    """A number with three digits; a dash for NaN."""
    return f"{value:.3g}" if np.isfinite(value) else NONE


def _interval(row: Mapping[str, float], digits: str) -> str:
    """The interval of a row in brackets; a dash where it has none."""
    if not np.isfinite([row["low"], row["high"]]).all():
        return NONE
    return f"[{row['low']:{digits}}, {row['high']:{digits}}]"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
