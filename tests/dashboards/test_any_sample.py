"""Pictures of samples that are no images: what is drawn where, read back from the pixels, against the store."""

import base64
import io
import json
from dataclasses import replace

import any_sample
import numpy as np
import pytest
import small_store
import torch
from any_sample import SAMPLES, SHAPES
from dash_client import ask, show, texts
from PIL import Image
from plotly.colors import hex_to_rgb

from dashboards import create_app, pages
from dashboards.data.open_run import OpenRun
from dashboards.images import curves, planes
from dashboards.images.canvas import Canvas
from dashboards.images.pixels import image
from dashboards.images.tensors import MAGENTA
from dashboards.images.tiles import Tiles
from dashboards.images.words import caption, line_names
from dashboards.pages.trajectory.figures import figures
from dashboards.state import default
from dashboards.widgets.export import Call
from gradscope.errors import GradscopeError
from gradscope.plots.style import PALETTE
from gradscope.recording.recorder import Recorder
from gradscope.store import CELL_DIMS, open_store
from gradscope.store.sample_kind import VIDEO_DIMS, SampleKind, sample_kind
from probes import GuidedStep, Norm

BAD = ((1, 0, 0, 1), 1, 3, np.nan)
"""Cell 3, sample 1, step 3: the first element of gradient and x_t is not finite."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Opens a store of a kind, recorded once: ``stores("signal")``."""
    made: dict[str, OpenRun] = {}

    def go(kind: str) -> OpenRun:
        if kind not in made:
            path = tmp_path_factory.mktemp("kinds") / f"{kind}.zarr"
            made[kind] = OpenRun(any_sample.save(path, kind, marred=[BAD]))
        return made[kind]

    return go


def frame(run, sample=1, step=2, cells=(0, 3), limits="cell"):
    """Tiles ``(cell, tensor, height, width, 3)`` by name of the tensor, and their description."""
    picture = Tiles().frame(run, sample, step, cells, limits)
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).astype(int)
    height, width = pixels.shape[0] // len(cells), pixels.shape[1] // len(run.tensors)
    tiles = pixels.reshape(len(cells), height, len(run.tensors), width, 3).swapaxes(1, 2)
    return {name: tiles[:, i] for i, name in enumerate(run.tensors)}, json.loads(picture.description)


def stored(run, name, cell, sample, step):
    """Values of the store, read by xarray alone."""
    at = dict(zip(CELL_DIMS, np.unravel_index(cell, any_sample.CELLS), strict=True))
    return open_store(run.path)[name].isel(at, drop=True).isel(sample=sample, timestep=step).values


def place(tile, colour):
    """Centre of the pixels of one colour, x and y in pixels."""
    near = np.abs(tile - hex_to_rgb(colour)).sum(axis=-1) < 60
    rows, columns = np.nonzero(near)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def unpacked(axis, trace):
    """Coordinates of a trace, which plotly may have packed."""
    values = trace[axis]
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]) if isinstance(values, dict) else values


@pytest.mark.parametrize(
    ("dims", "name", "order"),
    [
        (("channel", "height", "width"), "image", ("channel", "height", "width")),
        (VIDEO_DIMS, "video", VIDEO_DIMS),
        (("channel", "time"), "curves", ("channel", "time")),
        (("horizon", "action"), "curves", ("action", "horizon")),
        (("time",), "curves", ("time",)),
        (("axis",), "point", ("axis",)),
        (("point", "axis"), "points", ("point", "axis")),
        (("height", "width", "channel"), "unknown", ("height", "width", "channel")),
        (("row", "column"), "unknown", ("row", "column")),
    ],
)
def test_names_of_dimensions_say_what_a_sample_is(dims, name, order):
    assert sample_kind(dims) == SampleKind(name, order)


@pytest.mark.parametrize("kind", ["signal", "series", "trajectory"])
@pytest.mark.parametrize("limits", ["cell", "shared"])
def test_curves_pass_through_the_values_of_the_store(stores, kind, limits):
    run = stores(kind)
    tiles, about = frame(run, limits=limits)
    for name in run.tensors:
        rows = [stored(run, name, cell, 1, 2) for cell in (0, 3)]
        largest = [np.abs(row).max() for row in rows]
        for row, values in enumerate(rows):
            end = max(largest) if limits == "shared" else largest[row]
            assert about["limits"][name][row] == pytest.approx(end, rel=1e-4)
            assert about["norms"][name][row] == pytest.approx(np.linalg.norm(values), rel=1e-4)
            lines = values.T if kind == "trajectory" else np.atleast_2d(values)
            # the last line is drawn over the others
            shown, colour = lines[-1], hex_to_rgb(curves.LINES[len(lines) - 1])
            height, width = tiles[name][row].shape[:2]
            assert (height, width) == (curves.HEIGHT, curves.WIDTH)
            for i, value in enumerate(shown):
                column = int(width * (i + 0.5) / len(shown))
                near = np.abs(tiles[name][row][:, column] - colour).sum(axis=-1) < 160
                y = np.flatnonzero(near) + 0.5
                expected = height / 2 - (height / 2 - 5) * value / end
                assert np.abs(y - expected).min() <= 1.5, (name, row, i)


