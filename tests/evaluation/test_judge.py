import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import nn

from gradscope.evaluation import judge
from gradscope.evaluation.judge import judge_store
from gradscope.store import Array, Grid, Schema, create

CPU = torch.device("cpu")
SHAPE = (2, 1, 2, 2)  # cells
SAMPLES = 7
LABEL = np.array([0, 1, 2, 0, 1, 2, 0])


class Brightest(nn.Module):
    """The class is the brightest channel, or, with `sign` -1, the darkest."""

    def __init__(self, sign: int = 1) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x):
        return self.sign * x.mean(dim=(2, 3))


class Last(nn.Module):
    def forward(self, x):
        return torch.tensor([0.0, 0.0, 1.0]).expand(len(x), 3)


@pytest.fixture
def images():
    images = np.random.default_rng(0).normal(size=(*SHAPE, SAMPLES, 3, 4, 4)).astype(np.float32)
    images[0, 0, 0, 0, 3, 2, 1, 1] = np.nan
    images[1, 0, 1, 1, 5, 0, 0, 0] = np.inf
    images[1, 0, 0, 1, 6] = np.nan
    return images


@pytest.fixture
def store(tmp_path, images):
    times = np.array([900, 400])
    grid = Grid(
        classifier=("bright", "dark"),
        classifier_input=("x_t",),
        stabilizer=("none", "adam"),
        guidance_scale=(0.0, 0.4),
        label=LABEL,
        seed=np.arange(SAMPLES),
        timestep=times,
        alphas_cumprod=times / 1000,
        sigma=times / 1000,
        image_shape=(3, 4, 4),
        batch_size=4,
    )
    arrays = (
        Array("gradient_norm", "scalar", {"long_name": "norm", "units": "1"}),
        Array("image", "final", {"long_name": "image", "units": "1"}, dims=("channel", "height", "width")),
    )
    path = tmp_path / "mine.zarr"
    create(path, Schema(grid, arrays), {"classes": ["a", "b", "c"]})
    zarr.open_group(path, mode="r+")["image"][...] = images
    return path


@pytest.fixture(params=[3, 256], ids=["small batches", "one batch"])
def guides(monkeypatch, request):
    monkeypatch.setattr(judge, "_BATCH", request.param)
    return {"bright": Brightest(), "dark": Brightest(-1)}


def expected(images: np.ndarray, sign: int) -> np.ndarray:
    verdict = (sign * images.mean(axis=(-2, -1), dtype=np.float64)).argmax(axis=-1)
    return np.where(np.isfinite(images).all(axis=(-3, -2, -1)), verdict, -1)


def test_each_cell_is_judged_by_its_guide_and_by_the_judge(store, guides, images):
    judge_store(store, guides, Last(), CPU)
    ds = xr.open_zarr(store)
    own = np.stack([expected(images[0], 1), expected(images[1], -1)])
    other = np.where(own == -1, -1, 2)
    for name, prediction in {"own": own, "judge": other}.items():
        assert ds[f"{name}_prediction"].dims == (
            "classifier", "classifier_input", "stabilizer", "guidance_scale", "sample",
        )  # fmt: skip
        np.testing.assert_array_equal(ds[f"{name}_prediction"], prediction)
        np.testing.assert_allclose(ds[f"{name}_accuracy"], (prediction == LABEL).mean(axis=-1))
        for kind in ("prediction", "accuracy"):
            attributes = ds[f"{name}_{kind}"].attrs
            assert attributes["units"] == "1"
            assert attributes["long_name"]
            assert attributes["equation"]


def test_images_that_are_not_finite_have_no_class(store, guides):
    judge_store(store, guides, Last(), CPU)
    ds = xr.open_zarr(store)
    for name in ("own_prediction", "judge_prediction"):
        where = np.argwhere(ds[name].values == -1).tolist()
        assert where == [[0, 0, 0, 0, 3], [1, 0, 0, 1, 6], [1, 0, 1, 1, 5]]
    assert ds.judge_accuracy.values[1, 0, 1, 1] == pytest.approx(1 / 7)  # sample 5 was one of two right ones


def test_without_a_judge_only_the_guides_judge(store, guides, images):
    judge_store(store, guides, None, CPU)
    ds = xr.open_zarr(store)
    assert {name for name in ds.data_vars if "prediction" in name or "accuracy" in name} == {
        "own_prediction",
        "own_accuracy",
    }
    np.testing.assert_array_equal(ds.image, images)


def test_a_second_evaluation_replaces_the_first(store, guides):
    judge_store(store, guides, Last(), CPU)
    judge_store(store, guides, Brightest(), CPU)
    ds = xr.open_zarr(store)
    assert set(np.unique(ds.judge_prediction)) == {-1, 0, 1, 2}
    np.testing.assert_array_equal(ds.judge_prediction[0], ds.own_prediction[0])
