"""The URL restores the view, back and forward too, and impossible values are replaced."""

from urllib.parse import parse_qsl, urlsplit

import chromium
import pytest

from dashboards.data.library import Library
from dashboards.state import CURSOR, FIELDS, default, unmask


@pytest.fixture(scope="module")
def run(both):
    return Library([both]).run(None)


def shown(page) -> tuple[str, list[str]]:
    """The text of a page, and the values of its controls."""
    page.wait_for_timeout(400)  # the URL follows the cursor a little later
    chromium.settle(page)
    values = page.eval_on_selector_all("#page input", "(all) => all.map((each) => each.value)")
    return page.locator("#page").inner_text(), values


@pytest.mark.parametrize("name", chromium.USUAL)
def test_the_longest_link_of_a_page_is_short_and_restores_it(url, visit, run, name):
    usual = default(run, name)
    last = len(run.cells) - 1
    state = usual.to(
        name, cell=last, other=last - 1, timestep=int(run.ds["timestep"][-1]), sample=run.ds.sizes["sample"] - 1,
        cells=tuple(range(last + 1)), limits="fixed", only="wrong",
        scale="log", channel="1", zoom="gradient", finding="15.class_failure.2",
    )  # fmt: skip
    page = visit(url + state.url())
    assert len(url + state.url()) < 250
    assert page.locator("#notices").inner_text() == ""
    sent, now = dict(parse_qsl(urlsplit(state.url()).query)), chromium.query(page)
    assert now.keys() == sent.keys() <= {*CURSOR, *FIELDS[name]}
    for key in sent.keys() - {"cells", "variables"}:  # a page may show fewer of these
        assert now[key] == sent[key]
    assert set(unmask(now.get("cells", "0"))) <= set(state.cells)
    assert set(now.get("variables", "").split(",")) <= {"", *state.variables}


def test_a_link_carries_the_view_into_a_fresh_browser(url, visit):
    page = visit(f"{url}trajectory")
    chromium.choose(page, "cell", 3)
    page.keyboard.press("Escape")
    page.locator("#timestep").press("ArrowRight")
    page.locator("[data-copy-link]").click()
    page.locator("#announcement", has_text="link copied").wait_for()
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert link == page.url
    assert chromium.query(page)["cell"] == "3"
    other = visit(link, locale="en")
    assert other.url == link
    assert shown(other) == shown(page)


def test_back_and_forward_restore_the_page(url, visit):
    page = visit(f"{url}trajectory?cell=1")
    first = shown(page)
    chromium.choose(page, "cell", 5)
    second = shown(page)
    page.locator("#to-run").click()
    chromium.settle(page)
    assert chromium.query(page)["cell"] == "5"
    page.go_back()
    chromium.settle(page)
    assert shown(page) == second
    page.go_back()
    chromium.settle(page)
    assert shown(page) == first
    page.go_forward()
    chromium.settle(page)
    assert shown(page) == second
    assert first != second


def test_impossible_values_of_a_link_are_replaced_with_a_notice(url, visit, run):
    page = visit(f"{url}trajectory?store=gone&cell=99&t=12345&sample=-3&variables=nothing&cells=zz&limits=wide")
    text = page.locator("#notices").inner_text()
    for part in ("'gone'", "cell=99", "t=12345", "sample=-3", "variables=nothing", "cells=zz", "limits=wide"):
        assert part in text
    now = chromium.query(page)
    assert (now["store"], now["cell"], now["sample"]) == (run.key, str(len(run.cells) - 1), "0")
    assert now["t"] == str(int(run.ds["timestep"].max()))
    assert now["limits"] == "cell"


def test_an_unknown_page_is_the_overview(url, visit):
    page = visit(f"{url}nowhere")
    assert "there is no page 'nowhere'" in page.locator("#notices").inner_text()
    assert page.locator("#to-overview").get_attribute("aria-current") == "page"


def test_another_store_is_chosen_and_shown(url, visit, synthetic):
    page = visit(f"{url}run")
    page.locator("#store-select").click()
    page.get_by_role("option", name=synthetic.name).click()
    page.wait_for_url(f"**/run?store={Library([synthetic]).run(None).key}**")
    chromium.settle(page)
    assert "51a7" in page.locator("#page").inner_text()
