"""Export of figures: numbers as CSV, Python, the call in a URL, and pictures with their origin."""

import base64
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import chromium
import numpy as np
import pandas as pd
import plotly
import pytest
import small_store
from flask import Flask
from small_store import BAD, GOOD

from dashboards.data.library import Library
from dashboards.widgets.export import Call, register, stamp
from gradscope.analysis.by_class import of_class
from gradscope.errors import GradscopeError
from gradscope.plots import FIGURES

CALLS = [
    Call("accuracy", {}),
    Call("confusion", {"cell": GOOD}),
    Call("curves", {"name": "log_prob", "cells": [GOOD, BAD], "sample": 3, "focus": GOOD}),
    Call("difference", {"name": "log_prob", "a": GOOD, "b": BAD, "highlight": [1, 2]}),
    Call("effects", {}),
    Call("forest", {"a": GOOD, "b": BAD}),
    Call("magnitudes", {"cell": GOOD}),
    Call("pairs", {"name": "final log_prob", "a": GOOD, "b": BAD}),
    Call("ridgelines", {"name": "gradient_norm", "cells": [GOOD], "timesteps": 3}),
    Call("spectrum", {"cell": BAD}),
    Call("stability", {"name": "gradient_cosine"}),
]
RUN_LATER = Call("curves", {"name": "gradient_cosine", "cells": [GOOD, BAD], "sample": 2, "focus": BAD})


@pytest.fixture(scope="module")
def client(library):
    server = Flask("test")
    register(server, library, "/below/")
    return server.test_client()


def read(text):
    """Header and table of a CSV."""
    lines = text.splitlines(keepends=True)
    head = [line for line in lines if line.startswith("#")]
    about = dict(line[2:].rstrip("\n").split(": ", 1) for line in head)
    return about, pd.read_csv(io.StringIO("".join(lines[len(head) :])))


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.figure)
def test_the_csv_holds_the_numbers(run, call):
    about, table = read(call.csv(run, "/trajectory?t=499"))
    numbers = FIGURES[call.figure].numbers(small_store.evaluated(), **call.arguments)
    if call.figure == "confusion":
        numbers = numbers.reset_index(names="Unnamed: 0")
    assert list(table) == list(numbers)
    for column in numbers:
        if numbers[column].dtype.kind == "f":
            np.testing.assert_allclose(table[column], numbers[column].astype(np.float64), rtol=1e-6)
        else:
            assert table[column].fillna("").tolist() == numbers[column].tolist()
    assert about["run_id"] == "5f0c"
    assert about["configuration_hash"] == "abcd"
    assert about["store"] == "small.zarr"
    assert about["view"] == "/trajectory?t=499"
    assert about["figure"] == call.figure
    assert json.loads(about["arguments"]) == call.arguments


@pytest.mark.parametrize("call", [CALLS[2], CALLS[3], CALLS[5], CALLS[10]], ids=lambda call: call.figure)
def test_a_figure_of_one_class_says_so_in_every_export(run, call):
    label = 3  # of sample 3, whose own line the first figure shows
    one = Call(call.figure, call.arguments, label)
    about, table = read(one.csv(run))
    assert about["class"] == small_store.CLASSES[label]
    ds = small_store.evaluated()
    numbers = FIGURES[call.figure].numbers(of_class(ds, label), **call.arguments)
    np.testing.assert_allclose(table.select_dtypes("number"), numbers.select_dtypes("number"), rtol=1e-6)
    assert Call.decode(one.encode()) == one != call
    ran = {}
    exec(one.python(run).replace("figure.show(config=PLOTLY_CONFIG)", ""), ran)  # noqa: S102
    assert ran["figure"] == one.draw(run)
    with pytest.raises(GradscopeError, match="no sample has the class 7; one of: 0, 1, 2, 3"):
        Call(call.figure, call.arguments, 7).draw(run)


def test_the_csv_has_the_attributes_of_the_numbers(run):
    about, _ = read(CALLS[3].csv(run))
    (cluster,) = CALLS[3].numbers(run).attrs["clusters"]
    assert json.loads(about["clusters"]) == [cluster | {"p": None}]  # of 16 samples there is none
    assert "coordinates" not in about
    assert "view" not in about


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.figure)
def test_python_draws_the_same_figure_from_the_store(run, call):
    script = call.python(run)
    assert script.startswith(f"# {stamp(run)}\n")
    namespace = {}
    exec(script.replace("figure.show(config=PLOTLY_CONFIG)\n", ""), namespace)
    assert namespace["figure"] == call.draw(run)
    assert namespace["PLOTLY_CONFIG"] == {"showSendToCloud": False, "displaylogo": False}


