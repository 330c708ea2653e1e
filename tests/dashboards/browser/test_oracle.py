"""The Leaderboard page in a browser: its table, its figure, its link, and the way to a recorded run and back."""

import chromium
import pytest
import small_leaderboard
from axe_playwright_python.sync_playwright import Axe

from dashboards.pages.oracle.page import SCORES


@pytest.fixture
def board(tmp_path):
    return small_leaderboard.saved(tmp_path / "oracle.zarr")


def test_the_page_shows_the_leaderboard_and_its_link_restores_it(serve, visit, board, synthetic):
    page = visit(serve(board, synthetic))
    assert page.locator("#to-oracle").get_attribute("aria-current") == "page"
    assert page.locator("#to-oracle").is_visible()
    assert not page.locator("#to-trajectory").is_visible()
    page.locator("#oracle-rows .ag-row").first.wait_for()
    assert page.locator("#oracle-rows .ag-center-cols-container .ag-row").count() == 8
    assert "<b>mine</b>" in page.locator("#oracle-rows").inner_text()  # a text, not markup
    page.locator("#oracle-curves .legend text").first.wait_for()
    found = Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []

    page.locator("#oracle-rows .ag-header-cell-text", has_text="coverage").click()
    shown = page.locator("#oracle-rows [col-id=coverage] .ag-cell-value, #oracle-rows .ag-row [col-id=coverage]")
    values = [float(text) for text in shown.all_inner_texts()]
    assert values == sorted(values)

    chromium.choose(page, "score", SCORES.index("gradient_bias"))
    page.get_by_text("gradient_bias along t, all mixtures").wait_for()
    assert chromium.query(page)["score"] == "gradient_bias"
    again = visit(page.url)
    again.get_by_text("gradient_bias along t, all mixtures").wait_for()

    again.locator("#store-select").click()
    again.get_by_role("option", name="synthetic.zarr").click()
    again.locator("#to-overview[aria-current=page]").wait_for()
    assert again.locator("#notices").inner_text() == ""
    assert not again.locator("#to-oracle").is_visible()
    again.locator("#store-select").click()
    again.get_by_role("option", name="oracle.zarr").click()
    again.locator("#to-oracle[aria-current=page]").wait_for()
