"""The cursor: keys, clicks and tables move it, and the page shows the store's values at its position."""

import chromium
import pytest
from playwright.sync_api import expect

import gradscope
from dashboards.data.library import Library

TENSORS = {"gradient": "signed", "update": "signed", "x_t": "image", "pred_original_sample": "image"}


@pytest.fixture(scope="module")
def run(both):
    return Library([both]).run(None)


@pytest.fixture(scope="module")
def ds(both):
    return gradscope.open(both)


def at(ds, run, cell: int, step: int, sample: int):
    """One position of the store, without the timestep dimension."""
    return ds.sel(run.cells[cell]).isel(timestep=step, sample=sample)


def moved(page, timestep: int, sample: int = 0) -> None:
    """Wait until the maps of a position are painted."""
    page.locator(f'#maps[data-timestep="{timestep}"][data-sample="{sample}"][aria-busy="false"]').wait_for()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize("tensor", TENSORS)
def test_maps_show_the_tensors_at_the_cursor(url, visit, ds, run, tensor):
    timesteps = ds["timestep"].values
    page = visit(f"{url}trajectory?cell=1&t={timesteps[3]}&sample=0&limits=cell")
    moved(page, timesteps[3])
    for step in (3, 4, 5):
        moved(page, timesteps[step])
        expected = at(ds, run, 1, step, 0)[tensor].values
        before = at(ds, run, 1, step - 1, 0)[tensor].values
        large = page.locator(f'#focus .focus-maps .map[data-tensor="{tensor}"]')
        assert chromium.differs(large, expected, TENSORS[tensor]) < 0.1
        assert chromium.differs(large, expected, TENSORS[tensor]) < chromium.differs(large, before, TENSORS[tensor])
        page.keyboard.press("ArrowRight")


def test_every_cell_has_its_own_maps(url, visit, ds, run):
    step, sample = 2, 1
    t = int(ds["timestep"][step])
    page = visit(f"{url}trajectory?cell=1&t={t}&sample={sample}&cells={0b101000001010:x}&limits=cell")
    moved(page, t, sample)
    for cell in (1, 3, 9, 11):
        tile = page.locator(f'.cell[data-cell="{cell}"] .map[data-tensor="gradient"]')
        tile.scroll_into_view_if_needed()
        gradients = {k: at(ds, run, k, step, sample)["gradient"].values for k in (1, 3, 9, 11)}
        assert min(gradients, key=lambda k: chromium.differs(tile, gradients[k], "signed")) == cell


def test_arrow_keys_move_everything(url, visit, ds, run):
    timesteps = ds["timestep"].values
    page = visit(f"{url}trajectory?cell=1&t={timesteps[3]}&sample=0")
    moved(page, timesteps[3])
    steps = [("ArrowRight", 4), ("ArrowRight", 5), ("ArrowLeft", 4), ("End", len(timesteps) - 1), ("Home", 0)]
    for key, step in steps:
        page.keyboard.press(key)
        moved(page, timesteps[step])
        t = timesteps[step]
        assert page.locator("#timestep").input_value() == str(step)
        assert page.locator("#where").inner_text() == f"t = {t}, step {step + 1} of {len(timesteps)}"
        page.wait_for_url(lambda address, t=t: f"t={t}&" in f"{address}&")
        here = at(ds, run, 1, step, 0)
        for name in ("gradient_norm", "log_prob"):
            shown = page.locator(f'[data-variable="{name}"]').inner_text().replace("−", "-")
            assert float(shown) == pytest.approx(float(here[name]), rel=0.06)
        for mark, expected in marks(page, t):
            assert mark == pytest.approx(expected, abs=1.5)


def marks(page, timestep: int) -> list[tuple[float, float]]:
    """The position of the cursor on each figure along t, and its position by the axis, in pixels."""
    return page.evaluate(
        """(t) => [...document.querySelectorAll("#curves .js-plotly-plot")]
            .filter((figure) => (figure.layout.meta || {}).timestep)
            .map((figure) => {
                const { range, type, _offset, _length, _categories } = figure._fullLayout.xaxis;
                const x = type === "category" ? _categories.map(String).indexOf(String(t)) : t;
                const mark = figure.querySelector(".marks > *").getBoundingClientRect();
                const share = (x - range[0]) / (range[1] - range[0]);
                return [mark.left + mark.width / 2 - figure.getBoundingClientRect().left, _offset + share * _length];
            })""",
        int(timestep),
    )