def test_an_element_that_is_not_finite_is_a_magenta_column(stores):
    run = stores("signal")
    tiles, about = frame(run, step=3)
    assert about["nonfinite"] == [0, 2]
    magenta = (tiles["gradient"] == hex_to_rgb(MAGENTA)).all(axis=-1)
    width = curves.WIDTH / 32
    assert not magenta[0].any()
    assert set(np.nonzero(magenta[1])[1]) <= set(range(int(np.ceil(width))))
    assert magenta[1, :, 2].mean() > 0.9
    assert not (tiles["pred_original_sample"] == hex_to_rgb(MAGENTA)).all(axis=-1).any()


def test_long_curves_keep_their_extremes():
    line = np.zeros(10_000)
    line[4321], line[7654] = 1, -1
    tile = curves.finals(line[None, None])[0].astype(int)
    blue = np.abs(tile - hex_to_rgb(curves.LINES[0])).sum(axis=-1) < 200
    assert blue[:8, int(curves.WIDTH * 0.4321)].any()
    assert blue[-8:, int(curves.WIDTH * 0.7654)].any()


@pytest.mark.slow
def test_a_point_lies_among_the_others_and_its_gradient_is_an_arrow(stores):
    run = stores("point")
    tiles, about = frame(run)
    reach = planes.SIZE / 2 - 24
    for row, cell in enumerate((0, 3)):
        for name in ("x_t", "pred_original_sample"):
            crowd = np.array([stored(run, name, cell, sample, 2) for sample in range(any_sample.TENSORS)])
            end = np.abs(crowd).max()
            assert about["limits"][name][row] == pytest.approx(end, rel=1e-4)
            expected = planes.SIZE / 2 + reach * crowd / end * [1, -1]
            assert np.abs(place(tiles[name][row], PALETTE[0]) - expected[1]).max() < 1
            for other in np.delete(expected, 1, axis=0):
                x, y = np.floor(other).astype(int)
                assert (tiles[name][row][y, x] < 255).any(), (name, row)
        gradient = stored(run, "gradient", cell, 1, 2)
        assert about["limits"]["gradient"][row] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
        start = place(tiles["x_t"][row], PALETTE[0])
        arrow = (place(tiles["gradient"][row], PALETTE[1]) - start) * [1, -1]
        assert arrow @ gradient / np.linalg.norm(arrow) / np.linalg.norm(gradient) > 0.98


def test_points_of_half_precision_are_scaled_by_their_exponents(stores, tmp_path):
    half = OpenRun(any_sample.save(tmp_path / "half.zarr", "point", marred=[BAD], dtype="float16"))
    assert "x_t_exponent" in half.ds
    (tiles, about), (plain, wanted) = frame(half), frame(stores("point"))
    for name in half.tensors:
        np.testing.assert_allclose(about["limits"][name], wanted["limits"][name], rtol=2e-3)
        assert (np.abs(tiles[name] - plain[name]).max(axis=-1) > 60).mean() < 0.01


def test_a_picture_of_a_point_is_complete_once_all_points_around_it_are(opened):
    ds = small_store.of_points(small_store.recorded())
    whole, growing = ds.copy(deep=True), ds.copy(deep=True)
    growing["written"][0, 0, 0, 1, 3, 5:] = 0  # sample 3 of 0 to 3 with tensors
    for store, complete in ((whole, True), (growing, False)):
        run = opened(store, f"{complete}.zarr")
        assert Tiles().frame(run, 1, 4, [1], "cell").complete
        picture = Tiles().frame(run, 1, 6, [1], "cell")
        assert picture.complete == complete
        assert json.loads(picture.description)["written"] == [True]
        assert Tiles().thumbnails(run, 1, 0, 2).complete == complete


def test_a_point_that_is_not_finite_has_no_place_and_a_magenta_frame(stores):
    tiles, about = frame(stores("point"), step=3)
    assert about["nonfinite"] == [0, 2]
    for name, framed in {"gradient": True, "x_t": True, "pred_original_sample": False}.items():
        assert (tiles[name][1][0] == hex_to_rgb(MAGENTA)).all() == framed
        assert not (tiles[name][0] == hex_to_rgb(MAGENTA)).all(axis=-1).any()


