"""Samples that are no images in the browser: what is drawn, said and clicked, against the store."""

import any_sample
import chromium
import numpy as np
import pytest
from any_sample import CELLS, SAMPLES, SHAPES

import gradscope
from dashboards import pages
from dashboards.data.library import Library

NOT_FINITE = ((1, 0, 0, 1), 1, 3, np.nan)
KINDS = sorted(set(SHAPES) - {"image"})


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """The path of a store of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: any_sample.save(folder / f"{kind}.zarr", kind, marred=[NOT_FINITE]) for kind in KINDS}


@pytest.fixture(scope="module")
def served(kinds):
    with chromium.served(list(kinds.values())) as address:
        yield address


@pytest.fixture
def opened(served, visit, kinds):
    """Opens a page of a kind's store: cell 3, sample 1, step 2."""
    keys = dict(zip(kinds, Library(list(kinds.values())).runs, strict=True))

    def go(kind, page):
        return visit(f"{served}{page}?store={keys[kind]}&cell=3&sample=1&t={any_sample.grid(kind).timestep[2]}")

    return go


def tensor(kinds, kind, name, step):
    values = gradscope.open(kinds[kind])[name].values
    return values.reshape(np.prod(CELLS), SAMPLES, any_sample.TIMESTEPS, *SHAPES[kind][0])[3, 1, step]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("page", pages.PAGES)
def test_every_page_of_every_kind_opens_without_an_error(opened, kind, page):
    shown = opened(kind, page)
    assert shown.locator(".nav a[aria-current=page]").count() == 1
    assert "That did not work" not in shown.locator("body").inner_text()


def test_curves_follow_the_cursor(opened, kinds):
    page = opened("signal", "trajectory")
    assert page.locator(".how-drawn").inner_text() == "A line for each channel, over time."
    assert page.locator(".line-names li").all_inner_texts() == ["channel 0", "channel 1"]
    large = page.locator('.focus-maps figure:has([data-tensor="x_t"])')
    for step in (2, 4):
        limit = np.abs(tensor(kinds, "signal", "x_t", step)).max()
        large.locator(".low", has_text=f"up to ±{limit:.3g}").wait_for()  # a busy machine paints it late
        chromium.settle(page)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")


def test_a_curve_on_the_screen_is_that_of_the_store(opened, kinds):
    page = opened("series", "trajectory")
    chromium.settle(page)
    shot = chromium.pixels(page.locator('.focus-maps [data-tensor="x_t"]'), (120, 180))
    values = tensor(kinds, "series", "x_t", 2)
    near = shot[..., 0] < 140  # the line has no red, the axis and the background have much
    columns = (180 * (np.arange(24) + 0.5) / 24).astype(int)
    seen = [60 - (np.flatnonzero(near[:, column]).mean() + 0.5) for column in columns]
    assert np.corrcoef(seen, values)[0, 1] > 0.98


def test_what_is_not_finite_is_said(opened):
    page = opened("point", "trajectory")
    page.keyboard.press("ArrowRight")
    chromium.settle(page)
    assert page.locator("#nonfinite").inner_text() == (
        "magenta: elements that are not finite (non_robust, x_t, no stabiliser, s = 0.5: 2)"
    )
    corner = chromium.pixels(page.locator('.focus-maps [data-tensor="gradient"]'), (160, 160))[2, 80]
    assert np.abs(corner - (255, 0, 255)).max() < 30


def test_a_click_on_a_point_opens_its_trajectory(opened):
    page = opened("point", "samples")
    page.locator("#samples-points .js-plotly-plot .nsewdrag").wait_for()
    drawn = page.locator("#samples-points .scatterlayer .trace").nth(2).locator(".point").first
    box = drawn.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(200)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url("**/trajectory?**")
    chromium.settle(page)
    assert int(chromium.query(page)["sample"]) % any_sample.CLASSES == 2


def test_what_cannot_be_drawn_is_said_beside_its_curves(opened):
    page = opened("table", "trajectory")
    assert "a sample of shape 3 x 4 over row, column cannot be drawn" in page.locator("#maps-note").inner_text()
    assert page.locator(".missing:visible").count() == 0
    assert page.locator("#curve-0 .main-svg").count() > 0
    page = opened("table", "samples")
    assert "A sample of shape 3 x 4 over row, column cannot be drawn" in page.locator(".not-drawn").inner_text()
    assert page.locator(".thumb").count() == SAMPLES
    assert page.locator(".thumb-picture").count() == 0
