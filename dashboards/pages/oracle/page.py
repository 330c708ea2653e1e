"""Leaderboard: guidance methods, stabilisers and guides against the exact gradient, and their scores along t."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, html
from pydantic import Field

from dashboards.data.library import Library
from dashboards.data.open_leaderboard import OpenLeaderboard
from dashboards.pages.oracle.rows import COLUMNS, best, numbers, numbers_call, table_rows
from dashboards.widgets.controls import NumberText, control_id
from dashboards.widgets.export import Call
from dashboards.widgets.figure_slot import filled, slot, slot_outputs, unfilled
from dashboards.widgets.grid import height_of, table
from dashboards.widgets.links import VIEW, View
from gradscope.errors import GradscopeError

TITLE = "Leaderboard"
ALL = "all mixtures"
SHOWN, MOST = 14, 6
"""Rows of the table that are seen without scrolling on a high screen; rows whose curves can be distinguished."""
SCORES = tuple(
    f"{what}_{score}" for what in ("update", "gradient") for score in ("cosine", "norm_ratio", "bias", "variance")
)
PATHS = ("control", "guided")
RowNumbers = Annotated[list[NumberText], Field(max_length=MOST, fail_fast=True)]


def layout(run: OpenLeaderboard, query: Mapping[str, str]):
    """The table and the controls; the figure follows by callback.

    Parameters
    ----------
    run
        The leaderboard.
    query
        Parameters of the URL. One that is impossible is replaced by the default.
    """
    names = numbers(run)
    mixtures = [ALL, *run.ds["mixture"].values.tolist()]
    mixture = _one_of(query.get("mixture"), mixtures)
    wanted = [text for text in query.get("rows", "").split(",") if text in {str(i) for i in range(len(names))}]
    rows = wanted[:MOST] or [str(number) for number in best(run, MOST)]
    options = [{"value": str(i), "label": ", ".join(name)} for i, name in enumerate(names)]
    sizes = run.ds.sizes
    about = (
        f"{len(names)} rows on {sizes['mixture']} mixtures, with {sizes['sample']} samples, {sizes['replicate']} "
        f"replicates and {sizes['timestep']} steps each. Intervals are over samples. A click on a row draws its curve, "
        "or removes it."
    )
    return html.Div(
        [
            html.Div(
                [
                    html.Div([html.H1(TITLE, className="oracle-title"), html.P(about, className="caption")]),
                    _select("mixture", "mixture", mixtures, mixture, 220),
                    html.A("Table as CSV", id="oracle-csv", href=_csv(run, mixture), download="leaderboard.csv"),
                ],
                className="oracle-head",
            ),
            table("oracle-rows", COLUMNS, table_rows(run, _mixture(mixture)), "leaderboard, best first",
                  height=f"min({height_of(len(names), SHOWN)}, max(190px, 34vh))"),
            html.Div(
                [
                    dmc.MultiSelect(
                        id=control_id("rows"), label=f"rows of the figure, at most {MOST}", data=options, value=rows,
                        maxValues=MOST, searchable=True, hidePickedOptions=True, size="xs", className="many",
                    ),
                    _select("score", "score", SCORES, _one_of(query.get("score"), SCORES), 190),
                    _select("xt", "x_t of", PATHS, _one_of(query.get("xt"), PATHS), 120),
                ],
                className="controls",
            ),
            slot("oracle-curves"),
        ],
        className="oracle",
    )  # fmt: skip


def register(app: Dash, library: Library) -> None:
    """Add the callbacks of the page."""

    @app.callback(
        Output("oracle-rows", "rowData"),
        Output("oracle-csv", "href"),
        Input(control_id("mixture"), "value"),
        VIEW,
        prevent_initial_call=True,
    )
    def rows(mixture: str, view: View | None):
        run = _shown(library, view)
        return table_rows(run, _mixture(mixture)), _csv(run, mixture)

    app.clientside_callback(
        ClientsideFunction("gradscope_oracle", "toggle"),
        Output(control_id("rows"), "value"),
        Input("oracle-rows", "cellClicked"),
        State(control_id("rows"), "value"),
        prevent_initial_call=True,
    )

    @app.callback(
        *slot_outputs("oracle-curves"),
        Input(control_id("rows"), "value"),
        Input(control_id("score"), "value"),
        Input(control_id("xt"), "value"),
        Input(control_id("mixture"), "value"),
        VIEW,
    )
    def curves(chosen: RowNumbers, score: str, path: str, mixture: str, view: View | None):
        run = _shown(library, view)
        if not chosen:
            return unfilled("Choose a row above.")
        names = numbers(run)
        if max(chosen) >= len(names):
            raise GradscopeError(f"row {max(chosen)}: there are {len(names)} rows, from 0")
        keys = ("guide", "guidance_method", "stabilizer")
        rows = [dict(zip(keys, names[number], strict=True)) for number in chosen]
        arguments = {"name": score, "rows": rows, "mixture": _mixture(mixture), "path": path}
        return filled("oracle-curves", Call("oracle_curves", arguments), run, f"{score} along t, {mixture}")


def _shown(library: Library, view: View | None) -> OpenLeaderboard:
    run = None if view is None else library.run(view.store)
    if not isinstance(run, OpenLeaderboard):
        raise GradscopeError("no leaderboard is shown; reload the page")
    return run


def _select(key: str, label: str, values: Sequence[str], value: str, width: int) -> dmc.Select:
    return dmc.Select(
        id=control_id(key), label=label, data=list(values), value=value, allowDeselect=False, size="xs", w=width
    )


def _one_of(value: str | None, possible: Sequence[str]) -> str:
    return value if value is not None and value in possible else possible[0]


def _mixture(value: str) -> str | None:
    return None if value == ALL else value


def _csv(run: OpenLeaderboard, mixture: str) -> str:
    return f"numbers/{run.key}.csv?call={numbers_call(_mixture(mixture)).encode()}"