def test_a_set_of_points_has_each_of_its_points_and_arrows(stores):
    run = stores("cloud")
    tiles, about = frame(run)
    points, end = stored(run, "x_t", 3, 1, 2), about["limits"]["x_t"][1]
    assert end == pytest.approx(np.abs(points).max(), rel=1e-4)
    for x, y in planes.SIZE / 2 + (planes.SIZE / 2 - 24) * points / end * [1, -1]:
        assert np.abs(tiles["x_t"][1][int(y), int(x)] - hex_to_rgb(PALETTE[0])).sum() < 60
    gradients = stored(run, "gradient", 3, 1, 2)
    assert about["limits"]["gradient"][1] == pytest.approx(np.linalg.norm(gradients, axis=1).max(), rel=1e-4)


@pytest.mark.slow
def test_one_axis_has_a_row_for_each_sample_and_many_show_the_first_two(stores):
    number, space = stores("number"), stores("space")
    x, y = place(frame(number)[0]["x_t"][1], PALETTE[0])
    crowd = np.array([stored(number, "x_t", 3, sample, 2)[0] for sample in range(6)])
    assert x == pytest.approx(80 + 56 * crowd[1] / np.abs(crowd).max(), abs=1)
    assert y == pytest.approx(80 - 56 * (1 - 2 * 1.5 / 6), abs=1)
    crowd = np.array([stored(space, "x_t", 3, sample, 2)[:2] for sample in range(6)])
    expected = 80 + 56 * crowd[1] / np.abs(crowd).max() * [1, -1]
    np.testing.assert_allclose(place(frame(space)[0]["x_t"][1], PALETTE[0]), expected, atol=1)


def test_frames_of_a_video_are_in_a_row(stores):
    run = stores("video")
    tile = frame(run)[0]["pred_original_sample"][1]
    frames = [0, 1, 3, 4, 5, 6, 8, 9]
    values = stored(run, "pred_original_sample", 3, 1, 2)
    assert tile.shape == (8, 8 * 9 - 1, 3)
    for i, number in enumerate(frames):
        np.testing.assert_array_equal(tile[:, 9 * i : 9 * i + 8], image(values[None, :, number])[0])
        assert (tile[:, 9 * i + 8 : 9 * i + 9] == 255).all()
    assert caption(run.kind, {"frame": 10}) == "Frames 0, 1, 3, 4, 5, 6, 8, 9 of 0 to 9."
    assert caption(run.kind, {"frame": 4}) == "All 4 frames."


@pytest.mark.parametrize("kind", sorted(set(SHAPES) - {"table"}))
def test_final_samples_are_drawn(stores, kind):
    run = stores(kind)
    picture = Tiles().thumbnails(run, 3, 0, SAMPLES - 1)
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).astype(int)
    assert picture.complete
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 8
    tile = pixels[height:, 2 * width : 3 * width]  # sample 10
    if kind in ("signal", "series"):
        finals = open_store(run.path)["image"].values.reshape(4, SAMPLES, *SHAPES[kind][0])[3]
        line = np.atleast_2d(finals[10])[-1]
        column = tile[:, int(width * 5.5 / len(line))]
        near = np.abs(column - hex_to_rgb(curves.LINES[len(np.atleast_2d(finals[10])) - 1])).sum(axis=-1) < 160
        expected = height / 2 - (height / 2 - 5) * line[5] / np.abs(finals).max()
        assert np.abs(np.flatnonzero(near) + 0.5 - expected).min() <= 1.5
    if kind == "point":
        finals = open_store(run.path)["image"].values.reshape(4, SAMPLES, 2)[3]
        expected = 80 + 56 * finals[10] / np.abs(finals).max() * [1, -1]
        np.testing.assert_allclose(place(tile, PALETTE[0]), expected, atol=1)


def test_what_cannot_be_drawn_is_said_and_all_else_is_shown(stores):
    run = stores("table")
    reason = "a sample of shape 3 x 4 over row, column cannot be drawn"
    assert run.not_drawn.startswith(reason)
    assert run.tensors == ()
    for draw in (lambda: Tiles().frame(run, 0, 0, [0], "cell"), lambda: Tiles().thumbnails(run, 0, 0, 1)):
        with pytest.raises(GradscopeError, match=reason):
            draw()
    client = create_app([run.path]).server.test_client()
    assert client.get(f"/thumbnails/{run.key}/0.png?samples=0-3").status_code == 404
    for name, page in pages.PAGES.items():
        shown = texts(page.layout(run, default(run).to(name)))
        assert shown
        if name == "samples":
            assert reason[2:] in str(shown)
    assert len(run.findings()) > 0