def test_up_and_down_change_the_sample(url, visit, ds, run):
    t = int(ds["timestep"][2])
    page = visit(f"{url}trajectory?cell=1&t={t}&sample=0")
    for key, sample in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1)):
        page.keyboard.press(key)
        moved(page, t, sample)
    here = float(at(ds, run, 1, 2, 1)["gradient_norm"])
    page.wait_for_function(
        """(expected) => {
            const shown = Number(document.querySelector('[data-variable="gradient_norm"]').textContent);
            return Math.abs(shown - expected) <= 0.06 * Math.abs(expected);
        }""",
        arg=here,
    )


def test_after_a_change_of_sample_the_curves_come_before_frames_that_are_loaded_ahead(url, visit, ds):
    t = int(ds["timestep"][3])
    page = visit(f"{url}trajectory?cell=1&t={t}&sample=0")
    moved(page, t)
    page.evaluate("""() => {
        performance.clearResourceTimings();
        const press = (event) => (window.pressed = event.timeStamp);
        document.addEventListener("keydown", press, { once: true, capture: true });
    }""")
    page.keyboard.press("ArrowDown")
    moved(page, t, sample=1)
    requests = """() => performance.getEntriesByType("resource")
        .map(({ name, startTime }) => [/frames\\/\\w+\\/1\\/(\\d+)[.]png/.exec(name), startTime - window.pressed])
        .filter(([found]) => found).map(([found, ms]) => [Number(found[1]), ms])"""
    page.wait_for_function(f"() => ({requests})().length > 4")
    (first, _), *ahead = page.evaluate(requests)
    assert first == 3
    assert min(ms for _, ms in ahead) >= 500
    assert 3 not in {step for step, _ in ahead}


def test_a_control_that_repeats_its_old_value_does_not_move_the_cursor(url, visit, ds):
    t = int(ds["timestep"][2])
    page = visit(f"{url}trajectory?cell=1&t={t}&sample=0")
    for sample in (1, 2):
        page.keyboard.press("ArrowDown")
        moved(page, t, sample)
    page.wait_for_url("**sample=2**")
    control = page.locator("""[id='{"key":"sample","type":"control"}']""")
    page.evaluate("""() => dash_clientside.set_props({ type: "control", key: "sample" }, { value: 1 })""")
    page.wait_for_timeout(600)
    expect(control).to_have_value("2")
    page.wait_for_url("**sample=2**")
    moved(page, t, 2)
    control.fill("3")
    moved(page, t, 3)


def test_it_plays_and_pauses(url, visit, ds):
    page = visit(f"{url}trajectory?t={int(ds['timestep'][0])}")
    page.locator("#play").click()
    page.wait_for_function("() => Number(document.getElementById('timestep').value) >= 3")
    page.locator("#play").click()
    assert page.locator("#play").get_attribute("aria-pressed") == "false"
    there = page.locator("#timestep").input_value()
    page.wait_for_timeout(400)
    assert page.locator("#timestep").input_value() == there


def test_a_click_on_a_curve_moves_there(url, visit, ds):
    timesteps = ds["timestep"].values
    page = visit(f"{url}trajectory?cell=1&t={timesteps[0]}&sample=0")
    plot = page.locator("#curves .js-plotly-plot .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    start, end = page.evaluate("() => document.querySelector('#curves .js-plotly-plot')._fullLayout.xaxis.range")
    place = (timesteps[5] - start) / (end - start)
    page.mouse.move(box["x"] + place * box["width"], box["y"] + box["height"] / 2)
    page.locator("#curves .hoverlayer text").first.wait_for()
    page.mouse.down()
    page.mouse.up()
    moved(page, timesteps[5])


def test_a_row_of_the_cells_opens_that_cell(url, visit):
    page = visit(f"{url}overview")
    page.locator('#cells-table .ag-row[row-id="3"] .ag-cell').first.click()
    page.wait_for_url("**/trajectory?**cell=3&**")
    chromium.settle(page)
    assert page.locator("#focus").get_attribute("data-cell") == "3"
