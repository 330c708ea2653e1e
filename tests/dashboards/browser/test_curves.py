"""Curves and heat map in a browser: the label under the mouse, buttons, the colour of the cursor, folded rows."""

import chromium


def hovered(page, figure, x, y):
    """Move the mouse to a place of the figure's plot, given as shares, and return the texts of the labels."""
    plot = page.locator(f"#{figure} .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
    page.locator(f"#{figure} .hoverlayer .hovertext").first.wait_for()
    return page.locator(f"#{figure} .hoverlayer .hovertext").all_text_contents()


def test_one_opaque_label_belongs_to_the_nearest_curve(url, visit):
    page = visit(f"{url}trajectory?variables=log_prob,gradient_norm&cell=1")
    for x, y in ((0.3, 0.1), (0.7, 0.9)):
        labels = hovered(page, "curve-0", x, y)
        assert len(labels) == 1
        assert "s = 0.5" in labels[0] or "sample 0" in labels[0]
    style = page.locator("#curve-0 .hoverlayer .hovertext path").first.evaluate(
        "(each) => [getComputedStyle(each).fill, getComputedStyle(each).fillOpacity]"
    )
    assert style == ["rgb(31, 35, 40)", "1"]


def test_the_buttons_of_a_figure_are_above_its_curves(url, visit):
    page = visit(f"{url}trajectory?variables=log_prob&cell=1")
    hovered(page, "curve-0", 0.9, 0.5)
    buttons = page.locator("#curve-0 .modebar").bounding_box()
    plot = page.locator("#curve-0 .nsewdrag").first.bounding_box()
    assert buttons["y"] + buttons["height"] <= plot["y"] + 1


def test_the_cursor_has_a_colour_of_its_own(url, visit):
    page = visit(f"{url}trajectory?variables=log_prob&cell=1", color_scheme="light")
    mark = page.locator("#curve-0 .marks > div").first.evaluate("(each) => getComputedStyle(each).borderLeftColor")
    lines = page.locator("#curve-0 .scatterlayer .js-line").evaluate_all(
        "(all) => all.map((each) => getComputedStyle(each).stroke)"
    )
    assert mark == "rgb(112, 72, 232)"
    assert lines
    assert mark not in lines


def test_a_click_on_a_folded_row_opens_its_first_cell(url, visit):
    page = visit(f"{url}overview?variables=log_prob")
    rows = page.evaluate("() => document.querySelector('#stability .js-plotly-plot').data[0].y")
    number = next(i for i, name in enumerate(rows) if name.endswith("unguided"))
    cells = page.evaluate("() => document.querySelector('#stability .js-plotly-plot').data[0].meta.cells")
    plot = page.locator("#stability .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + (number + 0.3) / len(rows) * box["height"])
    page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + (number + 0.5) / len(rows) * box["height"])
    page.wait_for_url("**/trajectory?*")
    chromium.settle(page)
    assert f"cell={cells[number]}&" in page.url
