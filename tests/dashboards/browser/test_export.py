"""Exported pictures, scripts and numbers state their origin, and hold the store's values."""

import base64
import io
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

import gradscope
from dashboards.data.library import Library
from gradscope.analysis.cells import cell_name

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
        assert drawn.count("<path") + drawn.count("<text") > 20
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


def tables(page) -> list[str]:
    """Names of the tables that have a button."""
    return page.eval_on_selector_all("[data-table]", "(all) => all.map((each) => each.dataset.name)")


def saved_table(page, name: str) -> tuple[str, str, pd.DataFrame]:
    """Name of the file, its first lines, and the table."""
    with page.expect_download() as download:
        page.locator(f"[data-table][data-name={name}]").click()
    text = download.value.path().read_text()
    origin = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    return download.value.suggested_filename, origin, pd.read_csv(io.StringIO(text), comment="#")


def test_files_name_store_cell_diagnostic_and_sample(url, visit, run):
    page = visit(f"{url}trajectory?cell=1&sample=2&cells=2&variables=gradient_norm")
    page.locator("[id='menu-curve-0'] summary").click()
    cell = "_".join(f"{part:g}" if isinstance(part, float) else part for part in dict(run.cells[1]).values())
    for what in ("SVG", "PNG", "CSV"):
        with page.expect_download() as download:
            page.locator("[id='menu-curve-0']").get_by_text(what, exact=True).click()
        name = f"{run.path.stem}_{cell}_gradient_norm_sample2.{what.lower()}"
        assert download.value.suggested_filename == name


def test_a_pdf_is_printed_as_large_as_the_figure(url, visit):
    page = visit(f"{url}overview")
    page.evaluate("() => (HTMLIFrameElement.prototype.remove = () => {})")  # a browser without screen prints at once
    page.locator("[id='menu-stability'] summary").click()
    page.locator("[id='menu-stability']").get_by_text("PDF").click()
    page.wait_for_function("() => document.querySelector('iframe')?.contentDocument.querySelector('svg')")
    style, width, texts, title = page.evaluate(
        """() => {
            const inside = document.querySelector("iframe").contentDocument;
            const svg = inside.querySelector("svg");
            const style = inside.querySelector("style").textContent;
            return [style, svg.getAttribute("width"), svg.textContent, inside.title];
        }"""
    )
    assert f"size: {width}px" in style
    assert "configuration" in texts
    assert title.endswith("_stability")


def test_maps_are_saved_as_they_are_shown(url, visit, ds, run):
    sample, step = 2, 6
    t = int(ds["timestep"].values[step])
    page = visit(f"{url}trajectory?cell=1&sample={sample}&t={t}&cells=3")
    page.locator(".map-export summary").click()

    def file(what):
        with page.expect_download() as download:
            page.locator(".map-export").get_by_text(what, exact=True).click()
        return download.value.suggested_filename, download.value.path().read_bytes()

    here = ds.sel(run.cells[1]).isel(sample=sample, timestep=step)
    name, content = file("npy: x_t")
    assert name.endswith(f"_x_t_t{t}_sample{sample}.npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(content)), here["x_t"].values)

    name, content = file("SVG, focused cell")
    assert name.startswith(f"{run.path.stem}_")
    assert name.endswith(f"_maps_t{t}_sample{sample}.svg")
    svg = content.decode()
    for text in (run.key, f"trajectory?store={run.key}", "norm ", *run.tensors):
        assert text in svg
    pictures = [base64.b64decode(part) for part in re.findall(r'href="data:image/png;base64,([^"]+)"', svg)]
    drawn = dict(zip(run.tensors, pictures, strict=True))
    seen = np.asarray(Image.open(io.BytesIO(drawn["pred_original_sample"])).convert("RGB"), dtype=float)
    wanted = np.moveaxis(here["pred_original_sample"].values.clip(-1, 1), 0, -1)
    np.testing.assert_allclose(seen, 127.5 * (wanted + 1), atol=0.51)

    _, content = file("PNG, focused cell")
    assert Image.open(io.BytesIO(content)).width >= 4 * 256
    _, content = file("SVG, all cells")
    assert content.decode().count("<image") == 2 * len(run.tensors)
    name, content = file("GIF along t")
    assert name.endswith(f"_trajectory_sample{sample}.gif")
    assert Image.open(io.BytesIO(content)).n_frames == ds.sizes["timestep"]


def test_tables_are_saved_as_they_are_shown(url, visit, ds, run):
    page = visit(f"{url}overview")
    assert {"findings", "cells"} <= set(tables(page))
    file, origin, table = saved_table(page, "cells")
    assert file == f"{run.path.stem}_cells.csv"
    assert f"# store: {run.path.name}\n" in origin
    assert f"# view: overview?store={run.key}" in origin
    right = (ds["judge_prediction"] == ds["label"]).mean("sample")
    guided = [cell for cell in run.cells if cell["guidance_scale"]]
    rows = table.set_index("cell")
    assert len(table) == len(guided) + 4  # the unguided cells of a guide and an input share a row
    for cell in guided:
        row, here = rows.loc[cell_name(cell)], float(right.sel(cell))
        np.testing.assert_allclose(row["judge"], here)
        assert row["judge_low"] <= here <= row["judge_high"]
    page.evaluate(
        """() => {
            const api = dash_ag_grid.getApi("cells-table");
            api.applyColumnState({ state: [{ colId: "gradient_cosine", sort: "desc" }] });
            api.setFilterModel({ cell: { filterType: "text", type: "contains", filter: "x0" } });
        }"""
    )
    _, _, chosen = saved_table(page, "cells")
    wanted = table[table["cell"].str.contains("x0")].sort_values("gradient_cosine", ascending=False)
    assert chosen["gradient_cosine"].tolist() == wanted["gradient_cosine"].tolist()
    assert sorted(chosen["cell"]) == sorted(wanted["cell"])


@pytest.mark.parametrize(("name", "expected"), [("samples", {"samples"}), ("run", {"progress", "arrays"})])
def test_the_tables_of_other_pages_are_saved(url, visit, name, expected):
    page = visit(f"{url}{name}")
    assert expected <= set(tables(page))
    for each in expected:
        assert len(saved_table(page, each)[2]) > 0


def test_the_table_of_differences_is_saved(url, visit):
    page = visit(f"{url}compare?cell=0&other=1")
    _, _, table = saved_table(page, "differences")
    assert list(table)[:4] == ["quantity", "a", "b", "b − a"]
    assert len(table) == page.locator("#compare-table tbody tr").count()


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
