"""Two cells in numbers and words: what differs between them, and what that changed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from gradscope.plots.cell_pair import quantity, titled

from gradscope.analysis.cells import Cell, place
from gradscope.analysis.comparison import Comparison
from gradscope.analysis.verdicts import judged
from gradscope.analysis.written import finished
from gradscope.plots.style import cell_name
from gradscope.store import CELL_DIMS

ACCURACY = "judge's accuracy"
NONE = "–"
_COLUMNS = ("quantity", "mean_a", "mean_b", "estimate", "low", "high", "effect", "n", "p", "p_holm", "note")


def differences(ds: xr.Dataset, found: Comparison) -> pd.DataFrame:
    """Everything that `gradscope.analysis.compare` compares, as one table.

    Parameters
    ----------
    ds
        The store, in memory.
    found
        Its comparison of two cells.

    Returns
    -------
    pandas.DataFrame
        The judge's accuracy, the diagnostics and the distances, one a row: ``quantity`` with its unit; ``mean_a``,
        ``mean_b`` and ``estimate``, b − a, with its 95 % interval ``low``, ``high``; ``effect``, Cohen's g of the
        accuracy, the rank-biserial correlation of a diagnostic; ``n``, the samples; ``p``, and Holm's ``p_holm`` over
        the diagnostics; ``note``. NaN where there is none.
    """
    rows = [_accuracy(ds, found)] if found.accuracy else []
    for row in found.scalars.to_dict("records"):
        rows.append({**row, "quantity": titled(ds, quantity(ds, row["diagnostic"]))})
    for name, apart in found.distance.items():
        before, after = (float(ds[name].isel(place(ds, cell))) for cell in (found.a, found.b))
        ends = {"estimate": apart.estimate, "low": apart.low, "high": apart.high}
        rows.append({"quantity": name, "mean_a": before, "mean_b": after, **ends, "note": "paired bootstrap"})
    return pd.DataFrame(rows, columns=list(_COLUMNS)).fillna({"note": ""})


def _accuracy(ds: xr.Dataset, found: Comparison) -> dict[str, Any]:
    cells = [ds.isel(place(ds, cell)) for cell in (found.a, found.b)]
    both = judged(cells[0]) & judged(cells[1])
    right = [(cell["judge_prediction"] == cell["label"]).values[both] for cell in cells]
    shares = [float(each.mean()) if len(each) else np.nan for each in right]
    test = vars(found.accuracy)
    return {**test, "quantity": ACCURACY, "mean_a": shares[0], "mean_b": shares[1]}


def differing(a: Cell, b: Cell) -> dict[str, tuple[Any, Any]]:
    """The dimensions in which two cells differ, and what each has there."""
    return {dim: (a[dim], b[dim]) for dim in CELL_DIMS if a[dim] != b[dim]}


def hint(a: Cell, b: Cell) -> str:
    """In which dimensions two cells differ, in words."""
    parts = [f"{dim}: {_word(before)} → {_word(after)}" for dim, (before, after) in differing(a, b).items()]
    if not parts:
        return "They are the same cell."
    if len(parts) == 1:
        return f"They differ in {parts[0]}."
    return f"They differ in {len(parts)} ways: {'; '.join(parts)}."


def why_not(ds: xr.Dataset, a: Cell, b: Cell) -> str:
    """Why two cells cannot be compared; empty where they can."""
    if not differing(a, b):
        return f"a and b are the same cell, {cell_name(a)}. Choose another one as a or as b."
    done = [finished(ds.isel(place(ds, cell))) for cell in (a, b)]
    if (done[0] & done[1]).any():
        return ""
    counts = ", ".join(f"{each.sum()} in {key}" for key, each in zip("ab", done, strict=True))
    return f"No sample is finished in both cells yet (finished: {counts}); they are compared pair by pair."


def headline(table: pd.DataFrame) -> str:
    """What became of the samples, in one sentence; empty where nobody judged them."""
    rows = table[table["quantity"] == ACCURACY].to_dict("records")
    if not rows or not rows[0]["n"]:
        return ""
    row = rows[0]
    p = f"McNemar's p {number(row['p'])}" if np.isfinite(row["p"]) else f"no p: {row['note']}"
    return (
        f"Judge's accuracy: a {row['mean_a']:.2f}, b {row['mean_b']:.2f}; b − a {row['estimate']:+.2f} "
        f"{interval(row, '.2f')}, {p} (N = {row['n']:g})."
    )


def words(table: pd.DataFrame) -> list[list[str]]:
    """The table's cells as texts; `HEADS` are their columns."""
    return [
        [
            row["quantity"],
            number(row["mean_a"]),
            number(row["mean_b"]),
            f"{row['estimate']:+.3g}" if np.isfinite(row["estimate"]) else NONE,
            interval(row, ".3g"),
            number(row["effect"]),
            number(row["n"]),
            number(row["p"]),
            number(row["p_holm"]),
            row["note"],
        ]
        for row in table.to_dict("records")
    ]


HEADS = ("quantity", "a", "b", "b − a", "95 % interval", "effect", "N", "p", "Holm's p", "note")


def number(value: float) -> str:
    """Three digits; a dash where there is none."""
    return f"{value:.3g}" if np.isfinite(value) else NONE


def interval(row: Mapping[str, float], digits: str) -> str:
    """In brackets; a dash where there is none."""
    if not np.isfinite([row["low"], row["high"]]).all():
        return NONE
    return f"[{row['low']:{digits}}, {row['high']:{digits}}]"


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
