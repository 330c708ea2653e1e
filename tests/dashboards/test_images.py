"""The pictures, element by element, against pictures that are drawn by a loop."""

import io
import json
import warnings

import numpy as np
import pytest
import small_store
from benchmarks.make_store import Run, Settings, record
from PIL import Image
from plotly.colors import hex_to_rgb, sample_colorscale, unlabel_rgb

from dashboards.data.open_run import OpenRun
from dashboards.images import png
from dashboards.images.tensors import MAGENTA
from dashboards.images.tiles import Tiles
from gradscope.errors import GradscopeError
from gradscope.store import StoreWriter, create, open_store
from gradscope.store.chunks import Chunks

SIZE = 8
NAMES = ("gradient", "update", "x_t", "pred_original_sample")
SETTINGS = Settings(timesteps=20, samples=4, batch_size=2, tensor_samples=3, size=SIZE, stabilizers=("none",))


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGBA"))


def tile(picture, row, column):
    return pixels(picture)[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]


@pytest.fixture(scope="module")
def marred(tmp_path_factory):
    """A store with a tensor that is not finite, one that is zero, one of another scale and one that is not written."""
    ds = small_store.evaluated()
    gradient = ds["gradient"]
    gradient[0, 0, 0, 1, 1, 4, 0, 2, 3] = np.nan
    gradient[0, 0, 0, 1, 1, 4, 1, 5, 6] = np.inf
    gradient[0, 0, 1, 0, 1, 4] = 0
    gradient[0, 0, 1, 1, 1, 4] *= 1000
    ds["written"][0, 1, 0, 0, 1, 4] = 1
    ds["image"] = ds["image"].fillna(ds["image"][0, 0, 0, 0, 0] + 0.01 * ds["sample"])
    ds["image"][1, 0, 0, 0, 5, 2, 0, 1] = np.nan
    ds["written"][1, 0, 0, 0, 7, -1] = 0
    return small_store.save(ds, tmp_path_factory.mktemp("marred") / "s.zarr")


def expected_map(values, end):
    """Colours of one tile by a loop."""
    out = np.zeros((SIZE, SIZE, 4), dtype=np.uint8)
    for y in range(SIZE):
        for x in range(SIZE):
            mean = float(np.mean(values[:, y, x].astype(np.float64)))
            if not np.isfinite(mean):
                out[y, x] = (255, 0, 255, 255)
                continue
            at = 0.5 if end == 0 else (min(max(mean / end, -1), 1) + 1) / 2
            at = round(at * 254) / 254
            out[y, x] = (*(round(c) for c in unlabel_rgb(sample_colorscale("RdBu_r", [at])[0])), 255)
    return out


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("limits", ["shared", "cell"])
def test_a_frame_shows_every_element(marred, limits):
    run, ds = OpenRun(marred), open_store(marred).load()
    cells = [0, 1, 2, 3, 4, 9]
    picture = Tiles().frame(run, 1, 4, cells, limits)
    assert pixels(picture).shape == (6 * SIZE, 4 * SIZE, 4)
    about = json.loads(picture.description)
    at = [np.unravel_index(cell, small_store.SHAPE) for cell in cells]
    raw = {name: [ds[name].values[(*i, 1, 4)] for i in at] for name in NAMES}
    there = [True, True, True, True, False, True]
    assert about["written"] == there
    assert about["nonfinite"] == [0, 2, 0, 0, 0, 0]
    assert not picture.complete
    for column, name in enumerate(("gradient", "update")):
        means = [values.mean(axis=0, dtype=np.float64) for values in raw[name]]
        groups = (
            [[m for m, k in zip(means, there, strict=True) if k]] * 6 if limits == "shared" else [[m] for m in means]
        )
        for row, group in enumerate(groups):
            if not there[row]:
                assert about["limits"][name][row] is None
                assert (tile(picture, row, column) == 0).all()
                continue
            known = np.concatenate([m[np.isfinite(m)] for m in group])
            end = np.quantile(np.abs(known), 0.995)
            assert about["limits"][name][row] == pytest.approx(end, rel=1e-4)
            difference = tile(picture, row, column).astype(int) - expected_map(raw[name][row], end)
            assert np.abs(difference).max() <= 1, (name, row)
    assert (about["limits"]["gradient"][2] == 0) is (limits == "cell")
    white = tile(picture, 2, 0)
    assert (white == white[0, 0]).all()
    assert white[0, 0, :3].min() > 240
    assert (tile(picture, 1, 0)[2, 3] == (*hex_to_rgb(MAGENTA), 255)).all()
    assert (tile(picture, 1, 0)[5, 6] == (*hex_to_rgb(MAGENTA), 255)).all()
    for column, name in enumerate(NAMES[2:], start=2):
        assert about["limits"][name] == [1, 1, 1, 1, None, 1]
        for row in np.flatnonzero(there):
            values = np.moveaxis(raw[name][row], 0, -1).clip(-1, 1)
            np.testing.assert_allclose(tile(picture, row, column)[..., :3], 127.5 * (values + 1), atol=0.51)
    for name in NAMES:
        for row, values in enumerate(raw[name]):
            norm = np.linalg.norm(values.astype(np.float64).ravel())
            expected = pytest.approx(norm, rel=1e-4) if np.isfinite(norm) else None
            assert about["norms"][name][row] == expected, (name, row)


