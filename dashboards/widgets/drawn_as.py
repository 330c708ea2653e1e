"""How samples are drawn: the caption under their pictures, and what the style sheet needs to know."""

from dash import html

from dashboards.data.open_run import OpenRun
from dashboards.images.words import aspect, caption, line_names
from gradscope.store.dims import sample_dims


def how_drawn(run: OpenRun):
    """What the pictures show, or why there are none; None for images."""
    if run.not_drawn:
        return html.P(f"{run.not_drawn[0].upper()}{run.not_drawn[1:]}.", className="caption not-drawn")
    names = [
        html.Li(name, style={"--line-colour": colour}) for name, colour in line_names(run.kind, _sizes(run)).items()
    ]
    if text := caption(run.kind, _sizes(run)):
        return html.Div([html.P(text, className="caption how-drawn"), html.Ul(names, className="line-names")])
    return None


def kind_data(run: OpenRun) -> dict[str, str]:
    """The attribute ``data-kind`` of an element with pictures."""
    return {"data-kind": run.kind.name}


def tile_style(run: OpenRun) -> dict[str, str]:
    """Style of an element with pictures: ``--wide`` is a tile's width as a multiple of its height."""
    return {} if run.kind.name in ("image", "unknown") else {"--wide": f"{aspect(run.kind, _sizes(run)):.4g}"}


def _sizes(run: OpenRun) -> dict[str, int]:
    return dict(zip(sample_dims(run.ds), run.sample_shape, strict=True))
