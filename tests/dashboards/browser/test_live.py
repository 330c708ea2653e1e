"""A run that is being recorded: new steps appear by themselves, and polling ends with the run."""

import time

import numpy as np
import pytest
import zarr

import gradscope

LATEST = 5.0
"""Seconds until a written step has to be shown."""
STEPS, SAMPLES = 150, 4
_SEEN = """() => {
    const graph = document.querySelector("#stability .js-plotly-plot");
    if (!graph || !graph._fullData) return 0;
    return graph._fullData[0].z.flatMap((row) => Array.from(row)).filter(Number.isFinite).length;
}"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory, record):
    """A real recording of two cells in a process of its own, which is about to write its first steps."""
    path = tmp_path_factory.mktemp("live") / "live.zarr"
    sizes = (f"sampling.samples={SAMPLES}", f"sampling.batch_size={SAMPLES}", f"sampling.num_inference_steps={STEPS}")
    process = record("quickstart.yaml", path, *sizes)
    while not (path / "zarr.json").exists():
        assert process.poll() is None, "the recording ended before it made its store"
        time.sleep(0.05)
    yield process, path
    process.kill()
    process.wait()


def written(path) -> int:
    """Cells of the heat map (pairs of a cell and a timestep) with written values; the first timestep has no cosine."""
    there = np.asarray(zarr.open_array(path / "written", mode="r")[...]) > 0
    return int(there.any(axis=-2)[..., 1:].sum())


def test_new_timesteps_appear_in_time_and_polling_ends(recording, serve, visit):
    process, path = recording
    page = visit(f"{serve(path)}overview?variables=gradient_cosine")
    polls: list[int] = []
    page.on("request", lambda request: polls.append(1) if "n_intervals" in (request.post_data or "") else None)
    due: dict[int, float] = {}
    shown = [page.evaluate(_SEEN)]
    while process.poll() is None or due:
        there = written(path)
        due.setdefault(there, time.monotonic())
        page.wait_for_timeout(100)
        shown.append(page.evaluate(_SEEN))
        due = {count: since for count, since in due.items() if count > shown[-1]}
        assert all(time.monotonic() - since < LATEST for since in due.values()), f"{there} written, {shown[-1]} shown"
    assert shown == sorted(shown)
    assert len(set(shown)) > 3
    assert shown[-1] == 2 * (STEPS - 1)
    page.locator("#live:empty").wait_for(timeout=1000 * LATEST, state="attached")
    assert polls
    done = len(polls)
    page.wait_for_timeout(5000)
    assert len(polls) == done


def test_maps_and_numbers_of_new_steps_appear_under_the_cursor(serve, visit, write, tmp_path):
    path = write(tmp_path / "growing.zarr", 10)
    page = visit(f"{serve(path)}trajectory?cell=0&t=400&sample=0")  # step 12 of 20
    assert page.locator("#focus").get_attribute("data-written") == "false"
    assert number(page) == "–"
    write(path, 20)
    page.locator('#focus[data-written="true"]').wait_for(timeout=1000 * LATEST)
    page.wait_for_function("() => document.querySelector('[data-variable=gradient_norm]').textContent !== '–'")
    expected = float(gradscope.open(path)["gradient_norm"].isel(classifier=0, sample=0, timestep=11).squeeze())
    assert float(number(page)) == pytest.approx(expected, rel=0.01)


def number(page) -> str:
    return page.locator("[data-variable=gradient_norm]").inner_text()
