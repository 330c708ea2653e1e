"""Tables of docs/results, from the small tables in runs/results that `runs/collect.py` writes.

Accuracies, their intervals and paired differences are computed here from the classes that guide and judge saw.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from markdown_tables import table
from numpy.typing import NDArray

from gradscope.analysis.means import mean_interval
from gradscope.analysis.statistics import holm, mcnemar
from gradscope.intervals import wilson

FOLDER = Path(__file__).parents[2] / "runs" / "results"
SAME = ["steps", "scheduler", "objective", "normalize", "weight", "guidance_scale", "classifier"]
"""What a cell shares with the cell that it is compared with."""


def text(kind: str, name: str) -> str:
    """The table ``cells``, ``stabilizers``, ``guides``, ``inputs`` or ``background`` of runs/results/NAME.csv."""
    made = {"cells": cells, "stabilizers": stabilizers, "guides": guides, "inputs": inputs, "background": background}
    return made[kind](read(name))


def read(name: str) -> pd.DataFrame:
    """The rows of runs/results/NAME.csv."""
    return pd.read_csv(FOLDER / f"{name}.csv", dtype={"label": str, "own": str, "judge": str}, keep_default_na=False,
                       na_values={"coverage": "", "fd_extractor": ""})  # fmt: skip


def right(row: pd.Series, who: str) -> NDArray[np.bool_]:
    """Whether the guide (``own``) or the ``judge`` sees the target, ``(samples,)``."""
    return np.array(list(row[who])) == np.array(list(row["label"]))


def cells(rows: pd.DataFrame) -> str:
    """One row per cell; unguided samples that are the same for several cells have one, without the guide's cosines.

    If cells differ in the timesteps at which they are guided, a column says which.
    """
    unguided = rows["guidance_scale"].astype(float) == 0
    rows = rows[~(unguided & rows.duplicated(["steps", "scheduler", "guidance_scale", "label", "judge"]))]
    some = "interval" in rows and rows["interval"].nunique() > 1
    head = ("guide", "input", "stabiliser", "steps", *["guided timesteps"] * some, "scale", "N", "own", "judge",
            "by class", "FD", "coverage", "gradient cosine", "update cosine", "strength", "saturated")  # fmt: skip
    lines = []
    for _, row in rows.iterrows():
        control = float(row["guidance_scale"]) == 0
        lines.append(
            (
                "(unguided)" if control else row["classifier"],
                "" if control else row["classifier_input"],
                "" if control else row["stabilizer"],
                row["steps"],
                *([" to ".join(row["interval"].strip("[]").split(", "))] if some else []),
                f"{float(row['guidance_scale']):g}",
                row["samples"],
                "" if control else share(right(row, "own")[judged(row, "own")]),
                share(right(row, "judge")[judged(row)]),
                by_class(row),
                between(row, "fd_extractor", ".2f"),
                between(row, "coverage", ".2f"),
                *("" if control else between(row, name, ".2f") for name in ("gradient_cosine", "update_cosine")),
                f"{float(row['effective_strength']):.3f}",
                "" if control else f"{float(row['saturated']):.2f}",
            )
        )
    return table(head, lines)


def stabilizers(rows: pd.DataFrame) -> str:
    """Every stabiliser against none in the same cell."""
    return _changes(rows, [*SAME, "classifier_input"], "stabilizer", "none", "stabiliser")


def guides(rows: pd.DataFrame) -> str:
    """Every stabiliser against none: the mean over guides at one input, with an interval for a further guide.

    It is Student's over the guides' changes, widened to McNemar's over all their samples: guides that happen to agree
    have no narrower one.
    """
    found: dict[tuple[str, str], list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]] = {}
    for row, before in _pairs(rows, [*SAME, "classifier_input"], "stabilizer", "none"):
        seen = right(before, "judge"), right(row, "judge")
        found.setdefault((row["classifier_input"], row["stabilizer"]), []).append(seen)
    lines = []
    for (where, name), each in found.items():
        change = [after.mean() - before.mean() for before, after in each]
        mean, *student = mean_interval(change)[:3]
        pooled = mcnemar(*(np.concatenate(side) for side in zip(*each, strict=True)))
        low, high = np.nanmin([student[0], pooled.low]), np.nanmax([student[1], pooled.high])
        listed = ", ".join(f"{value:+.3f}" for value in change)
        lines.append((where, name, len(change), f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]", listed))
    return table(("input", "stabiliser", "guides", "change, 95 % over guides", "of each guide"), lines)


def inputs(rows: pd.DataFrame) -> str:
    """Every input against x_t, without a stabiliser."""
    return _changes(rows[rows["stabilizer"] == "none"], SAME, "classifier_input", "x_t", "input")


def background(rows: pd.DataFrame) -> str:
    """The background's share of the energy of gradient and update."""
    head = ("guide", "input", "stabiliser", "N", "background's share of the pixels", "of the gradient", "of the update")
    names = ("background_gradient", "background_update")
    return table(
        head,
        (
            (row["classifier"], row["classifier_input"], row["stabilizer"], int(float(row["tensor_samples"])),
             f"{float(row['background']):.2f}", *(between(row, name, ".2f") for name in names))
            for _, row in rows.iterrows()
            if row.get("background", "") != ""
        ),
    )  # fmt: skip


