"""A store from a stranger: pages, figures, files and reports show its texts as texts."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlsplit

import hostile_store
import pytest
import small_store
from dash_client import parts
from hostile_store import CLASSES, CODE, FORMULA, LINK, MARKUP, NAMES, PROBE, SCRIPT

from dashboards import create_app
from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.pages import PAGES
from dashboards.state import default
from dashboards.widgets.export import Call, harmless
from gradscope.plots import FIGURES
from gradscope.reporting.html import to_html
from gradscope.reporting.report import report

RECORDED = [MARKUP, LINK, SCRIPT, CODE, PROBE, FORMULA]
CELL = {"classifier": MARKUP, "classifier_input": LINK, "stabilizer": CODE, "guidance_scale": 0.5}
OTHER = CELL | {"classifier": FORMULA}
CALLS = {
    "accuracy": {},
    "belief": {"cells": [CELL, OTHER], "sample": 0},
    "confusion": {"cell": CELL},
    "curves": {"name": PROBE, "cells": [CELL, OTHER], "sample": 0, "focus": CELL},
    "difference": {"name": PROBE, "a": CELL, "b": OTHER},
    "effects": {},
    "finals": {"cell": CELL},
    "forest": {"a": CELL, "b": OTHER},
    "guidance_parts": {"cells": [CELL, OTHER]},
    "magnitudes": {"cell": CELL},
    "pairs": {"name": PROBE, "a": CELL, "b": OTHER},
    "paths": {"cells": [CELL, OTHER], "sample": 0},
    "ridgelines": {"name": PROBE, "cells": [CELL, OTHER]},
    "spectrum": {"cell": CELL},
    "stability": {"name": PROBE},
    "what_was_seen": {"cell": CELL},
}


OF_POINTS = ("finals", "paths")
"""Figures of samples that are points."""
OF_LOOPS = ("guidance_parts", "what_was_seen", "guidance", "loop")
"""Figures and pages of watched loops with classifier-free guidance."""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library([hostile_store.saved(tmp_path_factory.mktemp("hostile"))])


@pytest.fixture(scope="module")
def run(library):
    return library.run(None)


@pytest.fixture(scope="module")
def of(run, tmp_path_factory):
    """The run with what a figure or page shows: ``of("paths")``."""
    folder = tmp_path_factory.mktemp("points")
    points = OpenRun(small_store.save(small_store.of_points(hostile_store.hostile()), folder / "points.zarr"))
    loop = OpenRun(small_store.save(hostile_store.watched(), folder / "loop.zarr"))
    return lambda name: points if name in OF_POINTS else loop if name in OF_LOOPS else run


def drawn(figure):
    """Every text of a figure that plotly reads as markup."""
    found = []

    def look(value, key=""):
        if isinstance(value, dict):
            for name, each in value.items():
                if name not in ("legendgroup", "meta", "customdata", "uirevision"):  # never drawn
                    look(each, name)
        elif isinstance(value, list | tuple):
            for each in value:
                look(each, key)
        elif isinstance(value, str):
            found.append(value)

    look(json.loads(figure.to_json()))
    return found


def tags(text):
    """Names of the tags that a reader of markup would find."""
    return re.findall(r"<\s*/?\s*(\w+)", text)


def test_there_is_a_call_of_every_figure():
    assert set(CALLS) == set(FIGURES)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_figures_show_names_as_text(of, name):
    figure = Call(name, CALLS[name]).draw(of(name))
    assert {tag for text in drawn(figure) for tag in tags(text)} <= {"br", "b", "extra"}  # ours
    shown = "".join(drawn(figure))
    assert "<b>bold" not in shown
    assert any(word in shown for word in ("&lt;img src=x", "&lt;a href", "&lt;/script", "HYPERLINK"))


@pytest.mark.parametrize("name", CALLS)
def test_files_of_numbers_hold_no_formula(of, name):
    text = Call(name, CALLS[name]).csv(of(name))
    for delimiter in ",;\t":
        for row in csv.reader(io.StringIO(text), delimiter=delimiter):
            for cell in row:
                computed = cell.strip().startswith(("=", "@", "+", "-"))
                assert not computed or re.fullmatch(r"\s*[+-]?[\d.]+(e[+-]?\d+)?\s*", cell), cell


def test_harmless_texts_stay_as_they_are():
    for same in ("robust", "x=1", "a-b, c", "-1.5", "+3", "a,-2.5,b", "", 1, -1.5, None, float("inf")):
        assert harmless(same) is same or harmless(same) == same
    assert harmless(FORMULA).startswith("'=")
    assert harmless("a,=1") == "a,'=1"
    assert harmless("a; @x") == "a;' @x"
    assert harmless("-2+3") == "'-2+3"
    assert harmless('a,"=1') == "a,'\"=1"


@pytest.mark.slow
def test_names_cannot_leave_the_file_name_or_the_header(of):
    for name, arguments in CALLS.items():
        run = of(name)
        client = create_app([run.path]).server.test_client()
        answer = client.get(f"/numbers/{run.key}.csv?call={Call(name, arguments).encode()}&view=a%0d%0aX:y%22;")
        assert answer.status_code == 200
        assert re.fullmatch(r"attachment; filename=[\w.+-]+\.csv", answer.headers["Content-Disposition"])
        assert answer.mimetype == "text/csv"


@pytest.mark.parametrize("name", CALLS)
def test_python_holds_names_as_values(run, name):
    """The script only imports, opens, draws and shows; the recorded names are values in it."""
    import ast

    tree = ast.parse(Call(name, CALLS[name]).python(run))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert sorted(calls) == sorted(["gradscope.open", name, "figure.show"])
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert len(imported) == 3
    drawing = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name)
    assert {word.arg: ast.literal_eval(word.value) for word in drawing.keywords} == CALLS[name]


@pytest.mark.parametrize("page", PAGES)
def test_pages_hold_recorded_texts_as_children_alone(of, page):
    """React shows children and these properties as texts; links stay on this host; nothing reads markup."""
    run = of(page)
    made = parts(PAGES[page].layout(run, default(run, page)))
    assert made
    for part in made:
        assert part["type"] not in ("Markdown", "DangerouslySetInnerHTML", "Iframe", "Script", "Location", "Link")
        assert not [key for key in part if "dangerous" in key.lower()]
        for key in ("href", "src", "action"):
            if address := part.get(key):
                assert not urlsplit(address).scheme or address.startswith("data:image/svg+xml,"), address
        style = json.dumps(part.get("style") or {})
        assert not any(text in style for text in RECORDED)
        for row in part.get("rowData") or ():
            assert re.match(r"[a-z]+\?store=[0-9a-f]{8}&", row.get("href", "trajectory?store=00000000&"))
    assert any(text in json.dumps(made, default=str) for text in (json.dumps(MARKUP)[1:-1], json.dumps(SCRIPT)[1:-1]))


def test_the_key_of_a_run_can_stand_in_addresses(run):
    assert re.fullmatch("[0-9a-f]{8}", run.key)
    query = dict(parse_qsl(urlsplit(default(run).to("overview", variables=(PROBE,)).url()).query))
    assert (query["store"], query["variables"]) == (run.key, PROBE)


class Tags(HTMLParser):
    """The tags of a page, outside of scripts."""

    def __init__(self):
        super().__init__()
        self.found, self.words = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.slow
def test_the_report_holds_recorded_texts_as_texts(run):
    page = Tags()
    html = to_html(report(run.ds), run.ds)
    page.feed(html)
    assert not [tag for tag, _ in page.found if tag in ("img", "svg", "iframe", "object")]
    assert not [attrs for _, attrs in page.found if any(name.startswith("on") for name in attrs)]
    assert {attrs["href"][:1] for tag, attrs in page.found if tag == "a"} == {"#"}
    assert MARKUP in "".join(page.words)
    assert "<script>window.pwned" not in html
    assert "</script><script>" not in html
    assert "<b>bold" not in html
    assert CLASSES[0] == SCRIPT
    assert NAMES["classifier"][0] == MARKUP
