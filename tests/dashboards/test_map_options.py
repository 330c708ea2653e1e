"""Limits, scales and channels of maps, and the marks of what they cannot show, against numbers found by loops."""

import io
import json
from math import log10

import any_sample
import numpy as np
import pytest
import small_store
from PIL import Image
from plotly.colors import sample_colorscale, unlabel_rgb

from dashboards.data.open_run import OpenRun
from dashboards.images.tiles import Tiles
from gradscope.errors import GradscopeError

SIZE = 8
NAMES = ("gradient", "update", "x_t", "pred_original_sample")
CELLS = [1, 3, 9]


@pytest.fixture(scope="module")
def recorded():
    """The content of a store with gradients that are zero, nearly zero and huge at step 4 of sample 1."""
    ds = small_store.evaluated()
    for cell, factor in {1: 1e-5, 3: 0.0, 9: 1e3}.items():
        at = np.unravel_index(cell, small_store.SHAPE)
        ds["gradient"][(*at, 1, 4)] *= factor
        ds["gradient_norm"][(*at, 1, 4)] *= factor
    ds["written"][0, 0, 0, 1, 2, 7:] = 1
    return ds


@pytest.fixture(scope="module")
def marred(recorded, tmp_path_factory):
    return OpenRun(small_store.save(recorded, tmp_path_factory.mktemp("options") / "s.zarr"))


def shown(run, sample, step, *options):
    """The tiles ``(cell, tensor, height, width, 3)`` and their description."""
    picture = Tiles().frame(run, sample, step, CELLS, *options)
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).astype(int)
    tiles = pixels.reshape(len(CELLS), SIZE, len(NAMES), SIZE, 3).swapaxes(1, 2)
    return tiles, json.loads(picture.description), picture.complete


def tensor(ds, name, cell, sample):
    """One trajectory, ``(timestep, channel, height, width)``."""
    return ds[name].values[(*np.unravel_index(cell, small_store.SHAPE), sample)].astype(np.float64)


def colours(values, end, log):
    """The colours of a map by a loop."""
    out = np.zeros((*values.shape, 3))
    for at in np.ndindex(values.shape):
        share = min(max(values[at] / end, -1), 1)
        if log:
            share = (1 if share > 0 else -1) * log10(1 + 1000 * abs(share)) / log10(1001)
        place = round((share + 1) / 2 * 254) / 254
        out[at] = unlabel_rgb(sample_colorscale("RdBu_r", [place])[0])
    return np.rint(out)


@pytest.mark.parametrize("channel", [None, 0, 2])
@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("limits", ["cell", "shared", "fixed"])
def test_maps_have_the_chosen_limit_scale_and_channel(marred, recorded, limits, scale, channel):
    tiles, about, _ = shown(marred, 0, 5, limits, scale, channel)
    for column, name in enumerate(NAMES[:2]):
        maps = []
        for cell in CELLS:
            along = tensor(recorded, name, cell, 0)
            maps.append(along.mean(axis=1) if channel is None else along[:, channel])
        quantile = lambda values: np.quantile(np.abs(values), 0.995)  # noqa: E731
        for row, along in enumerate(maps):
            end = {
                "cell": quantile(along[5]),
                "shared": quantile(np.stack([each[5] for each in maps])),
                "fixed": max(quantile(step) for step in along),
            }[limits]
            assert about["limits"][name][row] == pytest.approx(end, rel=1e-4)
            assert about["low"][name][row] == pytest.approx(along[5].min(), rel=1e-4)
            assert about["high"][name][row] == pytest.approx(along[5].max(), rel=1e-4)
            assert np.abs(tiles[row, column] - colours(along[5], end, scale == "log")).max() <= 1


def test_a_limit_over_t_is_that_of_the_recorded_steps(marred, recorded):
    """Cell 1 has tensors of sample 2 at seven steps."""
    _, about, complete = shown(marred, 2, 3, "fixed")
    along = tensor(recorded, "gradient", 1, 2)[:7].mean(axis=1)
    assert about["limits"]["gradient"][0] == pytest.approx(max(np.quantile(np.abs(m), 0.995) for m in along), rel=1e-4)
    assert not complete
    assert shown(marred, 2, 3, "cell")[2]
    assert shown(marred, 0, 3, "fixed")[2]


