"""Maps: numbers under the mouse and by keys, enlarged maps, and the switches of limits, scale and channel."""

import re

import chromium
import numpy as np
import pytest
from playwright.sync_api import expect

import gradscope
from dashboards.data.library import Library

CELL, STEP, SAMPLE = 9, 4, 2


@pytest.fixture(scope="module")
def ds(both):
    return gradscope.open(both)


@pytest.fixture(scope="module")
def tensor(both, ds):
    """Gives a tensor at the position of these tests: ``tensor("gradient", step=4)``."""
    cell = Library([both]).run(None).cells[CELL]
    return lambda name, step=STEP: ds[name].sel(cell).isel(timestep=step, sample=SAMPLE).values


@pytest.fixture
def opened(url, visit, ds):
    """Opens the page at that position: ``opened("&scale=log")``."""
    return lambda more="": visit(f"{url}trajectory?cell={CELL}&t={int(ds.timestep[STEP])}&sample={SAMPLE}{more}")


def numbers(text: str) -> list[float]:
    """The numbers after the colons of a text."""
    return [float(part.replace("−", "-")) for part in re.findall(r": (−?[0-9.]+(?:e[+-]?[0-9]+)?)", text)]


def expected(values: np.ndarray, row: int, column: int) -> list[float]:
    channels = values[:, row, column].astype(np.float64)
    return [channels.mean(), *channels]


def hover(page, map, row: int, column: int) -> None:
    box = map.bounding_box()
    page.mouse.move(box["x"] + (column + 0.5) / 32 * box["width"], box["y"] + (row + 0.5) / 32 * box["height"])


def test_guides_of_one_combination_stand_in_two_columns(opened):
    """Four below each other would push the curves off the screen."""
    page = opened("&cells=2222")  # those without a stabiliser
    assert page.locator(".maps .cell").count() == 4
    places = [page.locator(f".maps .cell >> nth={i}").bounding_box() for i in range(4)]
    assert [(box["x"] > places[0]["x"], box["y"] > places[0]["y"]) for box in places] == [
        (False, False),
        (True, False),
        (False, True),
        (True, True),
    ]


@pytest.mark.parametrize("name", ["gradient", "x_t"])
def test_the_number_under_the_mouse_is_that_of_the_store(opened, tensor, name):
    page = opened()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/values/" in request.url else None)
    tip = page.locator("#map-value")
    for map in (
        page.locator(f'.focus-maps .map[data-tensor="{name}"]'),
        page.locator(f'.cell[data-cell="{CELL}"] .map[data-tensor="{name}"]'),
    ):
        for row, column in ((3, 5), (30, 1), (17, 31)):
            hover(page, map, row, column)
            tip.get_by_text(f"row {row}, column {column}, mean:").wait_for()
            assert numbers(tip.inner_text()) == pytest.approx(expected(tensor(name), row, column), rel=1e-4)
    assert len(asked) == 1  # the whole tensor once
    page.keyboard.press("ArrowRight")
    tip.get_by_text("row 17, column 31").wait_for()
    chromium.settle(page)
    expect(tip).to_be_visible()
    assert numbers(tip.inner_text()) == pytest.approx(expected(tensor(name, STEP + 1), 17, 31), rel=1e-4)
    assert len(asked) == 2
    page.mouse.move(2, 2)
    expect(tip).to_be_hidden()


def test_no_numbers_are_fetched_while_the_cursor_moves(opened):
    page = opened()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/values/" in request.url else None)
    hover(page, page.locator('.focus-maps .map[data-tensor="gradient"]'), 3, 3)
    page.locator("#map-value").get_by_text("row 3").wait_for()
    for key in ["ArrowLeft"] * 3 + ["ArrowRight"] * 5:
        page.keyboard.press(key)
    page.wait_for_timeout(600)
    assert len(asked) <= 2


