"""Filters, clicks and brushes on the Samples and Compare pages, against verdicts counted in the store."""

import chromium
import numpy as np
import pytest

import gradscope
from dashboards.data.library import Library

CELL = 3
"""non_robust, guided: see `synthetic`."""


@pytest.fixture(scope="module")
def key(synthetic):
    return Library([synthetic]).run(None).key


@pytest.fixture(scope="module")
def cell(synthetic):
    ds = gradscope.open(synthetic)
    return ds.sel(classifier="non_robust", guidance_scale=0.5).squeeze().compute()


def samples(page) -> list[int]:
    return page.eval_on_selector_all(".thumb", "(all) => all.map((each) => Number(each.dataset.sample))")


def test_failures_are_filtered_and_open_their_trajectory(url, visit, key, cell):
    wrong = cell["judge_prediction"].values != cell["label"].values
    fooled = wrong & (cell["own_prediction"].values == cell["label"].values)
    page = visit(f"{url}samples?store={key}&cell={CELL}")
    assert samples(page) == list(range(64))
    for text, expected in (("judge wrong", wrong), ("guide fooled", fooled), ("judge right", ~wrong)):
        page.get_by_text(f"{text} {expected.sum()}", exact=True).click()
        chromium.settle(page)
        assert samples(page) == np.flatnonzero(expected).tolist()
    page.get_by_text("guide fooled", exact=False).first.click()
    chromium.settle(page)
    chosen = samples(page)[-1]
    page.locator(f'.thumb[data-sample="{chosen}"]').click()
    page.wait_for_url(f"**/trajectory?**sample={chosen}&**")
    chromium.settle(page)
    assert page.locator("#focus").get_attribute("data-cell") == str(CELL)


def test_the_table_of_samples_sorts_and_opens_the_trajectory(url, visit, key, cell):
    page = visit(f"{url}samples?store={key}&cell={CELL}")
    page.locator('#samples-table [role=columnheader][col-id="log_prob"]').click()
    chromium.settle(page)
    worst = int(np.argmin(cell["log_prob"].values[:, -1]))
    first = page.locator('#samples-table .ag-row[row-index="0"]')
    assert first.get_attribute("row-id") == str(worst)
    first.locator(".ag-cell").nth(1).click()
    page.wait_for_url(f"**/trajectory?**sample={worst}&**")
    chromium.settle(page)


def test_final_images_are_those_of_the_store(url, visit, both):
    images = gradscope.open(both)["image"].sel(Library([both]).run(None).cells[1])
    page = visit(f"{url}samples?cell=1")
    for sample in (0, 5):
        picture = page.locator(f'.thumb[data-sample="{sample}"] .thumb-picture')
        others = [chromium.differs(picture, images.isel(sample=k).values, "image") for k in range(8)]
        assert int(np.argmin(others)) == sample
        assert others[sample] < 0.05


def test_brushed_samples_are_those_in_the_box_and_are_listed(url, visit, key, synthetic):
    means = gradscope.open(synthetic)["gradient_cosine"].mean("timestep").squeeze().sel(guidance_scale=0.5)
    a, b = means.sel(classifier="robust").values, means.sel(classifier="non_robust").values
    page = visit(f"{url}compare?store={key}&cell=1&other={CELL}&variables=gradient_cosine")
    plot = page.locator("#compare-pairs .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 2, steps=5)
    page.mouse.up()
    page.locator("#compare-selected a").first.wait_for()
    chromium.settle(page)
    middle = page.evaluate(
        """() => {
            const [low, high] = document.querySelector("#compare-pairs .js-plotly-plot")._fullLayout.xaxis.range;
            return (low + high) / 2;
        }"""
    )
    inside = [sample for sample in range(64) if a[sample] < middle]
    assert 0 < len(inside) < 64
    assert np.isfinite(b[inside]).all()
    listed = page.locator(".compare-picked .mantine-Pill-label").all_inner_texts()
    assert sorted(map(int, listed)) == inside
    page.locator("#compare-clear").click()
    chromium.settle(page)
    assert page.locator(".compare-picked .mantine-Pill-label").count() == 0
