"""The table of a cell's samples: their verdicts, and the timestep at which each gradient is least stable."""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from dashboards.state import State
from dashboards.widgets.grid import Column, Row, number_column, text_column
from dashboards.widgets.verdicts import verdict_text
from gradscope.analysis.means import row_means

NEEDS = ("gradient_cosine", "log_prob", "gradient_norm", "finite_fraction")
"""Diagnostics along t that the rows need."""


_COLUMNS = (
    ("written", number_column("sample", "sample", 62, "digits(params.value, 0)")),
    ("label", text_column("label", "label", 84, headerTooltip="target class")),
    ("own_prediction", text_column("own", "guide", 98, headerTooltip="class that the guide predicts")),
    ("judge_prediction", text_column("judge", "judge", 98, headerTooltip="class that the judge predicts")),
    (
        "gradient_cosine",
        number_column("cosine", "cosine", 60, headerTooltip="mean gradient_cosine over timesteps"),
    ),
    ("gradient_cosine", number_column("cosine_min", "minimum", 78, headerTooltip="minimum of gradient_cosine")),
    (
        "gradient_cosine",
        number_column("cosine_min_timestep", "at t", 46, "digits(params.value, 0)", headerTooltip="of the minimum"),
    ),
    ("log_prob", number_column("log_prob", "log_prob", 76, headerTooltip="final log_prob [nat]")),
    ("gradient_norm", number_column("gradient_norm", "norm", 60, headerTooltip="mean gradient_norm")),
    (
        "finite_fraction",
        number_column("nonfinite", "not finite", 78, headerTooltip="steps whose gradient is not finite"),
    ),
    ("written", number_column("tensors", "tensors", 68, headerTooltip="timesteps with tensors")),
)
"""Columns, each with the variable that it needs."""


def sample_columns(ds: xr.Dataset) -> list[Column]:
    """The columns that the store has data for."""
    return [column for name, column in _COLUMNS if name in ds]


def sample_rows(cell: xr.Dataset, table: pd.DataFrame, state: State) -> list[Row]:
    """One row for each sample; a click opens the timestep at which its gradient turned most.

    Parameters
    ----------
    cell
        One cell in memory.
    table
        Its `dashboards.widgets.verdicts.verdicts`.
    state
        State of the cell's trajectory page.
    """
    timestep = cell["timestep"].values
    rows = table[["sample", "label", "nonfinite"]].assign(
        own=[verdict_text(*each) for each in zip(table["own"], table["own_right"], strict=True)],
        judge=[verdict_text(*each) for each in zip(table["judge"], table["judge_right"], strict=True)],
        tensors=(cell["written"] >= 3).transpose("sample", "timestep").values.sum(axis=1),
    )
    target = np.full(len(rows), state.timestep)
    if "gradient_cosine" in cell:
        cosine = _values(cell, "gradient_cosine")
        known = np.isfinite(cosine).any(axis=1)
        least = np.where(np.isfinite(cosine), cosine, np.inf).argmin(axis=1)
        target = np.where(known, timestep[least], target)
        rows = rows.assign(
            cosine=row_means(cosine),
            cosine_min=np.where(known, cosine[np.arange(len(rows)), least], np.nan),
            cosine_min_timestep=np.where(known, timestep[least], np.nan),
        )
    if "log_prob" in cell:
        rows["log_prob"] = _values(cell, "log_prob")[:, -1]
    if "gradient_norm" in cell:
        rows["gradient_norm"] = row_means(_values(cell, "gradient_norm"))
    links = [state.to("trajectory", sample=i, timestep=int(t)).url() for i, t in enumerate(target)]
    rows = rows.assign(id=[str(i) for i in range(len(rows))], href=links)
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def _values(cell: xr.Dataset, name: str) -> NDArray[np.float64]:
    return cell[name].transpose("sample", "timestep").values.astype(np.float64)
