"""Compare in a browser: the answer, another store under b, and cells that survive a change of store."""

import chromium
import pytest


@pytest.fixture
def compare(url, both, synthetic, visit):
    """The Compare page of the first store."""
    return visit(f"{url}compare?cell=1&other=3")


def test_the_first_line_is_the_answer(compare):
    line = compare.locator("#compare-headline").inner_text()
    assert line.startswith(("Too few samples: ", "No difference", "a is better", "b is better"))
    assert "judge's accuracy" in line


def test_b_is_taken_from_another_store_and_back(compare):
    compare.locator("#compare-other-store").click()
    compare.get_by_role("option", name="synthetic.zarr").click()
    compare.wait_for_url("**other_store=*")
    chromium.settle(compare)
    assert "other_store=51a7" in compare.url
    assert "other_was" not in compare.url
    assert (
        compare.get_by_role("textbox", name="b", exact=True)
        .input_value()
        .startswith("robust, x_t, no stabiliser, s = ")
    )
    assert compare.locator("#notices").inner_text().startswith("synthetic.zarr has no cell robust, x_t, adam, s = 0.5")
    rows = compare.locator("#compare-settings tbody tr")
    assert rows.count() > 3
    compare.locator("#compare-swap").click()
    compare.wait_for_url("**store=51a7*")
    chromium.settle(compare)
    assert compare.locator("#store-select").input_value() == "synthetic.zarr"
    assert compare.get_by_role("textbox", name="b", exact=True).input_value() == "robust, x_t, no stabiliser, s = 0.5"
    compare.go_back()
    chromium.settle(compare)
    assert "other_store=51a7" in compare.url


def test_cells_survive_a_change_of_store(url, visit):
    page = visit(f"{url}compare?cell=9&other=1")
    names = [page.get_by_role("textbox", name=name, exact=True).input_value() for name in "ab"]
    page.locator("#store-select").click()
    page.get_by_role("option", name="synthetic.zarr").click()
    page.wait_for_url("**store=51a7*")
    chromium.settle(page)
    assert [page.get_by_role("textbox", name=name, exact=True).input_value() for name in "ab"] == names
    assert "was=" not in page.url


def test_a_class_alone_is_in_the_address(compare):
    compare.get_by_role("textbox", name="class").click()
    compare.get_by_role("option", name="volleyball").click()
    compare.wait_for_function("() => document.querySelector('#compare-headline').innerText.includes('N = 2')")
    assert "label=3" in compare.url
    compare.reload()
    chromium.settle(compare)
    assert compare.get_by_role("textbox", name="class").input_value().startswith("volleyball (N = 2)")
