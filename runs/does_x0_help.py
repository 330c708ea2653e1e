"""Whether it helps to show the guide x0-hat, to use a stabiliser, or to do both.

python runs/does_x0_help.py runs/both.zarr

Prints the judge's accuracy in a cell minus that in the same cell without the technique, paired over samples, with its
95 % interval. p is McNemar's, with Holm's correction over all rows; with fewer than 64 samples there is none.
"""

import sys

import numpy as np
import xarray as xr

import gradscope
from gradscope.analysis import compare_all, require


def answer(ds: xr.Dataset) -> list[str]:
    """One line per comparison, grouped by classifier."""
    require(ds, "judge_prediction")
    table = compare_all(ds)
    if table.empty:
        return ["nothing to compare: the store has one stabiliser and one classifier_input"]
    lines = []
    for classifier, rows in table.groupby("classifier", sort=False):
        lines.append(f"{classifier}:")
        for row in rows.to_dict("records"):
            where = f" ({row['at']})" if row["at"] else ""
            lines.append(
                f"  {row['technique']}{where}, scale {row['guidance_scale']:g}: {verdict(row)}, "
                f"{row['accuracy']:+.3f} [{row['accuracy_low']:+.3f}, {row['accuracy_high']:+.3f}], N = {row['n']}, "
                + (row["note"] if np.isnan(row["p_holm"]) else f"p = {row['p_holm']:.2g}")
            )
    return lines


def verdict(row: dict) -> str:
    """The answer in a word. It is undecided if the interval includes 0, or if the corrected p is above 0.05."""
    if row["p_holm"] > 0.05 or row["accuracy_low"] <= 0 <= row["accuracy_high"]:
        return "undecided"
    return "helps" if row["accuracy"] > 0 else "harms"


if __name__ == "__main__":
    print("\n".join(answer(gradscope.open(sys.argv[1]))))