@pytest.mark.slow
def test_python_runs_on_its_own(run, tmp_path):
    shown = tmp_path / "figure.json"
    show = f"open({str(shown)!r}, 'w').write(figure.to_json())"
    script = RUN_LATER.python(run).replace("figure.show(config=PLOTLY_CONFIG)", show)
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
    assert json.loads(shown.read_text()) == json.loads(RUN_LATER.draw(run).to_json())


def test_names_of_a_store_add_neither_code_nor_lines(tmp_path):
    ds = small_store.evaluated().assign_coords(classifier=["'); raise SystemExit('", "# forged: yes"])
    cells = [GOOD | {"classifier": name} for name in ds["classifier"].values.tolist()]
    path = tmp_path / "it's a\nstore.zarr"
    run = Library([small_store.save(ds, path)]).run(None)
    call = Call("curves", {"name": "log_prob", "cells": cells})
    namespace = {}
    exec(call.python(run).replace("figure.show(config=PLOTLY_CONFIG)\n", ""), namespace)
    assert namespace["figure"] == call.draw(run)
    assert stamp(run).endswith("store it's a store.zarr")
    head = itertools.takewhile(lambda line: line.startswith("#"), call.csv(run, "/x\n# forged: too").splitlines())
    assert not any(line.startswith("# forged") for line in head)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.figure)
def test_a_call_comes_back_from_its_text(call):
    text = call.encode()
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    assert Call.decode(text) == call


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("!", "cannot be read"),
        ("e30", "cannot be read"),
        ("x" * 9000, "9000 characters; at most 8192"),
        (Call("curvs", {}).encode(), "unknown figure 'curvs'; did you mean 'curves'"),
        (Call("curves", {"name": "log_prob"}).encode(), "curves: missing a required argument: 'cells'"),
        (
            Call("stability", {"name": "a", "path": "/"}).encode(),
            "stability: got an unexpected keyword argument 'path'",
        ),
        (Call("stability", {"name": 3}).encode(), "stability: name: Input should be a valid string"),
        (Call("curves", {"name": "a", "cells": "all"}).encode(), "curves: cells: "),
        (Call("spectrum", {"cell": {}, "samples": "8"}).encode(), "spectrum: samples: Input should be a valid integer"),
        (Call("spectrum", [1]).encode(), "cannot be read"),
    ],
)
def test_a_text_that_is_not_a_call_is_refused(text, message):
    with pytest.raises(GradscopeError, match=message):
        Call.decode(text)


def test_figures_and_numbers_are_kept_until_the_store_changes(run):
    call, same = CALLS[2], Call(CALLS[2].figure, dict(CALLS[2].arguments))
    assert same.draw(run) is call.draw(run)
    assert same.numbers(run) is call.numbers(run)
    assert call.draw(run) is not RUN_LATER.draw(run)


def test_numbers_over_http(client, run):
    call = CALLS[2]
    answer = client.get(f"/below/numbers/{run.key}.csv?call={call.encode()}&view=/trajectory?t=1")
    assert answer.status_code == 200
    assert answer.mimetype == "text/csv"
    file = "small_robust_x_t_none_0.5_log_prob_sample3.csv"
    assert answer.headers["Content-Disposition"] == f"attachment; filename={file}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.text == call.csv(run, "/trajectory?t=1")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nothing.csv?call=x", "run 'nothing': one of 5f0c"),
        ("5f0c.csv", "call: cannot be read"),
        (f"5f0c.csv?call={Call('stability', {'name': 'gradient'}).encode()}", "gradient is not a diagnostic"),
        (f"5f0c.csv?call={Call('spectrum', {'cell': {}}).encode()}", "which classifier"),
        (f"5f0c.csv?call={Call('magnitudes', {'cell': GOOD, 'samples': 10**6}).encode()}", "from 1 to 4096"),
    ],
)
def test_an_unknown_run_or_figure_is_answered_in_a_line(client, address, message):
    answer = client.get(f"/below/numbers/{address}")
    assert answer.status_code == 404
    assert answer.mimetype == "text/plain"
    assert message in answer.text


def test_a_store_that_cannot_be_opened_is_answered_in_a_line(tmp_path):
    library = Library([tmp_path])
    server = Flask("test")
    register(server, library, "/")
    answer = server.test_client().get(f"/numbers/{next(iter(library.runs))}.csv?call=x")
    assert answer.status_code == 404
    assert "is not a zarr store" in answer.text


