"""A store from a stranger in a browser: its markup does not become elements, and its code does not run."""

import hostile_store
import pytest

from dashboards.state import PAGES

_FOUND = """() => ({
    ran: window.pwned === undefined ? "nothing" : "something",
    pictures: [...document.images].map((each) => each.getAttribute("src")).filter((src) => src === "x"),
    links: [...document.querySelectorAll("a, image")].map((each) => each.getAttribute("href")
        || each.getAttribute("xlink:href") || "").filter((href) => /^javascript:|evil/i.test(href)),
    handlers: document.querySelectorAll("[onerror], [onload]").length,
})"""
NOTHING = {"ran": "nothing", "pictures": [], "links": [], "handlers": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return hostile_store.saved(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("page", PAGES)
def test_nothing_of_it_runs_on_any_page(visit, serve, store, page):
    shown = visit(f"{serve(store)}{page}?variables={hostile_store.PROBE.replace(' ', '+')}")
    for hovered in shown.locator(".ag-cell:visible, .js-plotly-plot .nsewdrag:visible").all()[:6]:
        hovered.hover(force=True)
        shown.wait_for_timeout(500)  # until tooltips are there
    assert shown.evaluate(_FOUND) == NOTHING
    text = shown.locator("body").inner_text() + " ".join(
        shown.locator("input").evaluate_all("all => all.map((e) => e.value)")
    )
    assert "<img src=x" in text or "<a href=" in text or "</script>" in text


def test_a_planted_element_would_be_found(visit, serve, store):
    """The test above can fail."""
    shown = visit(f"{serve(store)}run", expected="404")
    shown.evaluate("text => document.querySelector('h1').insertAdjacentHTML('beforeend', text)", hostile_store.LINK)
    assert shown.evaluate(_FOUND)["links"] == ["javascript:window.pwned=1"]
