"""Verdicts, the table of samples and the thumbnails, against loops and against the served pictures."""

import io
import json

import numpy as np
import pytest
import small_store
from PIL import Image
from plotly.io.json import to_json_plotly

from dashboards import create_app
from dashboards.pages.samples import page as samples
from dashboards.pages.samples.samples_table import sample_columns, sample_rows
from dashboards.state import default
from dashboards.widgets.links import trajectory_state
from dashboards.widgets.thumbnails import sprite_style, thumbnails
from dashboards.widgets.verdicts import FILTER_TITLES, filter_rows, verdicts
from gradscope.store import CELL_DIMS

CELLS = (0, 1, 9, 15)


@pytest.fixture(scope="module")
def ds(evaluated):
    return evaluated


def cell_of(ds, number):
    at = np.unravel_index(number, small_store.SHAPE)
    return ds.isel(dict(zip(CELL_DIMS, map(int, at), strict=True)))


def shown(component) -> str:
    return json.dumps(json.loads(to_json_plotly(component)), ensure_ascii=False)


@pytest.mark.parametrize("number", CELLS)
def test_each_filter_shows_the_samples_with_its_verdicts(ds, number):
    cell = cell_of(ds, number)
    found = verdicts(cell)
    shown = {only: set(found.index[rows]) for only, rows in filter_rows(found).items()}
    expected = {only: set() for only in FILTER_TITLES}
    for i in range(16):
        label, own, judge = (int(cell[n][i]) for n in ("label", "own_prediction", "judge_prediction"))
        expected["all"].add(i)
        if judge == label:
            expected["right"].add(i)
        elif judge >= 0:
            expected["wrong"].add(i)
            if own == label:
                expected["fooled"].add(i)
        if (cell["finite_fraction"][i] < 1).any():
            expected["nonfinite"].add(i)
        assert found["label"][i] == small_store.CLASSES[label]
        assert found["own"][i] == (small_store.CLASSES[own] if own >= 0 else "")
        assert found["judge"][i] == (small_store.CLASSES[judge] if judge >= 0 else "")
    assert shown == expected
    assert expected["wrong"]


def test_samples_that_are_not_finished_or_not_finite(ds):
    cell = cell_of(ds, 1).copy(deep=True)
    cell["written"][2, -1] = 0
    cell["finite_fraction"][5, 3:6] = 0.5
    found = verdicts(cell)
    assert not found["finished"][2]
    assert found["judge"][2] == found["own"][2] == ""
    assert found["nonfinite"].tolist() == [3 if i == 5 else 0 for i in range(16)]
    counts = {only: rows.tolist() for only, rows in filter_rows(found).items()}
    assert not counts["right"][2]
    assert not counts["wrong"][2]
    assert [i for i, there in enumerate(counts["nonfinite"]) if there] == [5]


@pytest.mark.parametrize("number", CELLS)
def test_the_table_of_samples_against_a_loop(run, ds, state_of, number):
    cell = cell_of(ds, number)
    rows = sample_rows(cell, verdicts(cell), trajectory_state(run, number))
    timestep = ds["timestep"].values
    for i, row in enumerate(rows):
        cosine = cell["gradient_cosine"].values[i].astype(float)
        assert row["cosine"] == pytest.approx(np.nanmean(cosine))
        assert row["cosine_min"] == pytest.approx(np.nanmin(cosine))
        assert row["cosine_min_timestep"] == timestep[np.nanargmin(cosine)]
        assert row["log_prob"] == pytest.approx(float(cell["log_prob"][i, -1]))
        assert row["gradient_norm"] == pytest.approx(float(cell["gradient_norm"][i].mean()))
        assert row["tensors"] == (10 if i < small_store.TENSORS else 0)
        right = int(cell["judge_prediction"][i]) == int(cell["label"][i])
        assert row["judge"][0] == ("–" if cell["judge_prediction"][i] < 0 else "✓" if right else "✗")
        state = state_of(row["href"])
        assert (state.page, state.cell, state.sample) == ("trajectory", number, i)
        assert state.timestep == row["cosine_min_timestep"]
    assert {column["field"] for column in sample_columns(ds)} <= set(rows[0])
    json.dumps(rows, allow_nan=False)


def test_a_sample_without_any_cosine_opens_the_cursor(run, ds):
    cell = cell_of(ds, 1).copy(deep=True)
    cell["gradient_cosine"][4] = np.nan
    state = trajectory_state(run, 1)
    row = sample_rows(cell, verdicts(cell), state)[4]
    assert row["cosine"] is row["cosine_min"] is row["cosine_min_timestep"] is None
    assert f"t={state.timestep}" in row["href"]


def pixels(style, client) -> np.ndarray:
    """What a browser shows of a picture of this style, in a square as large as one image of it."""
    url = style["backgroundImage"].removeprefix("url(").removesuffix(")")
    answer = client.get("/" + url)
    assert answer.status_code == 200
    picture = np.asarray(Image.open(io.BytesIO(answer.data)).convert("RGBA"))
    height, width = picture.shape[:2]
    wide, high = (float(part.removesuffix("%")) / 100 for part in style["backgroundSize"].split())
    tile = round(width / wide), round(height / high)
    left, top = (float(part.removesuffix("%")) / 100 for part in style["backgroundPosition"].split())
    x, y = round(left * (width - tile[0])), round(top * (height - tile[1]))
    return picture[y : y + tile[1], x : x + tile[0]]


