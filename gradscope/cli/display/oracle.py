"""Output of `gradscope oracle`: the leaderboard."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from rich.table import Table

from gradscope.analysis.oracle import ROW, leaderboard_table, stabilizer_gains

_ROWS = 100
"""Rows that are printed; the store has them all."""
_Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]


def oracle_tables(ds: xr.Dataset) -> Iterator[Table]:
    """The leaderboard in two parts, the stabilisers against none, and what can be reached on each mixture."""
    rows = leaderboard_table(ds)
    about = (
        f"N = {ds.sizes['sample']} samples, {ds.sizes['replicate']} replicates, {ds.sizes['timestep']} steps, mean "
        f"over {ds.sizes['mixture']} mixtures; intervals of 95 % over samples"
    )
    cut = f"; the first {_ROWS} of {len(rows)} rows, the store has them all" if len(rows) > _ROWS else ""
    yield _table(
        "Gradients against the exact one",
        rows,
        _GRADIENTS,
        "update: cosine of the update with the exact gradient at the x_t of the control; grad.: the same before the "
        "stabiliser; guided: of the update along its own trajectories; bias, var.: of the gradient over replicates",
    )
    yield _table(
        "Final samples",
        rows,
        _SAMPLES,
        "accuracy: the exact classifier sees the target; gain: accuracy minus that of none, paired; KL: nats, median "
        f"over mixtures; cov.: coverage of the components. {about}{cut}",
    )
    gains = stabilizer_gains(ds)
    if len(gains):
        yield _gains(gains)
    yield _mixtures(ds)


def _table(title: str, rows: pd.DataFrame, columns: _Columns, caption: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=None, padding=(0, 1, 0, 0))
    for head in ("guide", "method", "stabiliser"):
        table.add_column(head, overflow="fold")
    for head in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows.head(_ROWS).to_dict("records"):
        table.add_row(*(row[name] for name in ROW), *(column(row) for column in columns.values()))
    table.caption = caption
    return table


def _gains(gains: pd.DataFrame) -> Table:
    table = Table(title="Stabilisers against none", title_justify="left", caption_justify="left", box=None,
                  padding=(0, 1, 0, 0))  # fmt: skip
    for head in ("method", "stabiliser"):
        table.add_column(head, overflow="fold")
    for head in ("update's cosine", "accuracy"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in gains.to_dict("records"):
        changes = (_with_half(name, "+z.3f")(row) for name in ("cosine", "accuracy"))
        table.add_row(row["guidance_method"], row["stabilizer"], *changes)
    table.caption = "changes, mean over mixtures and guides, paired over samples"
    return table


def _mixtures(ds: xr.Dataset) -> Table:
    table = Table(title="Mixtures", title_justify="left", caption_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("mixture", overflow="fold")
    for head in ("draws: acc.", "KL", "cov.", "exact: acc.", "KL", "cov."):
        table.add_column(head, justify="right", no_wrap=True)
    for name in ds["mixture"].values:
        row = ds.sel(mixture=name)
        values = [row[f"{who}_{what}"] for who in ("floor", "exact") for what in ("accuracy", "kl", "coverage")]
        table.add_row(name, *(_number(float(value)) for value in values))
    table.caption = (
        "draws: as many exact draws of p(x|y), the best that can be reached; exact: guided by the exact gradient at "
        "its own strength, without normalisation, with these steps"
    )
    return table


def _number(value: float, form: str = "z.2f") -> str:
    return "-" if np.isnan(value) else f"{value:{form}}"


def _with_half(name: str, form: str = "z.2f") -> Callable[[Mapping[str, Any]], str]:
    """A mean with the half width of its interval."""
    return lambda row: (
        f"{_number(row[name], form)} ±{_number((row[f'{name}_high'] - row[f'{name}_low']) / 2, form.lstrip('+'))}"
        if np.isfinite(row[name])
        else "-"
    )


_GRADIENTS: _Columns = {
    "update": _with_half("update_cosine"),
    "grad.": lambda row: _number(row["gradient_cosine"]),
    "guided": lambda row: _number(row["guided_cosine"]),
    "bias": lambda row: _number(row["bias"]),
    "var.": lambda row: _number(row["variance"]),
}
_SAMPLES: _Columns = {
    "accuracy": _with_half("accuracy"),
    "gain": _with_half("gain", "+z.2f"),
    "KL": lambda row: _number(row["kl"], "z.3g"),
    "cov.": lambda row: _number(row["coverage"]),
}