def test_a_limit_over_t_is_read_once(marred, monkeypatch):
    read = []
    tiles = Tiles()
    original = tiles._reader.along_t
    monkeypatch.setattr(tiles._reader, "along_t", lambda *at: read.append(at[1:]) or original(*at))
    for step in (3, 4, 5):
        tiles.frame(marred, 0, step, CELLS, "fixed")
    assert len(read) == len(set(read)) == 2 * len(CELLS)
    tiles.frame(marred, 1, 3, CELLS, "fixed")
    assert len(read) == 4 * len(CELLS)


@pytest.mark.parametrize("channel", [None, 1])
def test_images_are_in_their_colours_or_one_channel_is_grey(marred, recorded, channel):
    tiles, about, _ = shown(marred, 0, 5, "cell", "log", channel)
    for column, name in enumerate(NAMES[2:], start=2):
        for row, cell in enumerate(CELLS):
            values = tensor(recorded, name, cell, 0)[5]
            seen = values if channel is None else np.stack([values[channel]] * 3)
            expected = 127.5 * (np.moveaxis(seen, 0, -1).clip(-1, 1) + 1)
            np.testing.assert_allclose(tiles[row, column], expected, atol=0.51)
            assert about["low"][name][row] == pytest.approx(seen.min(), rel=1e-4)
            assert about["high"][name][row] == pytest.approx(seen.max(), rel=1e-4)
            assert about["norms"][name][row] == pytest.approx(np.linalg.norm(values), rel=1e-4)


def test_zero_nearly_zero_and_too_weak_are_told_apart(marred, recorded):
    for cell, expected in {1: "nearly", 3: "all", 9: ""}.items():
        at = np.unravel_index(cell, small_store.SHAPE)
        norm = np.linalg.norm(tensor(recorded, "gradient", cell, 1)[4])
        usual = np.median([n for n in recorded["gradient_norm"].values[at].ravel() if n > 0])
        assert expected == ("all" if norm == 0 else "nearly" if norm < usual / 1000 else "")
        zero = shown(marred, 1, 4, "cell")[1]["zero"]
        assert zero["gradient"][CELLS.index(cell)] == expected
        assert zero["update"] == zero["x_t"] == ["", "", ""]
    shared = json.loads(Tiles().frame(marred, 1, 4, [9, 11], "shared").description)
    largest = [np.abs(tensor(recorded, "gradient", cell, 1)[4].mean(axis=0)).max() for cell in (9, 11)]
    assert largest[1] < 0.02 * shared["limits"]["gradient"][0]
    assert shared["zero"]["gradient"] == ["", "faint"]
    log = json.loads(Tiles().frame(marred, 1, 4, [9, 11], "shared", "log").description)
    share = log10(1 + 1000 * largest[1] / shared["limits"]["gradient"][0]) / log10(1001)
    assert log["zero"]["gradient"] == ["", "faint" if share < 0.02 else ""]


def test_without_recorded_norms_only_zeros_are_marked(recorded, opened):
    run = opened(recorded[["gradient", "written"]])
    assert json.loads(Tiles().frame(run, 1, 4, CELLS, "cell").description)["zero"]["gradient"] == ["", "all", ""]


def test_a_channel_that_does_not_exist_is_refused(marred):
    with pytest.raises(GradscopeError, match="channel 3: one of mean, 0, 1, 2"):
        Tiles().frame(marred, 0, 0, [0], "cell", "linear", 3)


@pytest.mark.parametrize("kind", ["signal", "trajectory", "point", "cloud", "video"])
def test_other_samples_have_limits_over_t_too(kind, tmp_path):
    run = OpenRun(any_sample.save(tmp_path / "s.zarr", kind))
    ds = run.ds
    about = json.loads(Tiles().frame(run, 1, 2, [3], "fixed").description)
    at = np.unravel_index(3, any_sample.CELLS)
    for name in run.tensors:
        along = ds[name].values[(*at, 1)].astype(np.float64)
        if kind == "video":
            frames = [0, 1, 3, 4, 5, 6, 8, 9]
            means = along.mean(axis=1)[:, frames]
            end = max(np.quantile(np.abs(step), 0.995) for step in means) if name == "gradient" else 1
        elif kind in ("point", "cloud") and name == "gradient":
            end = np.sqrt((along**2).sum(axis=-1)).max()
        else:
            end = np.abs(along).max()
        assert about["limits"][name] == [pytest.approx(end, rel=1e-4)], name
