"""Differences between two cells, as a table and in words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gradscope.analysis.cells import Cell, place
from gradscope.analysis.comparison import Comparison
from gradscope.analysis.verdicts import judged
from gradscope.analysis.written import finished
from gradscope.plots.cell_pair import quantity, titled
from gradscope.plots.style import cell_name

ACCURACY = "judge's accuracy"
NONE = "–"
HEADS = ("quantity", "a", "b", "b − a", "95 % interval", "effect", "N", "p", "Holm's p", "note")
_COLUMNS = ("quantity", "mean_a", "mean_b", "estimate", "low", "high", "effect", "n", "p", "p_holm", "note")


def differences(ds: xr.Dataset, comparison: Comparison) -> pd.DataFrame:
    """All differences that `gradscope.analysis.compare` finds, as one table.

    Parameters
    ----------
    ds
        The store, in memory.
    comparison
        The store's comparison of two cells.

    Returns
    -------
    pandas.DataFrame
        One row for the judge's accuracy, for each diagnostic and for each distance: ``quantity`` with its unit;
        ``mean_a``, ``mean_b`` and ``estimate``, b − a, with its 95 % interval ``low``, ``high``; ``effect``, Cohen's g
        for the accuracy and the rank-biserial correlation for a diagnostic; ``n``, the samples; ``p``, and Holm's
        ``p_holm`` over the diagnostics; ``note``. NaN where there is no number.
    """
    rows = [_accuracy(ds, comparison)] if comparison.accuracy else []
    for row in comparison.scalars.to_dict("records"):
        rows.append({**row, "quantity": titled(ds, quantity(ds, row["diagnostic"]))})
    for name, change in comparison.distance.items():
        a, b = (float(ds[name].isel(place(ds, cell))) for cell in (comparison.a, comparison.b))
        interval = {"estimate": change.estimate, "low": change.low, "high": change.high}
        rows.append({"quantity": name, "mean_a": a, "mean_b": b, **interval, "note": "paired bootstrap"})
    return pd.DataFrame(rows, columns=list(_COLUMNS)).fillna({"note": ""})


def _accuracy(ds: xr.Dataset, comparison: Comparison) -> dict[str, Any]:
    cells = [ds.isel(place(ds, cell)) for cell in (comparison.a, comparison.b)]
    both = judged(cells[0]) & judged(cells[1])
    right = [(cell["judge_prediction"] == cell["label"]).values[both] for cell in cells]
    shares = [float(each.mean()) if len(each) else np.nan for each in right]
    test = vars(comparison.accuracy)
    return {**test, "quantity": ACCURACY, "mean_a": shares[0], "mean_b": shares[1]}


def differing(a: Cell, b: Cell) -> dict[str, tuple[Any, Any]]:
    """The dimensions in which two cells differ, with both values."""
    return {dim: (a[dim], b[dim]) for dim in a if a[dim] != b[dim]}


def hint(a: Cell, b: Cell) -> str:
    """A sentence that names the dimensions in which two cells differ."""
    parts = [f"{dim}: {_text(value_a)} → {_text(value_b)}" for dim, (value_a, value_b) in differing(a, b).items()]
    if not parts:
        return "They are the same cell."
    if len(parts) == 1:
        return f"They differ in {parts[0]}."
    return f"They differ in {len(parts)} ways: {'; '.join(parts)}."


def why_incomparable(ds: xr.Dataset, a: Cell, b: Cell) -> str:
    """Why two cells cannot be compared; empty where they can."""
    if not differing(a, b):
        return f"a and b are the same cell, {cell_name(a)}. Choose another a or b."
    done = [finished(ds.isel(place(ds, cell))) for cell in (a, b)]
    if (done[0] & done[1]).any():
        return ""
    counts = ", ".join(f"{each.sum()} in {key}" for key, each in zip("ab", done, strict=True))
    return f"No sample is finished in both cells yet (finished: {counts}). Samples are compared in pairs."


def headline(table: pd.DataFrame) -> str:
    """The difference of the judge's accuracy in one sentence; empty where there is no judge."""
    rows = table[table["quantity"] == ACCURACY].to_dict("records")
    if not rows or not rows[0]["n"]:
        return ""
    row = rows[0]
    p = f"McNemar's p {_number(row['p'])}" if np.isfinite(row["p"]) else f"no p: {row['note']}"
    return (
        f"Judge's accuracy: a {row['mean_a']:.2f}, b {row['mean_b']:.2f}; b − a {row['estimate']:+.2f} "
        f"{_interval(row, '.2f')}, {p} (N = {row['n']:g})."
    )


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
