"""Tables: the properties that ag-grid gets."""

import json
import re
from pathlib import Path

import pytest
from dash import no_update

import dashboards
from dashboards.pages.overview.cells_table import cell_columns
from dashboards.pages.overview.findings_table import COLUMNS
from dashboards.pages.run import ARRAYS, PROGRESS
from dashboards.pages.samples.samples_table import sample_columns
from dashboards.widgets.grid import (
    HEADER,
    ROW,
    badge,
    badge_column,
    changed_columns,
    height_of,
    interval_column,
    number_column,
    table,
    text_column,
)

SCRIPT = (Path(dashboards.__file__).parent / "assets" / "tables.js").read_text()


@pytest.fixture
def columns(library):
    ds = library.run(None).ds
    return [*COLUMNS, *PROGRESS, *ARRAYS, *cell_columns(ds), *sample_columns(ds)]


def test_every_column_has_a_name_and_no_field_is_a_path(columns):
    for column in columns:
        assert column["headerName"].strip()
        assert "." not in column["field"]


def test_the_script_has_the_functions_that_columns_name(columns):
    grid = table("t", columns, [], "a table", selected=[]).children[1].to_plotly_json()["props"]
    for called in re.findall(r'"function": "(\w+)\(', json.dumps(grid)) + ["openRow", "selectRow"]:
        assert f"functions.{called} =" in SCRIPT
    for component in re.findall(r'"cellRenderer": "(\w+)"', json.dumps(grid)):
        assert f"components.{component} =" in SCRIPT


def test_nothing_is_run_or_read_as_markup():
    grid = table(
        "t", [text_column("name", "name", 80)], [{"id": "0", "name": "<img src=x onerror=alert(1)>"}], "a table"
    )
    props = grid.children[1].to_plotly_json()["props"]
    assert "dangerously_allow_code" not in props
    assert "markdown" not in json.dumps(props)
    assert "innerHTML" not in SCRIPT


def test_a_row_reacts_to_mouse_and_keyboard():
    listens = table("t", [], [], "a table").children[1].eventListeners
    assert listens["rowClicked"] == listens["cellKeyDown"] == ["openRow(params)"]
    assert listens["cellFocused"] == []
    selects = table("t", [], [], "a table", selected=[]).children[1]
    assert selects.eventListeners["cellFocused"] == ["selectRow(params)"]
    assert selects.eventListeners["rowClicked"] == []
    assert selects.dashGridOptions["rowSelection"]["mode"] == "singleRow"


def test_a_table_has_a_name_for_screen_readers():
    frame = table("t", [], [], "a table", height="10px").to_plotly_json()["props"]
    assert (frame["id"], frame["role"], frame["aria-label"], frame["style"]) == (
        "t-frame", "group", "a table", {"height": "10px"},
    )  # fmt: skip


@pytest.mark.parametrize(("rows", "most", "shown"), [(0, 7, 1), (1, 7, 1), (7, 7, 7), (50, 7, 7), (5, 16, 5)])
def test_the_height_fits_the_rows(rows, most, shown):
    assert HEADER + shown * ROW <= int(height_of(rows, most).removesuffix("px")) < HEADER + (shown + 0.5) * ROW


def test_numbers_sort_and_filter_as_numbers_and_texts_as_texts():
    assert number_column("n", "n", 50)["filter"] == "agNumberColumnFilter"
    assert interval_column("n", "n", 50, digits=2)["valueFormatter"] == {
        "function": "interval(params.value, params.data.n_low, params.data.n_high, 2)"
    }
    assert number_column("n", "n", 50, filter=False)["filter"] is False
    assert "filter" not in text_column("w", "w", 50)
    assert badge_column("w", "w", 50)["cellRenderer"] == "Badges"


def test_a_severity_has_a_symbol_that_the_script_knows():
    for severity in ("alarm", "warning"):
        symbol, text = badge(severity, "unstable").split()
        assert text == "unstable"
        assert f'"{symbol}": "{severity}"' in SCRIPT


def test_columns_are_set_only_where_they_changed():
    columns = [text_column("name", "name", 80), number_column("n", "n", 50)]
    assert changed_columns(columns, json.loads(json.dumps(columns))) is no_update
    assert changed_columns(columns, columns[:1]) == columns
