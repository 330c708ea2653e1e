"""Thumbnails: final images with the verdicts of guide and judge, each a link to its trajectory."""

from math import ceil
from typing import Any

import pandas as pd
from dash import html

from dashboards.data.open_run import OpenRun
from dashboards.images.tiles import COLUMNS
from dashboards.state import State
from dashboards.widgets.verdicts import NAMES, RIGHT, verdict_text

SPRITE = 64
"""Samples whose images come as one picture."""
_CLASS_NAMES = {1.0: "right", 0.0: "wrong"}


def thumbnails(run: OpenRun, table: pd.DataFrame, state: State) -> list[html.A]:
    """A thumbnail for each row of `dashboards.widgets.verdicts.verdicts`; its index is that of the sample.

    Parameters
    ----------
    state
        State of the cell's trajectory page; its sample is marked.
    """
    rows = zip(table.index, table.itertuples(), strict=True)
    return [_thumbnail(run, int(i), row._asdict(), state) for i, row in rows]


def sprite_style(run: OpenRun, cell: int, sample: int) -> dict[str, str]:
    """Style of an element that shows the final image of one sample, a part of a picture of `SPRITE` samples."""
    first = sample // SPRITE * SPRITE
    last = min(first + SPRITE, run.ds.sizes["sample"]) - 1
    columns = min(COLUMNS, last - first + 1)
    rows = ceil((last - first + 1) / columns)
    row, column = divmod(sample - first, columns)
    version = f"&v={run.version}" if run.live else ""
    return {
        "backgroundImage": f"url(thumbnails/{run.key}/{cell}.png?samples={first}-{last}{version})",
        "backgroundSize": f"{100 * columns}% {100 * rows}%",
        "backgroundPosition": f"{100 * column / max(columns - 1, 1):.4f}% {100 * row / max(rows - 1, 1):.4f}%",
    }


def _thumbnail(run: OpenRun, sample: int, row: dict[str, Any], state: State) -> html.A:
    picture = html.Span(
        None if row["finished"] else "not finished",
        role="img",
        className="thumb-picture",
        style=sprite_style(run, state.cell, sample) if row["finished"] else {},
        **{"aria-label": f"final {'image' if run.kind.name == 'image' else 'sample'} of sample {sample}"},
    )
    lines = [html.Span([html.B(sample), f" {row['label']}"])]
    if row["finished"]:
        lines += [
            html.Span(_verdict(name, row[who], row[f"{who}_right"]), className=_CLASS_NAMES.get(row[f"{who}_right"]))
            for who, name in NAMES.items()
            if f"{who}_prediction" in run.ds
        ]
    elif not run.has_pictures:
        lines.append(html.Span("not finished"))
    if row["nonfinite"]:
        steps = "step" if row["nonfinite"] == 1 else "steps"
        lines.append(html.Span(f"▲ {row['nonfinite']} {steps} not finite", className="wrong"))
    current = {"aria-current": "true"} if sample == state.sample else {}
    return html.A(
        [picture if run.has_pictures else None, *lines],
        href=state.to("trajectory", sample=sample).url(),
        className="thumb view-link",
        **{"data-sample": sample, **current},
    )


def _verdict(name: str, seen: str, right: float) -> str:
    """A verdict, without the class that was seen where it is the target."""
    return f"{name} {RIGHT}" if right == 1 else f"{name} {verdict_text(seen, right)}"