def test_a_map_is_enlarged_and_read_by_keys(opened, tensor, ds):
    page = opened()
    page.locator('[data-zoom="update"]').focus()
    page.keyboard.press("Enter")
    page.locator("#zoom[open]").wait_for()
    map = page.locator("#zoom .map")
    assert map.bounding_box()["width"] > 400
    assert chromium.query(page)["zoom"] == "update"
    assert chromium.differs(map, tensor("update"), "signed") < 0.12
    value = page.locator("#zoom-value")
    value.get_by_text("row 16, column 16, mean:").wait_for()
    for key in ("ArrowUp", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    value.get_by_text("row 14, column 17, mean:").wait_for()
    assert numbers(value.inner_text()) == pytest.approx(expected(tensor("update"), 14, 17), rel=1e-4)
    page.keyboard.press("PageDown")
    page.locator(f'#maps[data-timestep="{int(ds.timestep[STEP + 1])}"]').wait_for()
    page.wait_for_timeout(500)
    assert numbers(value.inner_text()) == pytest.approx(expected(tensor("update", STEP + 1), 14, 17), rel=1e-4)
    hover(page, map, 5, 7)
    value.get_by_text("row 5, column 7, mean:").wait_for()
    page.keyboard.press("Escape")
    page.locator("#zoom[open]").wait_for(state="detached")
    assert "zoom" not in chromium.query(page)
    page.keyboard.press("z")
    page.locator("#zoom[open]").wait_for()
    address = page.url
    page.reload()
    page.locator("#zoom[open]").wait_for()
    assert page.url == address


def text_of(page, name: str, part: str) -> str:
    return page.locator(f'.focus-maps figure:has([data-tensor="{name}"]) {part}').inner_text()


def test_norm_range_and_limit_are_printed_at_each_map(opened, tensor):
    page = opened()
    for name in ("gradient", "x_t"):
        values = tensor(name).astype(np.float64)
        seen = values.mean(axis=0) if name == "gradient" else values
        norm, span = text_of(page, name, ".norm").split("\n")
        assert float(norm.split()[1]) == pytest.approx(np.linalg.norm(values), rel=6e-3)
        low, high = (float(part.replace("−", "-")) for part in span.split(" to "))
        assert (low, high) == pytest.approx((seen.min(), seen.max()), rel=6e-3)
        tile = page.locator(f'.cell[data-cell="{CELL}"] .tile:has([data-tensor="{name}"]) .brief').inner_text()
        short, most = tile.split("\n")
        assert float(short) == pytest.approx(np.linalg.norm(values), rel=6e-2)
        assert float(most.lstrip("±")) == pytest.approx(np.abs(seen).max(), rel=6e-2)
    assert float(text_of(page, "gradient", ".high")) == pytest.approx(
        np.quantile(np.abs(tensor("gradient").mean(axis=0, dtype=np.float64)), 0.995), rel=6e-3
    )
    assert text_of(page, "x_t", ".bar-ends").strip() == ""  # in its colours: no bar
    expect(page.locator('.focus-maps figure:has([data-tensor="x_t"]) .colour-bar')).to_be_hidden()


def test_switches_change_maps_and_address(opened, tensor, ds):
    page = opened()
    gradient = page.locator('.focus-maps .map[data-tensor="gradient"]')
    page.get_by_text("fixed over t", exact=True).click()
    page.wait_for_url("**limits=fixed**")
    chromium.settle(page)
    means = [tensor("gradient", step).mean(axis=0, dtype=np.float64) for step in range(ds.sizes["timestep"])]
    end = max(np.quantile(np.abs(mean), 0.995) for mean in means)
    assert float(text_of(page, "gradient", ".high")) == pytest.approx(end, rel=6e-3)
    page.locator(".map-switches").get_by_text("2", exact=True).click()
    page.wait_for_url("**channel=2**")
    page.get_by_text("each map", exact=True).click()
    chromium.settle(page)
    one = tensor("gradient")[2:3]
    assert (
        chromium.differs(gradient, one, "signed") < 0.1 < chromium.differs(gradient, tensor("gradient")[:1], "signed")
    )
    expect(page.locator('.focus-maps figure:has([data-tensor="x_t"]) .colour-bar')).to_be_visible()
    hover(page, gradient, 4, 4)
    tip = page.locator("#map-value")
    tip.get_by_text("row 4, column 4, channel 2:").wait_for()
    assert numbers(tip.inner_text()) == pytest.approx([float(one[0, 4, 4])], rel=1e-4)
    page.get_by_text("log", exact=True).click()
    page.wait_for_url("**scale=log**")
    chromium.settle(page)
    seen = chromium.pixels(gradient, (32, 32))
    limit = np.quantile(np.abs(one[0]), 0.995)
    shares = np.clip(one[0] / limit, -1, 1)
    scaled = np.sign(shares) * np.log10(1 + 1000 * np.abs(shares)) / np.log10(1001)
    assert np.corrcoef((seen[..., 0] - seen[..., 2]).ravel(), scaled.ravel())[0, 1] > 0.9
    state = chromium.query(page)
    page.reload()
    chromium.settle(page)
    assert chromium.query(page) == state
    assert np.abs(chromium.pixels(gradient, (32, 32)) - seen).max() < 3


def test_a_map_that_is_nearly_zero_says_so(url, visit, both, ds):
    """One position has a norm below a thousandth of its cell's median, the other one above the median."""
    run = Library([both]).run(None)
    for wanted in (True, False):
        cell, sample, step = next(
            (number, sample, step)
            for number, cell in enumerate(run.cells)
            for norm in [ds["gradient_norm"].sel(cell).transpose("sample", "timestep").values]
            for usual in [np.median(norm[norm > 0])]
            for sample, step in np.argwhere((norm > 0) & ((norm < usual / 1000) if wanted else (norm > usual)))
        )
        page = visit(f"{url}trajectory?cell={cell}&sample={sample}&t={int(ds.timestep[step])}&cells={1 << cell:x}")
        map = page.locator('.focus-maps .map[data-tensor="gradient"]')
        assert map.get_attribute("data-zero") == ("nearly" if wanted else "")
        label = map.evaluate("(each) => getComputedStyle(each, '::after').content")
        assert label == ('"nearly zero"' if wanted else "none")
