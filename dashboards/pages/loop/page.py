"""Loop: what hooks saw of a watched loop, what they did not see and why, and what to do about it."""

import dash_mantine_components as dmc
import xarray as xr
from dash import Dash, Input, Output, html

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.pages.loop.rows import columns, rows
from dashboards.state import State
from dashboards.widgets.controls import NumberText, cell_select, control_id
from dashboards.widgets.export import Call
from dashboards.widgets.figure_slot import filled, slot, slot_outputs
from dashboards.widgets.grid import height_of, table
from dashboards.widgets.links import VERSION, VIEW, View, shown_state
from dashboards.widgets.messages import empty
from gradscope.analysis.seen import counted, is_watched, problems, unseen

TITLE = "Loop"
SHOWN = 8
"""Rows of the table that are seen without scrolling."""
_KINDS = {
    "classifier": "a classifier",
    "energy": "an energy",
    "classifier_free": "classifier-free guidance",
}


def missing(run: OpenRun) -> str:
    """Why there is nothing to show; empty if there is."""
    return "" if is_watched(run.ds) else f"{run.path.name} was not recorded by gradscope.watch"


def layout(run: OpenRun, state: State):
    if reason := missing(run):
        return empty(reason)
    made = rows(run, state)
    return html.Div(
        [
            html.Div(
                [html.H1(headline(run, state), className="loop-headline"), html.P(_counts(run.ds), className="caption")]
            ),
            html.Div(
                [
                    html.Section(
                        [
                            table("loop-rows", columns(run), made, "steps seen, by cell", height_of(len(made), SHOWN)),
                            html.Div(cell_select(run, "cell", state.cell, "cell of the figure"), className="controls"),
                            slot("what-was-seen"),
                        ],
                        className="loop-seen",
                        **{"aria-label": "what was seen"},
                    ),
                    html.Section([_problems(run), _unseen(run.ds)], id="loop-unseen", className="loop-unseen"),
                ],
                className="loop-body",
            ),
        ],
        className="loop",
    )


def register(app: Dash, library: Library) -> None:
    """Add the callbacks of the page."""

    @app.callback(
        Output("loop-rows", "rowData"), Output("loop-unseen", "children"), VERSION, VIEW, prevent_initial_call=True
    )
    def grown(version: str | None, view: View | None):
        run, state = shown_state(library, view)
        return rows(run, state), [_problems(run), _unseen(run.ds)]

    @app.callback(*slot_outputs("what-was-seen"), Input(control_id("cell"), "value"), VERSION, VIEW)
    def draw(cell: NumberText, version: str | None, view: View | None):
        run, _ = shown_state(library, view)
        return filled(
            "what-was-seen", Call("what_was_seen", {"cell": dict(run.cell(cell))}), run, "What was seen along t"
        )


def headline(run: OpenRun, state: State) -> str:
    """What the loop is guided by, and the number of steps with a gradient."""
    made = rows(run, state)
    by = _KINDS.get(str(run.ds.attrs.get("guidance_kind")), "a guide")
    there, of = (sum(row[name] for row in made) for name in ("gradient", "all"))
    return f"A loop guided by {by}: a gradient at {there:,} of {of:,} steps"


def _counts(ds: xr.Dataset) -> str:
    """How often hooks saw what."""
    facts = [f"{count:,} {words}" for words, count in counted(ds).items()]
    said = ", ".join(facts) if facts else "counts are written when the watch ends"
    return f"A step is that of one sample. Hooks see batches: {said}."


def _problems(run: OpenRun):
    texts = problems(run.ds)
    if not texts:
        return html.Div([html.H2("Problems", className="card-title"), html.P("None.", className="caption")])
    notes = [dmc.Alert(text, color="orange", variant="light", p="xs") for text in texts]
    return html.Div([html.H2("Problems", className="card-title"), *notes], className="loop-problems")


def _unseen(ds: xr.Dataset):
    found = unseen(ds)
    head = html.H2("Not seen", className="card-title")
    if not found:
        return html.Div([head, html.P("Everything that a store can hold was seen.", className="caption")])
    caption = "At some steps or at all of them; the figure shows which."
    parts = [
        part
        for each in found
        for part in (
            html.Dt(each.what),
            html.Dd([html.P(each.why), *([html.P([html.B("What to do: "), each.advice])] if each.advice else [])]),
        )
    ]
    return html.Div([head, html.P(caption, className="caption"), html.Dl(parts)])
