"""The final images of a cell with their verdicts, and the table that finds the failures among them."""

from typing import Annotated, Any, Literal

import dash_mantine_components as dmc
import pandas as pd
import xarray as xr
from dash import Dash, Input, Output, ctx, html, no_update
from dash import State as Unwatched
from pydantic import Field

from dashboards.data.library import Library, Recorded
from dashboards.pages.samples.samples_table import NEEDS, sample_columns, sample_rows
from dashboards.state import State
from dashboards.widgets.controls import NumberText, cell_select, control, dependence, empty
from dashboards.widgets.grid import Column, renewed, table
from dashboards.widgets.links import View, came_from, into
from dashboards.widgets.thumbnails import tiles
from dashboards.widgets.verdicts import TITLES, chosen, verdicts
from gradscope.analysis.contents import absent, place

TITLE = "Samples"
PAGE = 64
"""So many images are shown at a time."""
Only = Literal["all", "wrong", "fooled", "right", "nonfinite"]
"""See `dashboards.state.ONLY`."""
PageNumber = Annotated[int, Field(ge=1, lt=2**31)]
_MEANING = "Fooled is a guide that sees the target class where the independent judge does not."


def layout(run: Recorded, state: State):
    there = _there(run, state)
    page = 1 + there.index.get_loc(state.sample) // PAGE if state.sample in there.index else 1
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            html.Div(
                [
                    cell_select(run, "cell", state.cell, "cell"),
                    html.Div(
                        dmc.SegmentedControl(
                            id=control("only"), data=_choices(run, state.cell), value=state.only, size="xs"
                        ),
                        role="group",
                        **{"aria-label": "which samples"},
                    ),
                    dmc.Pagination(id="samples-page", total=_pages(there), value=page, size="xs", withControls=False),
                ],
                className="controls",
            ),
            dependence(run),
            html.P(_said(run), id="samples-said", className="caption"),
            html.Div(
                [
                    html.Div(_tiles(run, state, page), id="thumbnails", className="thumbs"),
                    table("samples-table", sample_columns(run.ds), _rows(run, state), "samples"),
                ],
                className="samples",
            ),
        ]
    )


def register(app: Dash, library: Library) -> None:
    cell, only = Input(control("cell"), "value"), Input(control("only"), "value")

    @app.callback(
        Output(control("only"), "data"),
        Output("samples-said", "children"),
        Output("samples-table", "rowData"),
        Output("samples-table", "columnDefs"),
        Output("samples-page", "total"),
        Output("samples-page", "value"),
        cell,
        only,
        Input("version", "data"),
        Unwatched("view", "data"),
        Unwatched("samples-table", "columnDefs"),
        prevent_initial_call=True,
    )
    def filtered(cell: NumberText, only: Only, version: str | None, view: View | None, columns: list[Column] | None):
        run, state = _chosen(library, view, cell, only)
        return (
            _choices(run, state.cell),
            _said(run),
            _rows(run, state),
            renewed(sample_columns(run.ds), columns),
            _pages(_there(run, state)),
            no_update if ctx.triggered_id == "version" else 1,
        )

    @app.callback(
        Output("thumbnails", "children"),
        cell,
        only,
        Input("samples-page", "value"),
        Input("version", "data"),
        Unwatched("view", "data"),
        prevent_initial_call=True,
    )
    def turned(cell: NumberText, only: Only, page: PageNumber, version: str | None, view: View | None):
        return _tiles(*_chosen(library, view, cell, only), page)


def _chosen(library: Library, view: View | None, cell: int, only: str) -> tuple[Recorded, State]:
    run, state = came_from(library, view)
    return run, state.to("samples", cell=cell, only=only)


def _cell(run: Recorded, number: int) -> xr.Dataset:
    names = [name for name in NEEDS if name in run.ds]
    return run.scalars("written", *names).isel(place(run.ds, run.cell(number)))


def _verdicts(run: Recorded, number: int) -> pd.DataFrame:
    return run.memo(("verdicts", number), lambda: verdicts(_cell(run, number)))


def _there(run: Recorded, state: State) -> pd.DataFrame:
    """Verdicts of the samples that are to be shown."""
    found = _verdicts(run, state.cell)
    return found[chosen(found)[state.only]]


def _choices(run: Recorded, number: int) -> list[dict[str, Any]]:
    """What can be shown, and how many that are."""
    counts = {only: int(rows.sum()) for only, rows in chosen(_verdicts(run, number)).items()}
    needs = {"wrong": "judge_prediction", "right": "judge_prediction", "fooled": "judge_prediction"}
    needs["nonfinite"] = "finite_fraction"
    return [
        {"value": only, "label": f"{TITLES[only]} {count}", "disabled": only in needs and needs[only] not in run.ds}
        for only, count in counts.items()
    ]


def _rows(run: Recorded, state: State) -> list:
    here = into(run, state.cell).to("trajectory", timestep=state.timestep)
    rows = run.memo(
        ("samples", state.cell, here), lambda: sample_rows(_cell(run, state.cell), _verdicts(run, state.cell), here)
    )
    return [rows[i] for i in _there(run, state).index]


def _tiles(run: Recorded, state: State, page: int) -> list:
    there = _there(run, state)
    if there.empty:
        return [empty(f"No sample of this cell is: {TITLES[state.only]}.")]
    here = into(run, state.cell).to("trajectory", timestep=state.timestep, sample=state.sample)
    return tiles(run, there.iloc[(page - 1) * PAGE : page * PAGE], here)


def _said(run: Recorded) -> str:
    return absent(run.ds, "judge_prediction") or _MEANING


def _pages(there: pd.DataFrame) -> int:
    return max(1, -(-len(there) // PAGE))
