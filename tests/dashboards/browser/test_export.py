"""Exported pictures, scripts and numbers state their origin, and hold the store's values."""

import io

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

import gradscope
from dashboards.data.library import Library

FIGURES = {
    "overview": ("stability",),
    "trajectory": ("curves", "belief"),
    "compare": ("forest", "difference", "pairs"),
    "distributions": ("ridgelines", "magnitudes", "spectrum"),
}
_TRACES = """(id) => {
    const graph = document.getElementById(id).querySelector(".js-plotly-plot");
    const plain = (values) => (values ? Array.from(values, (v) => (ArrayBuffer.isView(v) ? Array.from(v) : v)) : null);
    return graph._fullData.map((trace) => [trace.type, plain(trace.x), plain(trace.y), plain(trace.z)]);
}"""


@pytest.fixture(scope="module")
def ds(both):
    return gradscope.open(both)


@pytest.fixture(scope="module")
def run(both):
    return Library([both]).run(None)


def saved(page, graph: str, what: str) -> bytes:
    """The file that a click in the menu of a figure downloads."""
    menu = page.locator(f"[id='menu-{graph}']")
    if not menu.locator("details").evaluate("(each) => each.open"):
        menu.locator("summary").click()
    with page.expect_download() as download:
        menu.get_by_text(what, exact=True).click()
    return download.value.path().read_bytes()


def copied(page, graph: str) -> str:
    """The text that "copy as Python" puts into the clipboard."""
    page.locator(f"[id='menu-{graph}']").get_by_text("copy as Python").click()
    page.locator("#announcement", has_text="Python copied").wait_for()
    page.locator(f"[id='menu-{graph}'] summary").click()
    return page.evaluate("() => navigator.clipboard.readText()")


def graphs(page) -> list[str]:
    return page.eval_on_selector_all(".card .dash-graph", "(all) => all.map((each) => each.id)")


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_of_a_page_is_saved_with_its_stamp_and_drawn_by_its_python(url, visit, ds, run, monkeypatch, name):
    monkeypatch.setattr(go.Figure, "show", lambda *_, **__: None)
    page = visit(f"{url}{name}")
    found = graphs(page)
    assert len(found) >= len(FIGURES[name])
    for graph in found:
        drawn = saved(page, graph, "SVG").decode()
        for part in (run.key, ds.attrs["configuration_hash"][:8], run.path.name, name):
            assert part in drawn
        assert drawn.count("<path") > 10
        python = copied(page, graph)
        scope: dict = {}
        exec(python, scope)
        seen = page.evaluate(_TRACES, graph)
        assert len(seen) == len(scope["figure"].data) > 0
        for (kind, *axes), trace in zip(seen, scope["figure"].data, strict=True):
            assert kind == trace.type
            for axis, shown in zip("xyz", axes, strict=True):
                same(shown, getattr(trace, axis, None))


def test_a_picture_is_dark_on_white_with_its_stamp_below(url, visit):
    page = visit(f"{url}overview", color_scheme="dark")
    picture = Image.open(io.BytesIO(saved(page, "stability", "PNG"))).convert("L")
    assert picture.width >= page.locator("#stability").bounding_box()["width"]
    grey = np.asarray(picture)
    assert grey[0, 0] == 255
    assert (grey[-60:, : picture.width // 2] < 128).sum() > 100


def test_csv_has_the_numbers_of_the_store(url, visit, ds, run):
    page = visit(f"{url}overview?variables=gradient_cosine")
    text = saved(page, "stability", "CSV").decode()
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    for part in (ds.attrs["run_id"], ds.attrs["configuration_hash"], "overview?store=", '"gradient_cosine"'):
        assert part in header
    table = pd.read_csv(io.StringIO(text), comment="#")
    values = ds["gradient_cosine"].mean("sample")
    assert len(table) == values.size
    for row in table.itertuples():
        here = values.sel(
            classifier=row.classifier, classifier_input=row.classifier_input, stabilizer=row.stabilizer,
            guidance_scale=row.guidance_scale, timestep=row.timestep,
        )  # fmt: skip
        np.testing.assert_allclose(row.mean, float(here), rtol=1e-5)


def test_csv_of_curves_has_the_quantiles_over_samples(url, visit, ds, run):
    page = visit(f"{url}trajectory?cell=1&sample=2&cells=2&variables=gradient_norm")
    table = pd.read_csv(io.StringIO(saved(page, "curve-0", "CSV").decode()), comment="#")
    values = ds["gradient_norm"].sel(run.cells[1]).values.astype(float)
    by_step = table.set_index("timestep").loc[ds["timestep"].values]
    np.testing.assert_allclose(by_step["mean"], values.mean(axis=0), rtol=1e-5)
    for share in (5, 25, 75, 95):
        np.testing.assert_allclose(by_step[f"q{share:02}"], np.percentile(values, share, axis=0), rtol=1e-5)
    np.testing.assert_allclose(by_step["value"], values[2], rtol=1e-5)


def same(shown: list | None, drawn) -> None:
    """Compare values of the page's figure with those of the script's."""
    if drawn is None:
        return
    for one, other in zip(flat(shown), flat(drawn), strict=True):
        if isinstance(other, str):
            assert one == other
        else:
            np.testing.assert_allclose(np.nan if one is None else one, np.nan if other is None else other, rtol=1e-6)


def flat(values) -> list:
    nested = (flat(value) if isinstance(value, list | tuple | np.ndarray) else [value] for value in values)
    return [each for part in nested for each in part]
