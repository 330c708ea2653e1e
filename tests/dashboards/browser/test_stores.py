"""Stores that are empty, broken, cut off or not yet written: the page says why, and nothing crashes."""

from pathlib import Path

import chromium
import pytest
import small_store

SAMPLES, TIMESTEPS = 8, 20


def missing(path: Path) -> Path:
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    (path / "notes.txt").write_text("no store")
    return path


def garbage(path: Path) -> Path:
    path.mkdir()
    (path / "zarr.json").write_text('{"zarr_format": 3, "node')
    return path


def another(path: Path) -> Path:
    """A zarr store of something else."""
    return small_store.save(small_store.recorded()[["image"]].assign_attrs(schema_version=None), path)


@pytest.mark.parametrize("make", [missing, folder, garbage, another])
def test_a_broken_store_is_shown_beside_the_others(serve, visit, synthetic, tmp_path, make):
    broken = make(tmp_path / "broken.zarr")
    page = visit(serve(broken, synthetic) + "trajectory?cell=2")
    text = page.locator("#page").inner_text()
    assert "broken.zarr cannot be opened" in text
    assert "Traceback" not in text
    page.locator("#store-select").click()
    page.get_by_role("option", name="synthetic.zarr").click()
    page.wait_for_url("**store=51a7**")
    chromium.settle(page)
    assert "cannot be opened" not in page.locator("#page").inner_text()


def test_a_store_that_is_repaired_opens_on_reload(serve, visit, write, tmp_path):
    path = tmp_path / "late.zarr"
    page = visit(serve(path))
    assert "late.zarr cannot be opened" in page.locator("#page").inner_text()
    write(path, TIMESTEPS)
    page.reload()
    chromium.settle(page)
    assert "cannot be opened" not in page.locator("#page").inner_text()


@pytest.mark.parametrize("steps", [0, 10], ids=["nothing", "half of a cell"])
def test_a_partly_written_store_is_shown_as_far_as_it_goes(serve, visit, write, tmp_path, steps):
    """As after `kill -9`: the status still says that the run is being recorded."""
    page = visit(serve(write(tmp_path / "killed.zarr", steps)))
    for name in chromium.USUAL:
        page.locator(f"#to-{name}").click()
        page.wait_for_url(f"**/{name}?**")
        chromium.settle(page)
        assert page.locator("#live").text_content() == f"recording: {100 * steps / TIMESTEPS / 2:.0f} %"
        assert page.locator("#notices").text_content() == ""
        assert page.locator("#page").inner_text().strip() != ""


def test_a_cut_off_chunk_of_scalars_is_reported(serve, visit, write, tmp_path):
    path = write(tmp_path / "cut.zarr", TIMESTEPS)
    cut(path / "gradient_cosine")
    page = visit(f"{serve(path)}run")
    page.locator("#to-overview").click()
    text = page.locator("#notices", has_text="damaged")
    text.wait_for()
    assert "gradient_cosine" in text.inner_text()


def test_a_cut_off_chunk_of_one_diagnostic_leaves_the_other_curves(serve, visit, write, tmp_path):
    path = write(tmp_path / "cut.zarr", TIMESTEPS)
    cut(path / "gradient_cosine")
    page = visit(f"{serve(path)}trajectory?variables=gradient_cosine,gradient_norm")
    text = page.locator("#notices", has_text="damaged")
    text.wait_for()
    assert "gradient_cosine" in text.inner_text()
    page.locator("#frame-curve-1 .js-plotly-plot .scatterlayer .trace").first.wait_for()
    assert page.locator("#frame-curve-0").is_hidden()


def test_a_cut_off_chunk_of_a_tensor_leaves_the_rest(serve, visit, write, tmp_path):
    path = write(tmp_path / "cut.zarr", TIMESTEPS)
    cut(path / "gradient")
    page = visit(serve(path), expected="404")  # the chunk may hold the tensors that are shown first
    for name in ("trajectory", "compare", "samples", "run", "overview"):
        page.locator(f"#to-{name}").click()
        page.wait_for_url(f"**/{name}?**")
        chromium.settle(page)
        assert page.locator("#notices").text_content() == ""


def test_maps_of_a_cut_off_chunk_are_blank_and_say_so(serve, visit, write, tmp_path):
    path = write(tmp_path / "cut.zarr", TIMESTEPS)
    cut(path / "gradient")
    page = visit(f"{serve(path)}trajectory?sample={SAMPLES - 1}&t=500", expected="404")
    page.locator("#maps-note", has_text="damaged").wait_for()


def cut(array: Path) -> None:
    """Remove the end of a chunk, as a full disk does."""
    chunk = min(array.glob("c.*"))
    chunk.write_bytes(chunk.read_bytes()[:-7])