@pytest.mark.parametrize("kind", SHAPES)
def test_every_page_opens(stores, kind):
    run = stores(kind)
    for name, page in pages.PAGES.items():
        assert texts(page.layout(run, default(run).to(name)))


def test_lines_are_named_and_the_first_seven_are_drawn():
    kind = SampleKind("curves", ("channel", "time"))
    assert line_names(kind, {"channel": 2, "time": 9}) == {"channel 0": PALETTE[0], "channel 1": PALETTE[1]}
    assert len(line_names(kind, {"channel": 64, "time": 9})) == 7
    assert caption(kind, {"channel": 64}) == "A line for each of the first 7 of 64 over channel, along time."


def test_a_canvas_cuts_off_what_lies_outside():
    canvas = Canvas(10, 20)
    canvas.path(np.array([-1e9, 1e9, np.nan]), np.array([5.0, 5.0, 1.0]), "#000000", 2)
    canvas.dots(np.array([50.0, np.inf]), np.array([5.0, 5.0]), "#FF0000", 3)
    pixels = canvas.pixels()
    assert (pixels[5] == 0).all()
    assert (pixels[[0, 9]] == 255).all()


def test_the_page_of_samples_has_a_figure_of_all_points(stores):
    run = stores("point")
    view = {"store": run.key, "page": "samples", "url": f"samples?store={run.key}"}
    parts = ("frame-{}.hidden", "reason-{}.children", "title-{}.children", "menu-{}.children", "{}.figure")
    answer = ask(
        create_app([run.path]).server.test_client(),
        [part.format("samples-points") for part in parts],
        [({"key": "cell", "type": "control"}, "value", "3"), ("version", "data", None)],
        [("view", "data", view)],
    )
    drawn = answer["samples-points"]["figure"]["data"]
    found = {
        k: xy for trace in drawn for k, *xy in zip(trace["customdata"], *map(unpacked, "xy", [trace] * 2), strict=True)
    }
    finals = open_store(run.path)["image"].values.reshape(4, SAMPLES, 2)[3]
    np.testing.assert_allclose([found[k] for k in range(SAMPLES)], finals)
    csv = Call("finals", {"cell": dict(run.cell(3))}).csv(run)
    assert len([line for line in csv.splitlines() if not line.startswith("#")]) == 1 + SAMPLES
    other = create_app([stores("signal").path]).server.test_client()
    assert "samples-points" not in json.dumps(show(other, "samples"))


def test_the_page_of_a_trajectory_has_the_path_of_a_point(stores):
    shown = figures(stores("point"), 3, 1, [0, 3], ["gradient_norm"])
    numbers = shown["path"].call.numbers(stores("point"))
    rows = numbers[(numbers["classifier"] == "non_robust")]
    expected = [stored(stores("point"), "x_t", 3, 1, step) for step in range(any_sample.TIMESTEPS)]
    np.testing.assert_allclose(rows[["x_t_0", "x_t_1"]], expected)
    assert "path" not in figures(stores("point"), 3, any_sample.TENSORS, [0, 3], ["gradient_norm"])
    assert "path" not in figures(stores("cloud"), 3, 1, [0, 3], ["gradient_norm"])


def test_thumbnails_of_a_latent_model_are_its_pictures(tmp_path):
    """Latents of 4 x 2 x 2 are stored as `image`, and pictures of 3 x 4 x 4 that were decoded from them."""
    grid = any_sample.grid("image")
    grid = replace(grid, sample_shape=(4, 2, 2), classifier=("a",), guidance_scale=(0.5,), batch_size=12)
    pictures = torch.rand(12, 3, 4, 4) * 2 - 1
    with Recorder(
        tmp_path / "latent.zarr", grid, [Norm("gradient")], device=torch.device("cpu"), picture_shape=(3, 4, 4)
    ) as recorder:
        record, x = recorder.trajectory((0, 0, 0, 0), 0), torch.zeros(12, 4, 2, 2)
        for step, t in enumerate(grid.timestep):
            record(GuidedStep(step=step, timestep=int(t), x_t=x, gradient=x + 1, prev_sample=x, picture=pictures))
    run = OpenRun(tmp_path / "latent.zarr")
    picture = np.asarray(Image.open(io.BytesIO(Tiles().thumbnails(run, 0, 0, 11).png)).convert("RGB"))
    expected = np.rint(127.5 * (pictures.numpy() + 1)).transpose(0, 2, 3, 1)
    assert picture.shape == (2 * 4, 8 * 4, 3)
    np.testing.assert_array_equal(picture[:4, 4:8], expected[1])
