"""Tables that sort and filter, whose rows open views: ag-grid, community edition, in the colours of the page.

A row is a dictionary. Its ``id`` identifies it, so that new rows keep filters, order and focus; its ``href``, where it
has one, is the view that a click or Enter opens. The functions that columns name are in assets/tables.js. Texts are
shown as texts: nothing in a store is read as markup or code.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html, no_update
from dash_ag_grid import AgGrid

ROW, HEADER = 26, 30
"""Heights in pixels."""
SEVERITIES = {"alarm": "▲", "warning": "●", "remark": "○"}
"""A symbol for each severity, for readers who cannot distinguish the colours."""
_SELECTION = {"rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True}}

Row = Mapping[str, Any]
Column = dict[str, Any]


def table(
    id: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    label: str,
    height: str = "100%",
    selected: Sequence[Row] | None = None,
) -> html.Div:
    """A table; a callback may set its ``rowData``.

    Parameters
    ----------
    id
        Of the grid; the frame around it has the id ``<id>-frame``.
    label
        Name of the table for screen readers.
    height
        In CSS; `height_of` gives the height of some rows.
    selected
        The row that is selected at first, if any: a click or the focus selects another one, which is in
        ``selectedRows``, and only Enter opens its view. Rows of a table without it are not selected.
    """
    selects = selected is not None
    frame = html.Div(
        AgGrid(
            id=id,
            columnDefs=list(columns),
            rowData=list(rows),
            getRowId="params.data.id",
            rowClassRules={"clickable": "params.data.href != null"},
            defaultColDef={"filter": True, "tooltipValueGetter": {"function": "fullText(params)"}},
            dashGridOptions={
                "rowHeight": ROW,
                "headerHeight": HEADER,
                "ensureDomOrder": True,
                "tooltipShowDelay": 400,
                "suppressDragLeaveHidesColumns": True,
                **(_SELECTION if selects else {}),
            },
            eventListeners={
                "rowClicked": [] if selects else ["openRow(params)"],
                "cellKeyDown": ["openRow(params)"],
                "cellFocused": ["selectRow(params)"] if selects else [],
            },
            style={"height": "100%", "width": "100%"},
            **({"selectedRows": list(selected)} if selected else {}),
        ),
        id=f"{id}-frame",
        role="group",
        className="table",
        style={"height": height},
        **{"aria-label": label},
    )
    frame.children = [csv_button(id, label), frame.children]
    return frame


def csv_button(id: str, label: str) -> html.Button:
    """A button that saves a table, or the HTML table inside of an element, as CSV; see assets/tables_csv.js.

    Parameters
    ----------
    id
        Of the table or element.
    label
        Name of the table. It begins with the word that names the file.
    """
    name = label.partition(",")[0].replace(" ", "_")
    about = {"aria-label": f"save {label} as CSV", "data-table": id, "data-name": name}
    return html.Button("CSV", type="button", className="table-csv", title="save this table as CSV", **about)


def changed_columns(columns: list[Column], before: list[Column] | None) -> Any:
    """Columns for a callback to set; no update where they are the same, as that would reset filters and widths."""
    return no_update if columns == before else columns


def height_of(rows: int, most: int) -> str:
    """Height at which all rows are seen without scrolling, at most `most` of them."""
    return f"{HEADER + ROW * min(max(rows, 1), most) + 4}px"


def text_column(field: str, title: str, width: int, **options: Any) -> Column:
    """A column of texts; the width is in pixels, on a small screen."""
    return _column(field, title, width, **options)


def badge_column(field: str, title: str, width: int, **options: Any) -> Column:
    """A column of texts like ``▲ unstable, ● frozen``, shown as badges in the colours of their severities."""
    return _column(field, title, width, cellRenderer="Badges", **options)


def number_column(
    field: str, title: str, width: int, formatter: str = "significant(params.value)", **options: Any
) -> Column:
    """A column of numbers, which sorts and filters by the numbers, however they are formatted."""
    kind = {"filter": "agNumberColumnFilter", "type": "rightAligned", "valueFormatter": {"function": formatter}}
    return _column(field, title, width, **(kind | options))


def interval_column(field: str, title: str, width: int, digits: int | None = None, **options: Any) -> Column:
    """A column of numbers with their intervals, from the fields ``<field>_low`` and ``<field>_high``."""
    formatter = f"interval(params.value, params.data.{field}_low, params.data.{field}_high, {digits or 0})"
    return number_column(field, title, width, formatter, **options)


def badge(severity: str, text: str) -> str:
    """A text for `badge_column`."""
    return f"{SEVERITIES[severity]} {text}"


def _column(field: str, title: str, width: int, **options: Any) -> Column:
    """Columns share the width of the table in proportion to their widths; they shrink to 85 % before it scrolls."""
    return {"field": field, "headerName": title, "flex": width, "minWidth": round(0.85 * width)} | options
