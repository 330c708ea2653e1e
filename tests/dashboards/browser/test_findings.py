"""Findings: a click selects one and explains it, its button opens what shows it, and a banner keeps it in sight."""

import chromium
import numpy as np
import pytest
from playwright.sync_api import expect

import gradscope
from dashboards.data.finding_key import finding_key
from dashboards.data.library import Library

_BANDS = """([first, last]) => [...document.querySelectorAll("#curves .js-plotly-plot")]
    .filter((figure) => (figure.layout.meta || {}).timestep)
    .map((figure) => {
        const { range, type, _offset, _length, _categories } = figure._fullLayout.xaxis;
        const of = (t) => (type === "category" ? _categories.map(String).indexOf(String(t)) : t);
        const place = (t) => _offset + ((of(t) - range[0]) / (range[1] - range[0])) * _length;
        const band = figure.querySelector(".spans > *").getBoundingClientRect();
        const left = figure.getBoundingClientRect().left;
        return [[band.left - left, band.right - left], [place(first), place(last)].sort((a, b) => a - b)];
    })"""
"""Left and right end of the band on each figure along t in pixels: as they are, and by its axis."""


@pytest.fixture(scope="module")
def run(unstable):
    return Library([unstable]).run(None)


@pytest.fixture(scope="module")
def served(unstable):
    with chromium.served([unstable]) as address:
        yield address


def described(page) -> list[str]:
    """The text beside the table."""
    return [page.locator(f"#finding-{part}").inner_text() for part in ("name", "evidence", "advice", "why")]


def test_a_click_on_a_finding_selects_and_explains_it_in_place(url, visit, both):
    run = Library([both]).run(None)
    findings = run.findings()
    assert len(findings) > 2
    page = visit(f"{url}overview")
    assert described(page)[1:3] == [findings[0].evidence, findings[0].advice]
    for number in (2, 1):
        row = page.locator(f"#findings-table .ag-row[row-index='{number}']")
        row.locator(".ag-cell").nth(1).click()
        page.locator(f"#findings-table .ag-row-selected[row-index='{number}']").wait_for()
        expect(page.locator("#finding-evidence")).to_have_text(findings[number].evidence)
        assert page.locator("#finding-advice").inner_text() == findings[number].advice
        assert page.locator("#finding-name").inner_text().startswith(f"{findings[number].signature}: ")
        assert "/overview?" in page.url
        page.locator("#findings-table .ag-row[row-index='0']").hover()  # the mouse alone changes nothing
        page.wait_for_timeout(400)
        assert described(page)[1] == findings[number].evidence


def test_open_leads_to_a_map_that_shows_the_finding(served, visit, run, unstable):
    ds = gradscope.open(unstable)
    finding = next(each for each in run.findings() if each.signature == "unstable")
    number, key = run.findings().index(finding), finding_key(run, finding)
    page = visit(f"{served}overview")
    page.locator(f"#findings-table .ag-row[row-index='{number}'] .ag-cell").nth(1).click()
    expect(page.locator("#finding-evidence")).to_have_text(finding.evidence)
    why = page.locator("#finding-why").inner_text()
    page.locator("#finding-link").click()
    page.wait_for_url(f"**/trajectory?**finding={key}**")
    chromium.settle(page)
    state = chromium.query(page)
    here = ds.sel(finding.cell).isel(sample=int(state["sample"])).sel(timestep=int(state["t"]))
    cell = ds.sel(finding.cell)
    assert finding.last_timestep <= int(state["t"]) <= finding.first_timestep
    assert float(here["gradient_lag_cosine"]) < finding.threshold
    usual = float(np.nanmedian(cell["gradient_norm"].where(cell["gradient_norm"] > 0)))
    assert usual / 3 <= float(here["gradient_norm"]) <= 3 * usual
    assert page.locator("#focus").get_attribute("data-cell") == str(run.cells.index(finding.cell))
    assert (
        chromium.differs(page.locator('.focus-maps .map[data-tensor="gradient"]'), here["gradient"].values, "signed")
        < 0.1
    )
    text = page.locator("#finding-banner").inner_text()
    for part in (finding.evidence, finding.advice, why):
        assert part in text


def test_the_banner_marks_the_timesteps_until_it_is_closed(served, visit, run):
    finding = next(each for each in run.findings() if each.signature == "unstable")
    key = finding_key(run, finding)
    page = visit(f"{served}trajectory?finding={key}")
    page.locator("#finding-banner h2").wait_for()
    bands = page.evaluate(_BANDS, [int(finding.first_timestep), int(finding.last_timestep)])
    assert len(bands) >= 2
    for seen, expected in bands:
        assert seen == pytest.approx(expected, abs=2)
    timesteps = run.ds["timestep"].values.tolist()
    slider, strip = (page.locator(part).bounding_box() for part in ("#timestep", "#scrubber-span"))
    for end, timestep in ((strip["x"], finding.first_timestep), (strip["x"] + strip["width"], finding.last_timestep)):
        share = timesteps.index(timestep) / (len(timesteps) - 1)
        assert end == pytest.approx(slider["x"] + 5 + share * (slider["width"] - 10), abs=3)
    page.keyboard.press("End")  # the banner stays where the cursor goes, and leads back
    chromium.settle(page)
    assert page.locator("#finding-banner h2").is_visible()
    back = page.locator("#finding-banner").get_by_role("link", name="Back to")
    expected = back.get_attribute("href")
    back.click()
    page.wait_for_url(f"**/{expected}")
    chromium.settle(page)
    page.locator("#finding-close").click()
    page.locator("#finding-banner:empty").wait_for(state="attached")
    assert "finding" not in chromium.query(page)
    assert page.locator("#scrubber-span").is_hidden()
    assert page.locator(".spans > :visible").count() == 0
    page.reload()
    chromium.settle(page)
    assert page.locator("#finding-banner").inner_text() == ""
