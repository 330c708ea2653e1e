"""What showing the guide x0-hat changes, what a stabiliser does, and both together.

python runs/does_x0_help.py runs/both.zarr

The judge's accuracy in a cell less that in the same cell without the technique, paired over samples, with Newcombe's
95 % interval; p is McNemar's, with Holm's correction over all rows, and there is none below 64 samples.
"""

import sys

import numpy as np
import xarray as xr

import gradscope
from gradscope.analysis import compare_all, require


def answer(ds: xr.Dataset) -> list[str]:
    """One line a comparison, those of a classifier together."""
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
    """In a word: the interval leaves out 0, and so does the test after correction, where there is one."""
    if row["p_holm"] > 0.05 or row["accuracy_low"] <= 0 <= row["accuracy_high"]:
        return "undecided"
    return "helps" if row["accuracy"] > 0 else "harms"


if __name__ == "__main__":
    print("\n".join(answer(gradscope.open(sys.argv[1]))))
