"""The widget of `ds.gradscope.show()` in Chromium: what is seen follows the cursor, and nothing is fetched."""

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import differs
from notebook_page import ADDRESS, show
from playwright.sync_api import Page
from small_store import BAD, evaluated, save

import gradscope


@pytest.fixture(scope="module")
def ds(tmp_path_factory):
    return gradscope.open(save(evaluated(), tmp_path_factory.mktemp("view") / "small.zarr"))


@pytest.fixture
def page(browser):
    problems: list[str] = []
    page: Page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith((ADDRESS, "blob:", "data:")) else
            problems.append(request.url))  # fmt: skip
    yield page
    page.close()
    assert problems == []


def mark_of(page: Page) -> float:
    """The timestep at which the mark of the first curve lies."""
    return page.evaluate(
        """() => {
            const figure = document.querySelector(".gs-curve");
            const axis = figure._fullLayout.xaxis, box = figure.getBoundingClientRect();
            const mark = [...figure.querySelectorAll(".marks > div")].find((each) => each.offsetHeight > 20);
            return axis.p2d(mark.getBoundingClientRect().left - box.left - axis._offset);
        }"""
    )


def test_a_finding_and_its_cursor(page, ds):
    view = ds.gradscope.show(finding=0)
    show(page, view)
    page.wait_for_selector(".gs-curve .marks", state="attached")
    assert "alarm: unstable" in page.locator(".gs-finding").inner_text()
    assert view.finding.evidence in page.locator(".gs-finding").inner_text()
    assert page.locator(".gs-maps figure b").all_inner_texts() == ["gradient", "update", "x_t", "x0-hat"]
    assert mark_of(page) == pytest.approx(view.timestep, abs=2)
    slider = page.get_by_label("timestep")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        slider.press(key)
    page.wait_for_function(f"document.querySelector('output').textContent.startsWith('t = {view.timestep:g},')")
    at = ds.sel(view.cursor).load()
    for place, (name, kind) in enumerate(
        {"gradient": "signed", "x_t": "image", "pred_original_sample": "image"}.items()
    ):
        picture = page.locator(".gs-maps figure img").nth((0, 2, 3)[place])
        page.wait_for_function("[...document.images].every((each) => each.complete)")
        assert differs(picture, at[name].values, kind) < 0.05
    norm = page.locator(".gs-maps figcaption span").first.inner_text()
    assert norm == f"norm {np.linalg.norm(at.gradient):.3g}"
    assert mark_of(page) == pytest.approx(view.timestep, abs=2)
    drawn = page.evaluate("document.querySelector('.gs-curve').layout.shapes.at(-1)")
    assert (drawn["x0"], drawn["x1"]) == (view.finding.first_timestep, view.finding.last_timestep)


def test_cells_samples_and_curves_move_it(page, ds):
    view = ds.gradscope.show()
    show(page, view, dark=True)
    page.wait_for_selector(".gs-curve .marks", state="attached")
    page.get_by_role("button", name="non_robust, x_t, no stabiliser, s = 0.5").click()
    pressed = "document.querySelector('[aria-pressed=true]').textContent.startsWith('{}')"
    page.wait_for_function(pressed.format("non_robust, x_t, no stabiliser"))
    assert view.cell == BAD
    page.get_by_label("sample").select_option("3")
    page.wait_for_function("document.querySelector('.gs-target').textContent.startsWith('sample 3,')")
    assert view.sample == 3
    plot = page.locator(".gs-curve").first.locator(".nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    page.wait_for_selector(".hoverlayer .hovertext")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function("document.querySelector('output').textContent.startsWith('t = 700')")
    assert view.timestep == 700
    page.get_by_label("cell").select_option("robust, x0, adam, s = 0.5")
    page.wait_for_function(pressed.format("robust, x0, adam"))
    assert view.cell["stabilizer"] == "adam"
    page.evaluate("window.close()")
    assert page.evaluate("window.model.listeners.length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_accessible(page, ds, dark):
    show(page, ds.gradscope.show(finding=0), dark)
    page.wait_for_selector(".gs-curve .marks", state="attached")
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["impact"]) for each in found if each["impact"] in ("serious", "critical")] == []
