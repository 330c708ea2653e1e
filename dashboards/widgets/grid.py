"""Tables that sort, filter and lead somewhere: ag-grid, community edition, in the colours of the page.

A row is a dictionary. Its ``id`` tells it from the others, so that new rows leave filters, order and focus as they are;
its ``href``, where it has one, is the view that a click or Enter opens. The functions that columns name are in
assets/tables.js. Texts are shown as texts: nothing that a store holds is read as markup or as code.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html, no_update
from dash_ag_grid import AgGrid

ROW, HEADER = 26, 30
"""Heights in pixels."""
SEVERITIES = {"alarm": "▲", "warning": "●", "remark": "○"}
"""A symbol, as colour alone says nothing to many."""

Row = Mapping[str, Any]
Column = dict[str, Any]


def table(
    id: str, columns: Sequence[Column], rows: Sequence[Row], label: str, height: str = "100%", at: str | None = None
) -> html.Div:
    """A table; a callback may set its ``rowData``.

    Parameters
    ----------
    id
        Of the grid; that of the frame around it is ``<id>-frame``.
    label
        What it is, for screen readers.
    height
        As CSS has it; `fitting` gives that of some rows.
    at
        Id of a dcc.Store that is to hold the row under the mouse or the focus.
    """
    looked = ["lookAtRow(params)"] if at else []
    return html.Div(
        AgGrid(
            id=id,
            columnDefs=list(columns),
            rowData=list(rows),
            getRowId="params.data.id",
            rowClassRules={"leads": "params.data.href != null"},
            defaultColDef={"filter": True, "tooltipValueGetter": {"function": "cut(params)"}},
            dashGridOptions={
                "rowHeight": ROW,
                "headerHeight": HEADER,
                "ensureDomOrder": True,
                "tooltipShowDelay": 400,
                "suppressDragLeaveHidesColumns": True,
                "context": {"at": at},
            },
            eventListeners={
                "rowClicked": ["openRow(params)"],
                "cellKeyDown": ["openRow(params)"],
                "cellFocused": looked,
                "cellMouseOver": looked,
            },
            style={"height": "100%", "width": "100%"},
        ),
        id=f"{id}-frame",
        role="group",
        className="table",
        style={"height": height},
        **{"aria-label": label},
    )


def renewed(columns: list[Column], before: list[Column] | None) -> Any:
    """Columns for a callback to set: none where they are as before, for new ones put filters and widths back."""
    return no_update if columns == before else columns


def fitting(rows: int, most: int) -> str:
    """Height at which so many rows are seen without scrolling, or as many as `most`."""
    return f"{HEADER + ROW * min(max(rows, 1), most) + 4}px"


def words(field: str, title: str, width: int, **options: Any) -> Column:
    """A column of texts, of a width in pixels for a small screen."""
    return _column(field, title, width, **options)


def badges(field: str, title: str, width: int, **options: Any) -> Column:
    """A column of texts like ``▲ unstable, ● frozen``, each a badge in the colour of its severity."""
    return _column(field, title, width, cellRenderer="Badges", **options)


def number(field: str, title: str, width: int, shown: str = "significant(params.value)", **options: Any) -> Column:
    """A column of numbers, which sorts and filters as such, whatever is shown of them."""
    kind = {"filter": "agNumberColumnFilter", "type": "rightAligned", "valueFormatter": {"function": shown}}
    return _column(field, title, width, **(kind | options))


def interval(field: str, title: str, width: int, digits: int | None = None, **options: Any) -> Column:
    """A column of numbers with their intervals, which are in ``<field>_low`` and ``<field>_high``."""
    text = f"interval(params.value, params.data.{field}_low, params.data.{field}_high, {digits or 0})"
    return number(field, title, width, text, **options)


def marked(severity: str, text: str) -> str:
    """A text for `badges`."""
    return f"{SEVERITIES[severity]} {text}"


def _column(field: str, title: str, width: int, **options: Any) -> Column:
    """Columns share the room there is in proportion to their widths, and are a little narrower where it is scarce."""
    return {"field": field, "headerName": title, "flex": width, "minWidth": round(0.85 * width)} | options