PAGE = """<html><body>
<div id="figure"><div class="js-plotly-plot" id="graph" style="width: 500px; height: 300px"></div></div>
<button data-export="svg" data-name="figure" data-figure="figure" data-stamp="run 5f0c · store &lt;i&gt;.zarr"></button>
<button data-export="png" data-name="figure" data-figure="figure" data-stamp="run 5f0c">PNG</button>
<button data-export="python" data-code="print(1 &lt; 2)">Python</button>
<a href="numbers/5f0c.csv?call=abc" download="x.csv">CSV</a>
<script src="plotly.js"></script>
<script>
  const saved = { messages: [] };
  window.gradscope = { copy: (text, message) => (saved.python = text), say: (text) => saved.messages.push(text) };
  HTMLAnchorElement.prototype.click = function () { saved[this.download] = this.href; };
</script>
<script src="export.js"></script>
<script>
  const figure = FIGURE;
  Plotly.newPlot("graph", figure.data, figure.layout).then(async (graph) => {
    const before = JSON.stringify([graph.layout, graph.data]);
    document.querySelectorAll("[data-export]").forEach((button) => button.click());
    const link = document.querySelector("a[download]");
    link.addEventListener("click", (event) => event.preventDefault());
    link.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
    saved.csv = link.getAttribute("href");
    while (!saved["figure.svg"] || !saved["figure.png"]) await new Promise((done) => setTimeout(done, 20));
    saved.before = before;
    saved.after = JSON.stringify([graph.layout, graph.data]);
    document.body.innerHTML = `<pre>${btoa(unescape(encodeURIComponent(JSON.stringify(saved))))}</pre>`;
  });
</script></body></html>"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Files that the export buttons save, for a figure on a dark page with a hidden legend."""
    folder = tmp_path_factory.mktemp("page")
    figure = {
        "data": [{"y": [1, 3, 2], "name": name} for name in ("first", "second")],
        "layout": {
            "paper_bgcolor": "black",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "font": {"color": "#eee"},
            "showlegend": False,
            "meta": {"timestep": True, "legend": True},
        },
    }
    (folder / "page.html").write_text(PAGE.replace("FIGURE", json.dumps(figure)))
    (folder / "plotly.js").write_text(plotly.offline.get_plotlyjs())
    script = Path(__file__).parents[2] / "dashboards" / "assets" / "export.js"
    (folder / "export.js").write_text(script.read_text())
    address = f"{(folder / 'page.html').as_uri()}?store=5f0c&t=3&variables={'gradient_cosine,' * 12}"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    out = subprocess.run(
        [chromium.executable(), *flags, "--virtual-time-budget=20000", "--dump-dom", address],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return json.loads(base64.b64decode(re.search("<pre>(.*)</pre>", out.stdout)[1]))


@pytest.mark.browser
def test_a_saved_picture_is_dark_on_white_with_legend_and_origin(saved):
    svg = ElementTree.fromstring(unquote(saved["figure.svg"].removeprefix("data:image/svg+xml,")))
    texts = ["".join(each.itertext()) for each in svg.iter("{http://www.w3.org/2000/svg}tspan")]
    assert "run 5f0c · store <i>.zarr" in texts
    view = "".join(text for text in texts if "gradient_cosine" in text or text.startswith("page.html"))
    assert view == f"page.html?store=5f0c&t=3&variables={'gradient_cosine,' * 12}"
    drawn = [each for each in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"first", "second"} <= {"".join(each.itertext()) for each in drawn}
    assert all("fill: rgb(26, 26, 26)" in each.get("style", "") for each in drawn if "".join(each.itertext()))
    backgrounds = [each.get("style") for each in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert backgrounds[0] == "fill: rgb(255, 255, 255); fill-opacity: 1;"
    assert float(svg.get("width")) == 640
    assert float(svg.get("height")) > 300 + 30
    assert saved["figure.png"].startswith("data:image/png;base64,")
    assert saved["after"] == saved["before"]
    assert saved["messages"] == []


@pytest.mark.browser
def test_python_is_copied_and_numbers_state_their_view(saved):
    assert saved["python"] == "print(1 < 2)"
    query = parse_qs(urlsplit(saved["csv"]).query)
    assert query["call"] == ["abc"]
    assert query["view"][0].startswith("page.html?store=5f0c&t=3")
