"""Check: the verdict on each gradient that `gradscope check` compared with its energy, and what to change."""

from collections.abc import Mapping

from dash import ClientsideFunction, Dash, Input, Output, dcc, html

from dashboards.data.library import Library
from dashboards.data.open_check import OpenCheck
from dashboards.pages.check.rows import columns, first, rows
from dashboards.widgets.grid import height_of, table
from gradscope.reporting.check_file import CheckFile

TITLE = "Check"
SHOWN = 18
"""Rows that are seen without scrolling."""
PARTS = {
    "meaning": "",
    "advice": "What to change",
    "evidence": "Evidence",
    "others": "Fits as well",
    "remarks": "Notes",
    "needs": "Not tested",
}
"""Parts of the text beside the table: fields of a row, each with its heading."""


def layout(run: OpenCheck, query: Mapping[str, str]):
    """The table, and the text about the row under the mouse or the focus."""
    found = run.found
    made = rows(found)
    when = f" on {found.created[:10]}" if found.created else ""
    about = (
        f"{found.source}, checked by gradscope {found.gradscope}{when}. c is the gradient that the code uses, g the "
        "gradient of its energy by finite differences, or by autograd where they confirm it."
    )
    return html.Div(
        [
            html.H1(headline(found), className="check-headline"),
            html.P(about, className="caption"),
            html.Div(
                [
                    table(
                        "check-rows", columns(found), made, "verdicts",
                        height=height_of(len(made), SHOWN), store="check-row",
                    ),
                    html.Section(
                        [
                            html.H2(id="check-name", className="card-title"),
                            *[_part(name, heading) for name, heading in PARTS.items()],
                        ],
                        className="finding",
                        **{"aria-label": "about the verdict"},
                    ),
                ],
                className="check-body",
            ),
            dcc.Store(id="check-row", data=dict(first(made))),
        ],
        className="check",
    )  # fmt: skip


def register(app: Dash, library: Library) -> None:
    """Add the callback of the page, which the browser runs."""
    app.clientside_callback(
        ClientsideFunction("gradscope_check", "describe"),
        Output("check-name", "children"),
        *[Output(f"check-{name}", "children") for name in PARTS],
        *[Output(f"check-part-{name}", "hidden") for name in PARTS],
        Input("check-row", "data"),
    )


def headline(found: CheckFile) -> str:
    """The answers in one sentence.

    Those of a loop's steps stand below that of the loop, which decides.
    """
    if found.answers[0].timestep is None:
        return f"The gradient is {'right' if found.right else 'not right'}: {found.answers[0].verdict}"
    count, wrong = len(found.answers), sum(answer.kind != "right" for answer in found.answers)
    shown = wrong or count
    return f"{shown} of {count} gradients {'is' if shown == 1 else 'are'} {'not right' if wrong else 'right'}"


def _part(name: str, heading: str):
    head = [html.H3(heading)] if heading else []
    return html.Div([*head, html.P(id=f"check-{name}")], id=f"check-part-{name}", hidden=True)
