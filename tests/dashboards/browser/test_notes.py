"""Notes in a real browser: one on a view, which leads back to it."""

import json
import shutil

import chromium
import pytest

from dashboards.data.notes import notes_file


@pytest.fixture
def mine(synthetic, tmp_path):
    return shutil.copytree(synthetic, tmp_path / "mine.zarr")


def test_a_note_is_kept_leads_back_and_is_deleted(visit, serve, mine):
    url = serve(mine)
    page = visit(f"{url}samples?cell=1&only=wrong")
    there = chromium.query(page)
    page.locator(".notes-menu summary").click()
    text = "<img src=x onerror='window.pwned = 1'> two\nlines"
    page.locator("#note-text").fill(text)
    page.locator("#note-add").click()
    page.locator("#notes-count", has_text="Notes (1)").wait_for()
    assert page.locator("#note-text").input_value() == ""
    assert page.locator("#notes .note-text").inner_text() == text
    assert page.evaluate("window.pwned") is None
    (kept,) = json.loads(notes_file(mine).read_text())["notes"]
    assert kept["text"] == text

    page = visit(f"{url}overview")
    page.locator(".notes-menu summary", has_text="Notes (1)").click()
    page.locator("#notes a").click()
    page.wait_for_url("**/samples?*")
    chromium.settle(page)
    assert chromium.query(page) == there
    page.locator(".notes-menu summary").click()
    if not page.locator("#notes").is_visible():
        page.locator(".notes-menu summary").click()
    page.locator("[data-note]").click()
    page.locator("#notes-count", has_text="Notes").filter(has_not_text="(1)").wait_for()
    assert json.loads(notes_file(mine).read_text()) == {"notes": []}


def test_a_spoiled_file_says_so(visit, serve, mine):
    notes_file(mine).write_text("{")
    page = visit(f"{serve(mine)}overview")
    page.locator(".notes-menu summary").click()
    assert "is not a file of notes" in page.locator("#notes-reason").inner_text()
    assert not page.locator("#note-text").is_visible()