def _changes(rows: pd.DataFrame, same: Sequence[str], technique: str, base: str, called: str) -> str:
    """The judge's accuracy with each value of a column minus that with `base`, paired over samples."""
    shown, tests = [], []
    for row, before in _pairs(rows, same, technique, base):
        both = judged(before) & judged(row)
        tests.append(mcnemar(right(before, "judge")[both], right(row, "judge")[both]))
        shown.append((row, before))
    lines = [
        (
            row["classifier"], row["classifier_input"], row["stabilizer"], row["steps"],
            f"{float(row['guidance_scale']):g}", test.n,
            f"{right(before, 'judge').mean():.3f}", f"{right(row, 'judge').mean():.3f}",
            f"{test.estimate:+.3f} [{test.low:+.3f}, {test.high:+.3f}]", f"{p:.2g}" if np.isfinite(p) else test.note,
        )
        for (row, before), test, p in zip(shown, tests, holm([test.p for test in tests]), strict=True)
    ]  # fmt: skip
    head = ("guide", "input", "stabiliser", "steps", "scale", "N", base, f"this {called}", "change", "Holm's p")
    return table(head, lines)


def _pairs(rows: pd.DataFrame, same: Sequence[str], technique: str, base: str) -> Iterator[tuple[pd.Series, pd.Series]]:
    """Every guided cell, and the one that differs from it in a column alone, which is `base` there."""
    for _, group in rows[rows["guidance_scale"].astype(float) != 0].groupby(list(same), sort=False):
        plain = group[group[technique] == base]
        if len(plain) == 1:
            for _, row in group[group[technique] != base].iterrows():
                yield row, plain.iloc[0]


def judged(row: pd.Series, who: str = "judge") -> NDArray[np.bool_]:
    """Whether the judge, or the guide, gave a verdict, ``(samples,)``."""
    return np.array(list(row[who])) != "-"


def share(found: Iterable[bool]) -> str:
    """A share with Wilson's interval."""
    found = np.asarray(found)
    low, high = wilson(found.sum(), len(found))
    return f"{found.mean():.3f} [{low:.3f}, {high:.3f}]"


def by_class(row: pd.Series) -> str:
    """The judge's accuracy for each target."""
    label, seen = np.array(list(row["label"])), right(row, "judge")
    return " ".join(f"{seen[label == target].mean():.2f}" for target in sorted(set(label)))


def between(row: pd.Series, name: str, form: str) -> str:
    """A number of the table with its interval."""
    values = [row.get(key, "") for key in (name, f"{name}_low", f"{name}_high")]
    if any(value == "" or pd.isna(value) for value in values):
        return "-"
    estimate, low, high = (f"{float(value):{form}}" for value in values)
    return f"{estimate} [{low}, {high}]"


if __name__ == "__main__":
    import sys

    print(text(*sys.argv[1:]))
