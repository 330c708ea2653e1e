"""Verdicts on final samples: whether the judge, or the guide itself, sees the target class; and the classes' names."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from gradscope.analysis.written import finished


def class_names(ds: xr.Dataset) -> list[str]:
    """Names of the target classes.

    They come from the evaluation, else from the run; if neither names them, they are the numbers of the labels.
    """
    named = ds["class"].values.tolist() if "class" in ds.coords else list(ds.attrs.get("classes", ()))
    return named or [str(number) for number in range(int(ds["label"].max()) + 1)]


def class_name(names: Sequence[str], number: int) -> str:
    """Name of a class; one without a name, which a guide may predict, is shown as its number, -1 as unknown."""
    return names[number] if 0 <= number < len(names) else str(number) if number >= 0 else "unknown"


def judged(cell: xr.Dataset) -> np.ndarray:
    """Which samples of one cell are finished and have a verdict by the judge, ``(samples,)``.

    An image that is not finite has no verdict, nor has a sample that was recorded after the evaluation.
    """
    return finished(cell) & (cell["judge_prediction"] >= 0).values


def correct(cell: xr.Dataset, name: str) -> np.ndarray:
    """Which samples of one cell a prediction, such as ``judge_prediction``, assigns to their target, ``(samples,)``."""
    return np.asarray(cell[name] == cell["label"])
