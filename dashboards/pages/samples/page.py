"""Samples: the final images of a cell with their verdicts, and a table that finds the failures among them."""

from typing import Annotated, Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import xarray as xr
from dash import ClientsideFunction, Dash, Input, Output, ctx, dcc, html, no_update
from pydantic import Field

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.pages.samples.samples_table import NEEDS, sample_columns, sample_rows
from dashboards.state import SampleFilter, State
from dashboards.widgets.controls import NumberText, cell_select, control_id
from dashboards.widgets.drawn_as import how_drawn, kind_data, tile_style
from dashboards.widgets.export import Call
from dashboards.widgets.figure_slot import filled, slot, slot_outputs, unfilled
from dashboards.widgets.grid import Column, changed_columns, table
from dashboards.widgets.links import VERSION, VIEW, View, shown_state, trajectory_state
from dashboards.widgets.messages import dependence, empty
from dashboards.widgets.thumbnails import thumbnails
from dashboards.widgets.verdicts import FILTER_TITLES, filter_rows, verdicts
from gradscope.analysis.cells import place
from gradscope.analysis.missing import absent
from gradscope.analysis.seen import FINAL, is_watched, unseen

TITLE = "Samples"
PAGE = 64
"""Thumbnails that are shown at a time."""
_POINTS = "samples-points"
"""Id of the figure of all final samples, where these are points."""
PageNumber = Annotated[int, Field(ge=1, lt=2**31)]
_FOOLED = "A guide is fooled where it sees the target class and the independent judge does not."


def layout(run: OpenRun, state: State):
    shown = _shown(run, state)
    page = 1 + shown.index.get_loc(state.sample) // PAGE if state.sample in shown.index else 1
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            html.Div(
                [
                    cell_select(run, "cell", state.cell, "cell"),
                    html.Div(
                        dmc.SegmentedControl(
                            id=control_id("only"), data=_filters(run, state.cell), value=state.only, size="xs"
                        ),
                        role="group",
                        **{"aria-label": "which samples"},
                    ),
                    dmc.Pagination(
                        id="samples-page", total=_pages(shown), value=page, size="xs", withControls=False,
                        hideWithOnePage=True,
                    ),
                ],
                className="controls",
            ),
            dependence(run),
            html.P(_caption(run), id="samples-caption", className="caption"),
            how_drawn(run),
            html.Div(
                [
                    html.Div(
                        [
                            slot(_POINTS) if _has_points(run) else None,
                            html.Div(
                                _thumbnails(run, state, page),
                                id="thumbnails",
                                className="thumbs",
                                style=tile_style(run),
                                **kind_data(run),
                            ),
                        ],
                        className="samples-pictures",
                    ),
                    table("samples-table", sample_columns(run.ds), _rows(run, state), "samples"),
                ],
                className="samples",
            ),
            dcc.Store(id="samples-opened"),
        ]
    )  # fmt: skip


def register(app: Dash, library: Library) -> None:
    """Add the callbacks of the page."""
    cell_input, filter_input = Input(control_id("cell"), "value"), Input(control_id("only"), "value")

    @app.callback(
        Output(control_id("only"), "data"),
        Output("samples-caption", "children"),
        Output("samples-table", "rowData"),
        Output("samples-table", "columnDefs"),
        Output("samples-page", "total"),
        Output("samples-page", "value"),
        cell_input,
        filter_input,
        VERSION,
        VIEW,
        dash.State("samples-table", "columnDefs"),
        prevent_initial_call=True,
    )
    def filtered(
        cell: NumberText, only: SampleFilter, version: str | None, view: View | None, columns: list[Column] | None
    ):
        run, state = _selected(library, view, cell, only)
        return (
            _filters(run, state.cell),
            _caption(run),
            _rows(run, state),
            changed_columns(sample_columns(run.ds), columns),
            _pages(_shown(run, state)),
            no_update if ctx.triggered_id == "version" else 1,
        )

    app.clientside_callback(
        ClientsideFunction("gradscope_samples", "open"),
        Output("samples-opened", "data"),
        Input(_POINTS, "clickData"),
        dash.State("samples-table", "rowData"),
        prevent_initial_call=True,
    )

    @app.callback(*slot_outputs(_POINTS), cell_input, VERSION, VIEW)
    def points(cell: NumberText, version: str | None, view: View | None):
        run, _ = shown_state(library, view)
        if not _has_points(run):
            return unfilled()
        return filled(_POINTS, Call("finals", {"cell": dict(run.cell(cell))}), run, "Final samples")

    @app.callback(
        Output("thumbnails", "children"),
        cell_input,
        filter_input,
        Input("samples-page", "value"),
        VERSION,
        VIEW,
        prevent_initial_call=True,
    )
    def turned(cell: NumberText, only: SampleFilter, page: PageNumber, version: str | None, view: View | None):
        return _thumbnails(*_selected(library, view, cell, only), page)


def _selected(library: Library, view: View | None, cell: int, only: SampleFilter) -> tuple[OpenRun, State]:
    """The run and the state after the controls were changed."""
    run, state = shown_state(library, view)
    return run, state.to("samples", cell=cell, only=only)


def _cell(run: OpenRun, number: int) -> xr.Dataset:
    names = [name for name in NEEDS if name in run.ds]
    return run.scalars("written", *names).isel(place(run.ds, run.cell(number)))


def _verdicts(run: OpenRun, number: int) -> pd.DataFrame:
    return run.memo(("verdicts", number), lambda: verdicts(_cell(run, number)))


def _shown(run: OpenRun, state: State) -> pd.DataFrame:
    """The verdicts of the samples that the filter shows."""
    table = _verdicts(run, state.cell)
    return table[filter_rows(table)[state.only]]


def _filters(run: OpenRun, number: int) -> list[dict[str, Any]]:
    """The filters, each with the number of its samples."""
    counts = {only: int(rows.sum()) for only, rows in filter_rows(_verdicts(run, number)).items()}
    needs = dict.fromkeys(("wrong", "right", "fooled"), "judge_prediction") | {"nonfinite": "finite_fraction"}
    return [
        {
            "value": only,
            "label": f"{FILTER_TITLES[only]} {count}",
            "disabled": only in needs and needs[only] not in run.ds,
        }
        for only, count in counts.items()
    ]


def _rows(run: OpenRun, state: State) -> list:
    target = trajectory_state(run, state.cell).to("trajectory", timestep=state.timestep)
    rows = run.memo(
        ("samples", state.cell, target),
        lambda: sample_rows(_cell(run, state.cell), _verdicts(run, state.cell), target),
    )
    return [rows[i] for i in _shown(run, state).index]


def _thumbnails(run: OpenRun, state: State, page: int) -> list:
    shown = _shown(run, state)
    if shown.empty:
        return [empty(f"No sample of this cell is: {FILTER_TITLES[state.only]}.")]
    target = trajectory_state(run, state.cell).to("trajectory", timestep=state.timestep, sample=state.sample)
    return thumbnails(run, shown.iloc[(page - 1) * PAGE : page * PAGE], target)


def _has_points(run: OpenRun) -> bool:
    return run.kind.name == "point" and run.has_pictures


def _caption(run: OpenRun) -> str:
    said = absent(run.ds, "judge_prediction") or _FOOLED
    lost = [each for each in unseen(run.ds) if each.what == FINAL] if is_watched(run.ds) else []
    return " ".join([said, *(f"Blank: {each.why}. {each.advice}" for each in lost)])


def _pages(shown: pd.DataFrame) -> int:
    return max(1, -(-len(shown) // PAGE))