def test_a_thumbnail_shows_the_image_of_its_sample(opened):
    ds = small_store.recorded()[["log_prob", "image", "written"]]
    images = np.random.default_rng(0).uniform(-1.2, 1.2, ds["image"].shape)
    run = opened(ds.assign(image=(ds["image"].dims, images)))
    client = create_app([run.path]).server.test_client()
    for sample in (0, 7, 8, 15):
        found = pixels(sprite_style(run, 9, sample), client)
        image = images.reshape(16, 16, 3, 8, 8)[9, sample].transpose(1, 2, 0)
        assert found.shape == (8, 8, 4)
        assert np.abs(found[..., :3] - np.clip(127.5 * (image + 1), 0, 255)).max() <= 1


@pytest.mark.parametrize(("samples", "sample"), [(1, 0), (5, 4), (8, 7), (70, 64), (70, 69), (130, 127)])
def test_a_thumbnail_is_in_the_picture_whatever_the_number_of_samples(samples, sample):
    run = type("Run", (), {"key": "k", "live": False, "ds": type("D", (), {"sizes": {"sample": samples}})()})()
    style = sprite_style(run, 3, sample)
    first, last = map(int, style["backgroundImage"].split("samples=")[1].removesuffix(")").split("-"))
    assert 0 <= first <= sample <= last < samples
    count = last - first + 1
    columns = min(count, 8)
    wide, high = (float(part.removesuffix("%")) / 100 for part in style["backgroundSize"].split())
    assert (wide, high) == (columns, np.ceil(count / columns))
    left, top = (float(part.removesuffix("%")) / 100 for part in style["backgroundPosition"].split())
    row, column = divmod(sample - first, columns)
    assert left * (wide - 1) == pytest.approx(column, abs=1e-3)
    assert top * (high - 1) == pytest.approx(row, abs=1e-3)


def test_a_thumbnail_has_its_verdict_and_links_to_its_trajectory(run, ds):
    found = verdicts(cell_of(ds, 9))
    state = trajectory_state(run, 9).to("trajectory", timestep=200, sample=3)
    for i, thumbnail in enumerate(thumbnails(run, found, state)):
        text, judge = shown(thumbnail), int(cell_of(ds, 9)["judge_prediction"][i])
        right = judge == int(ds["label"][i])
        assert f"final image of sample {i}" in text
        assert ("judge ✓" in text) == right
        assert (f"judge ✗ {small_store.CLASSES[judge]}" in text) == (not right)
        assert f"cell=9&t=200&sample={i}&" in thumbnail.href
        assert ('"aria-current": "true"' in text) == (i == 3)


def test_pages_hold_all_samples_once(run, monkeypatch):
    monkeypatch.setattr(samples, "PAGE", 5)
    state = default(run, "samples")
    there = samples._shown(run, state)
    assert samples._pages(there) == 4
    tiles = [tile.to_plotly_json()["props"] for page in range(1, 5) for tile in samples._thumbnails(run, state, page)]
    found = [props["data-sample"] for props in tiles]
    assert found == list(range(16))


def test_the_page_opens_where_the_cursor_is(run, monkeypatch):
    monkeypatch.setattr(samples, "PAGE", 5)
    page = shown(samples.layout(run, default(run, "samples").to("samples", sample=12)))
    assert '"value": 3' in page
    assert "final image of sample 12" in page
    assert "final image of sample 9" not in page


def test_filters_count_their_samples(run, ds):
    found = {each["value"]: each for each in samples._filters(run, 9)}
    label, judge = ds["label"].values, cell_of(ds, 9)["judge_prediction"].values
    assert found["wrong"]["label"] == f"judge wrong {sum(judge != label)}"
    assert found["right"]["label"] == f"judge right {sum(judge == label)}"
    assert not any(each["disabled"] for each in found.values())


def test_without_verdicts_the_page_says_what_adds_them(opened):
    run = opened(small_store.recorded())
    page = shown(samples.layout(run, default(run, "samples")))
    assert "`gradscope evaluate STORE` adds it" in page
    found = {each["value"]: each["disabled"] for each in samples._filters(run, 0)}
    assert found == {"all": False, "wrong": True, "fooled": True, "right": True, "nonfinite": False}
    assert "judge ✗" not in page


def test_a_filter_that_leaves_nothing_says_so(run):
    state = default(run, "samples").to("samples", only="nonfinite")
    assert "No sample of this cell is: not finite." in shown(samples.layout(run, state))


@pytest.mark.parametrize("steps", [0, 4])
def test_a_store_that_is_being_written(opened, steps):
    ds = small_store.recorded()[["gradient_cosine", "log_prob", "image", "written"]]
    ds["written"] = ds["written"].where(ds["timestep"] > ds["timestep"][steps], 0).astype(np.uint8)
    run = opened(ds.assign_attrs(status="recording"))
    page = shown(samples.layout(run, default(run, "samples")))
    assert "not finished" in page
    assert "thumbnails/" not in page
