"""Every page: without error, accessible and readable in light and dark, on a small screen and on a large one."""

import chromium
import pytest

WIDE = {"width": 3840, "height": 2160}
READABLE = 4.5
"""Contrast of small text by WCAG 2.2 AA."""
WORDS = ".js-plotly-plot .main-svg :is(.xtick, .ytick, .g-xtitle, .g-ytitle, .annotation) text, .ag-header-cell-text"
_CUT = """() => [...document.querySelectorAll(".ag-header-cell-text, .ag-cell")]
    .filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.textContent)"""
_CONTRASTS = """(selector) => {
    const brush = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const parse = (colour) => {
        brush.clearRect(0, 0, 1, 1);
        brush.fillStyle = colour;
        brush.fillRect(0, 0, 1, 1);
        return [...brush.getImageData(0, 0, 1, 1).data];
    };
    const light = (channel) => (channel /= 255) <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.05 + 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
    const behind = (each) => {
        for (; each; each = each.parentElement) {
            const colour = parse(getComputedStyle(each).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll(selector)].filter((each) => each.textContent.trim()).map((each) => {
        const style = getComputedStyle(each);
        const ink = luminance(parse(each instanceof SVGElement ? style.fill : style.color));
        const paper = luminance(behind(each));
        return [each.textContent, Math.max(ink, paper) / Math.min(ink, paper)];
    });
}"""


@pytest.mark.parametrize("name", chromium.USUAL)
def test_every_page_is_readable_in_light_and_dark_and_at_any_size(url, visit, name):
    page = visit(f"{url}{name}")
    assert page.locator(f"#to-{name}").get_attribute("aria-current") == "page"
    assert page.locator("#notices").inner_text() == ""
    assert page.locator("#page").inner_text().strip() != ""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.locator(f"html[data-mantine-color-scheme={scheme}]").wait_for()
        page.wait_for_timeout(300)  # colours fade over
        assert chromium.serious(page) == []
        assert [(text, contrast) for text, contrast in page.evaluate(_CONTRASTS, WORDS) if contrast < READABLE] == []
    for size in (chromium.SIZE, WIDE):
        page.set_viewport_size(size)
        page.wait_for_function("() => document.documentElement.scrollWidth <= innerWidth")
        page.wait_for_timeout(300)  # tables take the new width
        assert page.evaluate(_CUT) == []
    right = "(all) => Math.max(...all.map((each) => each.getBoundingClientRect().right))"
    assert page.eval_on_selector_all("#page *", right) > 0.9 * WIDE["width"]


def test_the_switch_changes_page_figures_and_tables_at_once_and_is_remembered(url, visit):
    page = visit(f"{url}overview", color_scheme="light")
    before = colours(page)
    page.get_by_label("dark or light").click()
    page.wait_for_timeout(300)
    after = colours(page)
    assert all(new != old for new, old in zip(after, before, strict=True))
    page.reload()
    chromium.settle(page)
    assert colours(page) == after


def colours(page) -> list[str]:
    """Colours of the page, of the texts in its figures, and of its tables."""
    return page.evaluate(
        """() => [
            getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector(".js-plotly-plot .xtick text")).fill,
            getComputedStyle(document.querySelector(".ag-row .ag-cell")).color,
            getComputedStyle(document.querySelector(".ag-root-wrapper")).backgroundColor,
        ]"""
    )