def test_colours_and_norms_at_every_scale(tmp_path):
    """Gradients of 1e-30 and of 1e30, whose squares float32 does not hold."""
    ds = small_store.recorded()[["gradient", "written"]]
    unit = ds["gradient"].values[0, 0, 0, 1, 0, 3]
    ds["gradient"] = ds["gradient"].astype(np.float32)
    ds["gradient"][0, 0, 0, 0, 0, 3], ds["gradient"][0, 0, 0, 1, 0, 3] = 1e-30 * unit, 1e30 * unit
    run = OpenRun(small_store.save(ds, tmp_path / "s.zarr"))
    picture = Tiles().frame(run, 0, 3, [0, 1], "cell")
    np.testing.assert_array_equal(tile(picture, 0, 0), tile(picture, 1, 0))
    small, large = json.loads(picture.description)["norms"]["gradient"]
    assert small == pytest.approx(1e-30 * np.linalg.norm(unit), rel=1e-4)
    assert large == pytest.approx(1e30 * np.linalg.norm(unit), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_recorded_run_is_shown_and_each_chunk_read_once(tmp_path, monkeypatch, codec):
    monkeypatch.setattr("gradscope.store.schema._TENSOR_CHUNK_BYTES", 10 * 3 * SIZE**2 * 4)  # ten steps
    path = record(tmp_path / "s.zarr", Run(Settings(**{**vars(SETTINGS), "codec": codec})))
    run, images, ds = OpenRun(path), Tiles(), open_store(path).load()
    reads = []
    original = Chunks.around
    monkeypatch.setattr(Chunks, "around", lambda self, at: reads.append(at) or original(self, at))
    for step in range(20):
        picture = images.frame(run, 2, step, [0, 3], "shared")
        assert picture.complete
        norms = json.loads(picture.description)["norms"]["gradient"]
        np.testing.assert_allclose(norms, ds["gradient_norm"].values.reshape(4, 4, 20)[[0, 3], 2, step], rtol=1e-4)
        guess = ds["pred_original_sample"].values.reshape(4, 4, 20, 3, SIZE, SIZE)[3, 2, step]
        np.testing.assert_allclose(tile(picture, 1, 3)[..., :3], 127.5 * (np.moveaxis(guess, 0, -1) + 1), atol=0.51)
    assert len(reads) == 2 * 4 * 2  # cells, tensors, chunks of ten steps


def test_a_half_precision_tensor_is_scaled_by_its_exponents(tmp_path):
    ds = small_store.recorded()[["gradient", "written"]]
    plain = Tiles().frame(OpenRun(small_store.save(ds, tmp_path / "plain.zarr")), 0, 3, [1, 2], "cell")
    exponent = np.frexp(np.abs(ds["gradient"]).max(["channel", "height", "width"]).values)[1].astype(np.int16)
    ds["gradient"] = (ds["gradient"] * 2.0 ** -exponent[..., None, None, None].astype(float)).astype(np.float16)
    ds["gradient_exponent"] = (ds["written"].dims, exponent)
    half = Tiles().frame(OpenRun(small_store.save(ds, tmp_path / "half.zarr")), 0, 3, [1, 2], "cell")
    assert np.abs(pixels(half).astype(int) - pixels(plain)).max() <= 3
    norms = [json.loads(picture.description)["norms"]["gradient"] for picture in (half, plain)]
    np.testing.assert_allclose(*norms, rtol=1e-3)


def test_a_growing_chunk_is_read_again(tmp_path, hold):
    made = Run(SETTINGS)
    path = tmp_path / "s.zarr"
    create(path, made.schema, made.attributes())
    frames = list(made.frames())[:5]
    images, run = Tiles(), OpenRun(hold(path))
    for end in (3, 5):
        writer = StoreWriter(path, made.schema)
        for frame in frames[:end]:
            writer.submit(frame)
        writer.close()
        run.refresh()
        for step in range(5):
            picture = images.frame(run, 1, step, [0], "shared")
            assert picture.complete is (step < end)
            norm = np.linalg.norm(frames[step].arrays["gradient"][1].ravel()) if step < end else None
            assert json.loads(picture.description)["norms"]["gradient"] == [norm and pytest.approx(norm, rel=1e-4)]


def test_thumbnails_are_the_final_images_in_rows_of_eight(marred):
    run, ds = OpenRun(marred), open_store(marred)
    image = ds["image"].values.reshape(16, 16, 3, SIZE, SIZE)
    picture = Tiles().thumbnails(run, 8, 3, 13)
    assert pixels(picture).shape == (2 * SIZE, 8 * SIZE, 4)
    assert not picture.complete
    for k, sample in enumerate(range(3, 14)):
        shown = tile(picture, k // 8, k % 8)
        if sample == 7:
            assert (shown == 0).all()
            continue
        expected = 127.5 * (np.moveaxis(image[8, sample], 0, -1).clip(-1, 1) + 1)
        if sample == 5:
            expected[0, 1] = hex_to_rgb(MAGENTA)
        np.testing.assert_allclose(shown[..., :3], expected, atol=0.51)
        assert (shown[..., 3] == 255).all()
    assert (tile(picture, 1, 3) == 0).all()
    few = Tiles().thumbnails(run, 0, 2, 4)
    assert pixels(few).shape == (SIZE, 3 * SIZE, 4)
    assert few.complete


def test_one_channel_is_grey_and_two_are_their_mean(tmp_path):
    for channels in (1, 2):
        ds = small_store.recorded()[["gradient", "image", "written"]].isel(channel=slice(channels))
        run = OpenRun(small_store.save(ds, tmp_path / f"{channels}.zarr"))
        picture = Tiles().thumbnails(run, 0, 0, 0)
        expected = 127.5 * (ds["image"].values[0, 0, 0, 0, 0].mean(axis=0).clip(-1, 1) + 1)
        for channel in range(3):
            np.testing.assert_allclose(pixels(picture)[..., channel], expected, atol=0.51)
        assert pixels(Tiles().frame(run, 0, 0, [0], "shared")).shape == (SIZE, SIZE, 4)


def test_unknown_pictures_are_refused_with_the_possible_ones(marred, tmp_path):
    run, images = OpenRun(marred), Tiles()
    for sample, step, cells, text in [
        (4, 0, [0], "sample 4: there are 4 samples with tensors, from 0"),
        (0, 10, [0], "step 10: there are 10 steps, from 0"),
        (0, 0, [3, 16], "cell 16: there are 16 cells, from 0"),
    ]:
        with pytest.raises(GradscopeError, match=text):
            images.frame(run, sample, step, cells, "shared")
    for cell, first, last, text in [
        (16, 0, 1, "cell 16: there are 16 cells"),
        (0, 0, 16, "sample 16: there are 16 samples"),
        (0, 3, 2, "samples 3-2: ascending"),
    ]:
        with pytest.raises(GradscopeError, match=text):
            images.thumbnails(run, cell, first, last)
    ds = small_store.recorded().drop_vars([*NAMES, "image"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = OpenRun(small_store.save(ds, tmp_path / "s.zarr"))
    with pytest.raises(GradscopeError, match="sample 0: there are 0 samples with tensors"):
        images.frame(run, 0, 0, [0], "shared")
    with pytest.raises(GradscopeError, match="no final images"):
        images.thumbnails(run, 0, 0, 0)


def test_steps_without_tensors_are_refused(tmp_path):
    path = record(tmp_path / "s.zarr", Run(Settings(**{**vars(SETTINGS), "tensor_every": 3})))
    run = OpenRun(path)
    assert Tiles().frame(run, 2, 9, [0], "shared").complete
    with pytest.raises(GradscopeError, match="step 10: tensors are kept every 3 steps, from step 0"):
        Tiles().frame(run, 2, 10, [0], "shared")


@pytest.mark.parametrize("channels", [3, 4])
def test_png_files_hold_the_pixels(channels):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    with Image.open(io.BytesIO(png.encode(picture))) as image:
        image.load()
        np.testing.assert_array_equal(np.asarray(image), picture)
