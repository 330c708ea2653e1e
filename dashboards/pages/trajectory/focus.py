"""The maps of the focused cell, with what they show of a tensor, and the numbers at the cursor."""

import dash_mantine_components as dmc
from dash import html

from dashboards.data.open_run import OpenRun
from dashboards.images.tensors import MAPS
from dashboards.pages.trajectory.browser_data import LABELS, readout_names, unit
from dashboards.state import State, channels
from dashboards.widgets.controls import control_id

_LIMITS = {"cell": "each map", "shared": "shared by cells", "fixed": "fixed over t"}
_SCALES = {"linear": "linear", "log": "log"}
_FEW = 5
"""Channels that fit beside each other."""


def map_switches(run: OpenRun, state: State):
    """How maps are drawn: their limits, their scale and their channel. What cannot change is hidden."""
    names = channels(run)
    colours = run.kind.name in ("image", "video")
    return html.Div(
        [
            _switch("limits", "limits", _LIMITS, state.limits, not run.tensors),
            _switch("scale", "scale", _SCALES, state.scale, not (run.tensors and colours)),
            _switch("channel", "channel", dict(zip(names, names, strict=True)), state.channel, len(names) == 1),
        ],
        className="map-switches",
    )


def focus(run: OpenRun):
    """The focused cell: larger maps, the enlarged one, and the numbers at the cursor."""
    return html.Section(
        [
            html.H2(id="focus-name", className="card-title"),
            html.Div([_figure(run, name) for name in run.tensors], className="focus-maps"),
            html.Dl([_number(run, name) for name in readout_names(run)], id="readout", className="readout"),
            _zoom(run) if run.tensors else None,
        ],
        id="focus",
        className="focus",
        **{"aria-label": "focused cell"},
    )


def _switch(key: str, label: str, words: dict[str, str], value: str, hidden: bool):
    """A switch between a few words; a select where there are more."""
    data = [{"value": word, "label": text} for word, text in words.items()]
    if len(words) > _FEW:
        control = dmc.Select(id=control_id(key), data=data, value=value, allowDeselect=False, size="xs", w=80)
    else:
        control = dmc.SegmentedControl(id=control_id(key), data=data, value=value, size="xs")
    return html.Div(
        [html.Span(label, id=f"{key}-label"), control],
        hidden=hidden,
        role="group",
        className="switch",
        **{"aria-labelledby": f"{key}-label"},
    )


def _figure(run: OpenRun, name: str):
    """One tensor of the focused cell; a click enlarges it."""
    label, unit_text = LABELS[name], unit(run, name)
    caption = f"{label} [{unit_text}]" if unit_text else label
    map = html.Div(className="map", role="img", **{"data-tensor": name, "aria-label": label})
    return html.Figure(
        [
            html.Figcaption(caption, title=run.ds[name].attrs.get("long_name", name)),
            html.Button(map, type="button", title="enlarge", className="enlarge", **{"data-zoom": name}),
            *_legend(run),
        ],
        **{"data-diverging": str(name in MAPS).lower()},
    )


def _zoom(run: OpenRun):
    """The dialog with one enlarged map; assets/map_zoom.js sets its tensor."""
    return html.Dialog(
        [
            html.Div(
                [
                    html.H2(id="zoom-name", className="card-title"),
                    html.Button("close", id="zoom-close", type="button"),
                ],
                className="card-head",
            ),
            html.Figure(
                [
                    html.Div(
                        html.Div(className="pixel-mark"),
                        className="map",
                        role="img",
                        tabIndex=0,
                        **{"data-tensor": run.tensors[0], "aria-label": run.tensors[0]},
                    ),
                    *_legend(run),
                ],
                **{"data-diverging": "true"},
            ),
            html.P(id="zoom-value", role="status"),
        ],
        id="zoom",
        **{"aria-labelledby": "zoom-name"},
    )


def _legend(run: OpenRun) -> list:
    """The bar of colours with its ends, and the norm and range; assets/maps.js fills them in."""
    colours = run.kind.name in ("image", "video")
    return [
        html.Div(className="colour-bar") if colours else None,
        html.Div([html.Span(className=which) for which in ("low", "middle", "high")], className="bar-ends"),
        html.Div(className="norm"),
    ]


def _number(run: OpenRun, name: str):
    tooltip = run.ds[name].attrs.get("long_name", name)
    return html.Div(
        [html.Dt(name, title=tooltip), html.Dd([html.Span(**{"data-variable": name}), html.Small(unit(run, name))])]
    )
