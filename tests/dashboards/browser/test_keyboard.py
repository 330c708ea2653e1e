"""Without a mouse: Tab reaches every action, and Enter performs it."""

import chromium

_WHERE = """() => {
    const at = document.activeElement;
    const box = ((at.labels && at.labels[0]) || at).getBoundingClientRect();
    const seen = box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight;
    const table = at.closest(".table");
    const cell = at.closest(".ag-cell, .ag-header-cell");
    if (cell) return [`${table.id} ${cell.classList.contains("ag-cell") ? "cell" : "header"}`, seen];
    return [at.id || at.textContent.trim(), seen];
}"""


def tabs(page, most: int = 400) -> list[str]:
    """The elements that Tab reaches, from the top of a page to its end; each must be visible."""
    found = []
    for _ in range(most):
        page.keyboard.press("Tab")
        name, seen = page.evaluate(_WHERE)
        if page.evaluate("() => document.activeElement === document.body"):
            break
        assert seen, f"{name} has the focus and is not seen"
        found.append(name)
    return found


def until(page, *names: str, most: int = 200) -> None:
    """Press Tab until one of these has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(_WHERE)[0] in names:
            return
    raise AssertionError(f"{names} are not reached by {most} times Tab")


def control(key: str) -> str:
    return f'{{"key":"{key}","type":"control"}}'


def test_tab_reaches_navigation_tables_and_menus_in_their_order(url, visit):
    page = visit(f"{url}overview")
    found = tabs(page)
    expected = [
        "skip to content", "store-select", "to-overview", "to-trajectory", "to-compare", "to-distributions",
        "to-samples", "to-run", "Copy link", "findings-table-frame header", "findings-table-frame cell", "finding-link",
        control("variables"), "Export", "cells-table-frame header", "cells-table-frame cell",
    ]  # fmt: skip
    assert [name for name in dict.fromkeys(found) if name in expected] == expected


def test_tab_reaches_slider_controls_and_cells_of_a_trajectory(url, visit):
    page = visit(f"{url}trajectory")
    found = tabs(page)
    for name in (control("cell"), control("sample"), "play", "timestep", "keys-button", "Export"):
        assert name in found
    assert any(", x_t," in name for name in found)  # the cells' names are buttons
    for name in ("each map", "linear", "mean"):  # the switches of maps
        assert name in page.evaluate(
            "() => [...document.querySelectorAll('input[type=radio]:checked')].map((e) => e.labels[0].textContent)"
        )


def test_enter_on_a_finding_opens_its_tensor(url, visit):
    page = visit(f"{url}overview")
    until(page, "findings-table-frame header", "findings-table-frame cell")
    for _ in range(3):
        if page.evaluate(_WHERE)[0] == "findings-table-frame cell":
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    row = page.evaluate("() => document.activeElement.closest('.ag-row').getAttribute('row-id')")
    assert row == page.locator("#findings-table .ag-row[row-index='1']").get_attribute("row-id")
    page.locator(f"#findings-table .ag-row-selected[row-id='{row}']").wait_for()
    page.wait_for_function("(id) => document.getElementById('finding-link').href.endsWith(`finding=${id}`)", arg=row)
    link = page.locator("#finding-link").get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url("**/trajectory?**")
    chromium.settle(page)
    assert page.url == url + link


def test_enter_follows_the_navigation_and_the_skip_link(url, visit):
    page = visit(f"{url}overview")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.getElementById('page').contains(document.activeElement)")
    page.locator("#to-run").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/run?**")


def test_a_select_is_set_by_keys(url, visit):
    page = visit(f"{url}trajectory?cell=1")
    until(page, control("cell"))
    page.keyboard.press("ArrowDown")  # opens the list
    at = page.locator("[role=option][data-combobox-selected]")
    at.wait_for()
    # The list marks its first option, the chosen one and the next one in turn while it opens; Enter takes what is
    # marked at that moment, so the marked option is read until it is the wanted one.
    for _ in range(20):
        page.wait_for_timeout(100)
        if at.count() == 1 and at.get_attribute("value") == "2":
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("() => new URLSearchParams(location.search).get('cell') === '2'")


def test_a_figure_is_saved_by_keys(url, visit):
    page = visit(f"{url}overview")
    until(page, "Export")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".svg")


def test_the_list_of_keys_opens_and_closes(url, visit):
    page = visit(f"{url}trajectory")
    page.keyboard.press("?")
    page.locator("#keys[open]").wait_for()
    page.keyboard.press("Escape")
    page.locator("#keys[open]").wait_for(state="detached")
