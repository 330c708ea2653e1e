"""The table of one cell's samples: which fail, and where their gradients are the least stable."""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from dashboards.state import State
from dashboards.widgets.grid import Column, Row, number, words
from dashboards.widgets.verdicts import said
from gradscope.analysis.means import row_means

NEEDS = ("gradient_cosine", "log_prob", "gradient_norm", "finite_fraction")
"""Diagnostics along t that the rows are made of."""


def sample_columns(ds: xr.Dataset) -> list[Column]:
    """Columns for what a store holds."""
    cosine = [
        number("cosine", "mean cosine", 98, headerTooltip="mean gradient_cosine over timesteps"),
        number("cosine_min", "minimum", 84, headerTooltip="minimum of gradient_cosine"),
        number("cosine_min_timestep", "at t", 62, "digits(params.value, 0)", headerTooltip="timestep of the minimum"),
    ]
    return [
        number("sample", "sample", 76, "digits(params.value, 0)"),
        words("label", "label", 96, headerTooltip="target class"),
        *([words("own", "own", 104, headerTooltip="what the guide sees")] if "own_prediction" in ds else []),
        *([words("judge", "judge", 104, headerTooltip="what the judge sees")] if "judge_prediction" in ds else []),
        *(cosine if "gradient_cosine" in ds else []),
        *([number("log_prob", "log_prob", 86, headerTooltip="final log_prob [nat]")] if "log_prob" in ds else []),
        *([number("gradient_norm", "norm", 80, headerTooltip="mean gradient_norm")] if "gradient_norm" in ds else []),
        *(
            [number("nonfinite", "not finite", 84, headerTooltip="steps whose gradient is not finite")]
            if "finite_fraction" in ds
            else []
        ),
        number("tensors", "tensors", 78, headerTooltip="timesteps whose tensors are kept"),
    ]


def sample_rows(cell: xr.Dataset, table: pd.DataFrame, state: State) -> list[Row]:
    """One row a sample; each leads to the timestep at which its gradient turned the most.

    Parameters
    ----------
    cell
        One cell in memory.
    table
        Its `dashboards.widgets.verdicts.verdicts`.
    state
        The cursor view of that cell.
    """
    timestep = cell["timestep"].values
    rows = table[["sample", "label", "nonfinite"]].assign(
        own=[said(*each) for each in zip(table["own"], table["own_right"], strict=True)],
        judge=[said(*each) for each in zip(table["judge"], table["judge_right"], strict=True)],
        tensors=(cell["written"] >= 3).transpose("sample", "timestep").values.sum(axis=1),
    )
    at = np.full(len(rows), state.timestep)
    if "gradient_cosine" in cell:
        cosine = _values(cell, "gradient_cosine")
        known = np.isfinite(cosine).any(axis=1)
        least = np.where(np.isfinite(cosine), cosine, np.inf).argmin(axis=1)
        at = np.where(known, timestep[least], at)
        rows = rows.assign(
            cosine=row_means(cosine),
            cosine_min=np.where(known, cosine[np.arange(len(rows)), least], np.nan),
            cosine_min_timestep=np.where(known, timestep[least], np.nan),
        )
    if "log_prob" in cell:
        rows["log_prob"] = _values(cell, "log_prob")[:, -1]
    if "gradient_norm" in cell:
        rows["gradient_norm"] = row_means(_values(cell, "gradient_norm"))
    leads = [state.to("trajectory", sample=i, timestep=int(t)).url() for i, t in enumerate(at)]
    rows = rows.assign(id=[str(i) for i in range(len(rows))], href=leads)
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def _values(cell: xr.Dataset, name: str) -> NDArray[np.float64]:
    return cell[name].transpose("sample", "timestep").values.astype(np.float64)
