"""Final images as tiles, each with what the guide and the judge see in it, and the way to its trajectory."""

from math import ceil
from typing import Any

import pandas as pd
from dash import html

from dashboards.data.library import Recorded
from dashboards.images.tiles import COLUMNS
from dashboards.state import State
from dashboards.widgets.verdicts import RIGHT, said

SPRITE = 64
"""So many samples' images come as one picture."""
_LOOKS = {1.0: "right", 0.0: "wrong"}


def tiles(run: Recorded, table: pd.DataFrame, state: State) -> list[html.A]:
    """A tile for each row of `dashboards.widgets.verdicts.verdicts`, whose index is that of the sample.

    Parameters
    ----------
    state
        The cursor view of the cell; its sample is marked.
    """
    return [_tile(run, int(i), row._asdict(), state) for i, row in zip(table.index, table.itertuples(), strict=True)]


def sprite(run: Recorded, cell: int, sample: int) -> dict[str, str]:
    """Style that shows the final image of one sample: its part of a picture of many."""
    first = sample // SPRITE * SPRITE
    last = min(first + SPRITE, run.ds.sizes["sample"]) - 1
    columns = min(COLUMNS, last - first + 1)
    rows = ceil((last - first + 1) / columns)
    row, column = divmod(sample - first, columns)
    fresh = f"&v={run.version}" if run.live else ""
    return {
        "backgroundImage": f"url(thumbnails/{run.key}/{cell}.png?samples={first}-{last}{fresh})",
        "backgroundSize": f"{100 * columns}% {100 * rows}%",
        "backgroundPosition": f"{100 * column / max(columns - 1, 1):.4f}% {100 * row / max(rows - 1, 1):.4f}%",
    }


def _tile(run: Recorded, sample: int, row: dict[str, Any], state: State) -> html.A:
    picture = html.Span(
        role="img",
        className="thumb-picture",
        style=sprite(run, state.cell, sample) if row["finished"] and "image" in run.ds else {},
        **{"aria-label": f"final image of sample {sample}"},
    )
    words = [html.Span([html.B(sample), f" {row['label']}"])]
    words += [
        html.Span(_verdict(who, row[who], row[f"{who}_right"]), className=_LOOKS.get(row[f"{who}_right"]))
        for who in ("own", "judge")
        if f"{who}_prediction" in run.ds
    ]
    if not row["finished"]:
        words = [words[0], html.Span("not finished")]
    if row["nonfinite"]:
        words.append(html.Span(f"▲ {row['nonfinite']} steps not finite", className="wrong"))
    here = {"aria-current": "true"} if sample == state.sample else {}
    return html.A(
        [picture, *words],
        href=state.to("trajectory", sample=sample).url(),
        className="thumb view-link",
        **{"data-sample": sample, **here},
    )


def _verdict(who: str, name: str, right: float) -> str:
    """Without the class where it is the target."""
    return f"{who} {RIGHT}" if right == 1 else f"{who} {said(name, right)}"
