"""A whole evaluation of a made-up store, re-derived cell by cell."""

import json
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import nn

from gradscope.config import DataConfig, EvaluationConfig
from gradscope.data import datasets
from gradscope.errors import GradscopeError
from gradscope.evaluation import distances, evaluate, manifold, real
from gradscope.evaluation.distances import Frechet, Kernel
from gradscope.evaluation.evaluate import evaluate_store
from gradscope.evaluation.evaluators import Evaluators, Settings
from gradscope.evaluation.features import Features
from gradscope.evaluation.manifold import fidelity, radii
from gradscope.intervals import resampled
from gradscope.models.classifiers import Classifier
from gradscope.store import CELL_DIMS, Array, Grid, Schema, add_variables, create, open_store, set_attributes
from gradscope.store.locations.folder import Folder
from gradscope.store.untrusted import checksum

CPU = torch.device("cpu")
CELLS = (2, 1, 2, 2)
SAMPLES = 24
SIZE = 8
CLASSES = ["baseball", "basketball", "soccer ball", "volleyball"]
DATA = DataConfig(name="sportballs", size=SIZE, seed=1)
REAL = 100
TIMES = np.array([900, 400])


class Linear(nn.Module):
    """Logits linear in the image."""

    def __init__(self, seed: int, classes: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, 3 * SIZE**2, generator=generator), requires_grad=False)

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


def by_numpy(seed: int, images: np.ndarray) -> np.ndarray:
    weight = Linear(seed).weight.numpy()
    return (images.reshape(len(images), -1) @ weight.T).argmax(axis=1)


class Means(nn.Module):
    """Three features: the channels' means."""

    def forward(self, x):
        return x.mean(dim=(2, 3))


def make(path, images: np.ndarray, written: np.ndarray | None = None, classes=CLASSES, block: int = 5, cells=CELLS):
    """A store of these final images, ``(*cells, sample, 3, size, size)``."""
    n, size = images.shape[4], images.shape[-1]
    grid = Grid(
        classifier=("one", "two")[: cells[0]],
        classifier_input=("x_t",),
        stabilizer=("none", "adam")[: cells[2]],
        guidance_scale=(0.0, 0.4)[: cells[3]],
        label=np.arange(n) % 4,
        seed=np.arange(n),
        timestep=TIMES,
        alphas_cumprod=TIMES / 1000,
        sigma=TIMES / 1000,
        sample_shape=(3, size, size),
        batch_size=block,
    )
    arrays = (
        Array("gradient_norm", "scalar", {"long_name": "norm", "units": "1"}),
        Array("image", "final", {"long_name": "image", "units": "1"}, dims=("channel", "height", "width")),
    )
    create(path, Schema(grid, arrays), {"classes": classes, "status": "complete", "configuration": "{}"})
    group = zarr.open_group(path, mode="r+")
    group["image"][...] = images
    group["written"][...] = 1 if written is None else written
    return path


@pytest.fixture
def images():
    """Real images of another seed, noisier from cell to cell."""
    drawn = datasets.load(DataConfig(name="sportballs", size=SIZE, seed=2), "test").batch(range(SAMPLES))[0].numpy()
    rng = np.random.default_rng(0)
    noise = 0.1 * np.arange(8).reshape(*CELLS, 1, 1, 1, 1)
    return (drawn + noise * rng.normal(size=(*CELLS, *drawn.shape))).astype(np.float32)


@pytest.fixture
def store(tmp_path, images):
    return make(tmp_path / "mine.zarr", images)


def classifier(seed: int, classes: tuple[str, ...] | None = None, number: int = 4) -> Classifier:
    return Classifier(Linear(seed, number), number, classes)


def evaluators(judge: Classifier | None = None, extractor: bool = True, guides: bool = True, **options) -> Evaluators:
    settings = EvaluationConfig(
        **{"data": DATA, "extractor": "mine:Means", "samples": REAL, "replicates": 30} | options
    )
    return Evaluators(
        Settings(judge="mine:Linear", evaluation=settings),
        {"one": classifier(1), "two": classifier(2)} if guides else {},
        judge,
        Features(Means(), (3, SIZE, SIZE)) if extractor else None,
    )


def evaluated(path, *arguments, **options) -> tuple[xr.Dataset, list[str]]:
    said = []
    evaluate_store(path, evaluators(*arguments, **options), CPU, said.append)
    return xr.open_zarr(path).load(), said


@pytest.fixture(params=[5, 256], ids=["small batches", "one batch"])
def batches(monkeypatch, request):
    monkeypatch.setattr(evaluate, "_BATCH", request.param)
    monkeypatch.setattr(real, "_BATCH", request.param)


INTERVALS = ("fd_Means", "kd_Means", "precision", "recall", "density", "coverage")
VARIABLES = {
    *(f"{who}_{what}" for who in ("own", "judge") for what in ("prediction", "accuracy", "accuracy_interval")),
    "transfer_ratio", "transfer_ratio_interval", "class_accuracy", "class_accuracy_interval", "confusion",
    *(f"{name}{part}" for name in INTERVALS for part in ("", "_interval", "_floor")),
    *(f"{name}_{part}" for name in INTERVALS[:2] for part in ("replicates", "class")),
}  # fmt: skip


@pytest.mark.usefixtures("batches")
def test_the_store_holds_what_was_agreed(store, images):
    before = set(xr.open_zarr(store).variables)
    ds, _ = evaluated(store, classifier(3))
    assert set(ds.variables) - before == VARIABLES | {"class", "judge_class", "bound"}
    dims = {"interval": ("bound",), "replicates": ("replicate",), "class": ("class",), "prediction": ("sample",)}
    for name in VARIABLES:
        last = name.rpartition("_")[2]
        wanted = () if last == "floor" else (*CELL_DIMS, *dims.get(last, ()))
        if name.startswith(("class", "confusion")):
            further = {"confusion": ("class", "judge_class"), "class_accuracy": ("class",)}
            wanted = (*CELL_DIMS, *further.get(name, ("class", "bound")))
        assert ds[name].dims == wanted, name
        for attribute in ("long_name", "units", "equation"):
            assert ds[name].attrs[attribute], (name, attribute)
    for name, values in {"class": CLASSES, "judge_class": CLASSES, "bound": ["low", "high"]}.items():
        assert ds[name].values.tolist() == values
        assert ds[name].attrs["long_name"]
    assert ds.own_prediction.dtype == np.int16
    np.testing.assert_array_equal(ds.image, images)


@pytest.mark.usefixtures("batches")
def test_every_number_is_that_of_its_cells_images(store, images):
    ds, _ = evaluated(store, classifier(3))
    label = ds.label.values
    chosen = np.random.default_rng(0).permutation(20_000)[:REAL]
    pictures, labels = (t.numpy() for t in datasets.load(DATA, "test").batch(chosen.tolist()))
    features = pictures.astype(np.float64).mean(axis=(2, 3))
    floor, reference = features[:SAMPLES], features[SAMPLES:]
    frechet, kernel = Frechet(reference), Kernel(reference)
    counts = resampled(SAMPLES, 30)
    near = reference[:SAMPLES]
    for cell in np.ndindex(CELLS):
        found = {name: ds[name].values[cell] for name in VARIABLES if ds[name].dims}
        np.testing.assert_array_equal(found["own_prediction"], by_numpy(1 + cell[0], images[cell]))
        np.testing.assert_array_equal(found["judge_prediction"], by_numpy(3, images[cell]))
        mine = images[cell].astype(np.float64).mean(axis=(2, 3))
        for name, distance in {"fd_Means": frechet, "kd_Means": kernel}.items():
            value, replicates = distance.distance(mine), distance.replicates(mine, counts)
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-8)
            np.testing.assert_allclose(found[f"{name}_replicates"], replicates, rtol=1e-4, atol=1e-8)
            spread = np.quantile(replicates, [0.025, 0.975]) - replicates.mean()
            np.testing.assert_allclose(found[f"{name}_interval"], value + spread, rtol=1e-4, atol=1e-8)
            by_class = [type(distance)(reference[labels[SAMPLES:] == k]).distance(mine[label == k]) for k in range(4)]
            np.testing.assert_allclose(found[f"{name}_class"], by_class, rtol=1e-4, atol=1e-8)
        indicators = fidelity(near, radii(near), mine)
        for name in ("precision", "recall", "density", "coverage"):
            np.testing.assert_allclose(found[name], getattr(indicators, name).mean())
            low, high = found[f"{name}_interval"]
            assert low <= found[name] <= high
    np.testing.assert_allclose(ds.fd_Means_floor, frechet.distance(floor), rtol=1e-4)
    np.testing.assert_allclose(ds.kd_Means_floor, kernel.distance(floor), rtol=1e-4)
    np.testing.assert_allclose(ds.coverage_floor, fidelity(near, radii(near), floor).coverage.mean())
    assert ds.fd_Means.values[1, 0, 1, 1] > 2 * ds.fd_Means.values[0, 0, 0, 0]  # noisier


def test_the_store_says_what_it_was_evaluated_with(store):
    ds, _ = evaluated(store, classifier(3))
    about = json.loads(ds.attrs["evaluation"])
    assert about["judge"] == "mine:Linear"
    assert about["extractor"] == "mine:Means"
    assert about["data"] == DATA.model_dump()
    assert about["distances"] == ["fd_Means", "kd_Means"]
    numbers = {"real_images": REAL - SAMPLES, "floor_images": SAMPLES, "N": SAMPLES, "seed": 0, "replicates": 30}
    assert about.items() >= numbers.items()
    assert about["excluded"] == {"unfinished": 0, "not_finite": 0}
    assert {"gradscope", "torch", "torchmetrics"} <= about["versions"].keys()


def test_two_cells_with_the_same_images_have_the_same_replicates(tmp_path, images):
    images[1] = images[0]
    ds, _ = evaluated(make(tmp_path / "twins.zarr", images))
    for name in ("fd_Means", "kd_Means"):
        replicates = ds[f"{name}_replicates"].values
        np.testing.assert_array_equal(replicates[0], replicates[1])
        assert np.ptp(replicates[0, 0, 0, 0]) > 0


@pytest.mark.slow
def test_a_second_evaluation_replaces_the_first(store):
    first, _ = evaluated(store, classifier(3))
    accuracy = first.judge_accuracy.values
    again, _ = evaluated(store, classifier(3))
    for ds in (first, again):  # chunks have other names, which the checksum covers
        del ds.attrs[checksum.KEY]
    xr.testing.assert_identical(first, again)
    other, _ = evaluated(store, classifier(4), replicates=7)
    assert (other.judge_accuracy.values != accuracy).any()
    assert other.sizes["replicate"] == 7
    without, _ = evaluated(store, None, extractor=False)
    added = {"own_prediction", "own_accuracy", "own_accuracy_interval", "bound"}
    assert set(without.variables) == set(first.variables) - VARIABLES - {"judge_class"} | added
    assert json.loads(without.attrs["evaluation"])["extractor"] is None


def test_only_finished_and_finite_samples_enter(tmp_path, images):
    images[0, 0, 0, 0, 3, 2, 1, 1] = np.nan
    images[1, 0, 1, 1, 5, 0, 0, 0] = np.inf
    written = np.ones((*CELLS, SAMPLES, len(TIMES)), dtype=np.uint8)
    written[0, 0, 0, 1, 20:, 1] = 0
    written[1, 0, 0, 0] = 0
    written[1, 0, 0, 1, 1:] = 0
    path = make(tmp_path / "mine.zarr", images, written)
    set_attributes(path, {"status": "interrupted"})
    ds, said = evaluated(path, classifier(3))
    gone = {(0, 0, 0, 0): [3], (1, 0, 1, 1): [5], (0, 0, 0, 1): range(20, 24), (1, 0, 0, 0): range(24)}
    gone[1, 0, 0, 1] = range(1, 24)
    counts = resampled(SAMPLES, 30)
    for cell in np.ndindex(CELLS):
        there = np.array([i not in gone.get(cell, ()) for i in range(SAMPLES)])
        np.testing.assert_array_equal(ds.judge_prediction.values[cell] >= 0, there)
        if there.sum() < 2:
            for name in INTERVALS:
                assert np.isnan(ds[name].values[cell])
                assert np.isnan(ds[f"{name}_interval"].values[cell]).all()
            continue
        right = ds.judge_prediction.values[cell][there] == ds.label.values[there]
        assert ds.judge_accuracy.values[cell] == pytest.approx(right.mean())
        mine = images[cell][there].astype(np.float64).mean(axis=(2, 3))
        reference = evaluated_reference()
        np.testing.assert_allclose(ds.fd_Means.values[cell], Frechet(reference).distance(mine), rtol=1e-4)
        replicates = Frechet(reference).replicates(mine, counts[:, there])
        np.testing.assert_allclose(ds.fd_Means_replicates.values[cell], replicates, rtol=1e-4)
    assert np.isnan(ds.judge_accuracy.values[1, 0, 0, 0])
    share = (written > 0).mean()
    partial = f"{path} is interrupted: {share:.1%} of it is written; only the 141 finished samples of 192 are evaluated"
    assert partial in said
    assert "2 finished samples are left out: their images are not finite" in said
    assert json.loads(ds.attrs["evaluation"])["excluded"] == {"unfinished": 51, "not_finite": 2}


def evaluated_reference() -> np.ndarray:
    chosen = np.random.default_rng(0).permutation(20_000)[SAMPLES:REAL]
    return datasets.load(DATA, "test").batch(chosen.tolist())[0].numpy().astype(np.float64).mean(axis=(2, 3))


@pytest.mark.slow
def test_what_biases_the_numbers_is_said(store):
    assert evaluated(store)[1] == [
        "N = 24 is below 10 x 3 features: the Frechet distance and its floor are biased upwards"
    ]
    said = evaluated(store, samples=20)[1]
    assert "the floors use 10 images in place of 24: there are no more real images" in said


def test_logits_that_are_not_finite_are_told_of(store):
    judge = classifier(3)
    judge.module.weight[0] = torch.nan
    ds, said = evaluated(store, judge)
    assert (ds.judge_prediction == -1).all()
    assert "192 samples have no judge_prediction: the logits are not finite" in said


WRONG_JUDGES = [
    (classifier(3, number=3), "^judge: has 3 classes, but the store's samples 4"),
    (
        classifier(3, ("a", "b", "c", "d")),
        r"^judge: its classes are \['a', 'b', 'c', 'd'\], but those of the store \['base",
    ),
]


@pytest.mark.parametrize(("judge", "message"), WRONG_JUDGES)
def test_a_judge_of_other_classes_is_refused(store, judge, message):
    before = set(xr.open_zarr(store).variables)
    with pytest.raises(GradscopeError, match=message):
        evaluated(store, judge)
    assert set(xr.open_zarr(store).variables) == before


def test_real_images_of_another_size_are_refused(store):
    message = r"^evaluation\.data: its images are 3 x 32 x 32 \(channel, height, width\), but the samples 3 x 8 x 8"
    with pytest.raises(GradscopeError, match=message):
        evaluated(store, data=DataConfig(name="sportballs"))
    with pytest.raises(GradscopeError, match=r"^evaluation\.data\.name: unknown data set 'sportsballs'"):
        evaluated(store, data=DataConfig(name="sportsballs"))


def test_classes_are_paired_by_name_in_whatever_order_the_store_has_them(tmp_path, images):
    """The store's class k is the data's class of that name: distances as with the samples' labels turned instead."""
    order = [2, 0, 3, 1]
    turned, _ = evaluated(make(tmp_path / "turned.zarr", images, classes=[CLASSES[k] for k in order]))
    label = np.arange(images.shape[4]) % 4
    features = Features(Means(), (3, SIZE, SIZE))
    real_images = real.load_real(DATA, REAL, SAMPLES, features, (3, SIZE, SIZE))
    for cell in np.ndindex(CELLS):
        for k, name in enumerate(turned["class"].values.tolist()):
            samples = features.of([torch.from_numpy(images[cell][label == k])])
            theirs = real_images.reference[real_images.reference_label == list(real_images.classes).index(name)]
            assert float(turned.fd_Means_class[cell][k]) == pytest.approx(Frechet(theirs).distance(samples), rel=1e-5)


@pytest.mark.parametrize("named", [["a", "b", "c", "d"], ["a", "b", "c", "d", "e"]])
def test_real_images_of_other_classes_have_no_distances_by_class(tmp_path, images, named):
    ds, said = evaluated(make(tmp_path / "other.zarr", images, classes=named))
    assert not any(name.startswith(("fd_Means_class", "kd_Means_class")) for name in ds.data_vars)
    assert np.isfinite(ds.fd_Means).all()
    assert any(
        text.startswith("no distances by class: the classes of evaluation.data are ['baseball'") for text in said
    )


@pytest.mark.parametrize(
    ("judge", "wanted"),
    [(None, CLASSES), (classifier(3), ["0", "1", "2", "3"]), (classifier(3, ("a", "b", "c", "d")), list("abcd"))],
)
def test_a_store_without_names_of_classes_takes_the_judges_or_the_datas(tmp_path, images, judge, wanted):
    ds, _ = evaluated(make(tmp_path / "nameless.zarr", images, classes=[]), judge, guides=False)
    assert ds["class"].values.tolist() == wanted
    assert "own_accuracy" not in ds
    assert ("fd_Means_class" in ds) == (wanted != list("abcd"))


@pytest.mark.slow
@pytest.mark.usefixtures("usual_garbage")
def test_memory_is_bounded_by_a_batch_of_images(tmp_path, store, monkeypatch):
    """Two cells of 13 MB, 32 images (0.6 MB) at a time, and 12 MB of real ones; a whole kernel matrix has 4 MB."""
    monkeypatch.setattr(evaluate, "_BATCH", 32)
    monkeypatch.setattr(real, "_BATCH", 8)  # drawing them takes 0.3 MB an image
    monkeypatch.setattr(distances, "_ROWS", 32)
    monkeypatch.setattr(manifold, "_ROWS", 32)
    cells, size, samples = (2, 1, 1, 1), 40, 700
    images = np.random.default_rng(0).normal(size=(*cells, samples, 3, size, size)).astype(np.float32)
    path = make(tmp_path / "large.zarr", images, block=32, cells=cells)
    assert images.nbytes > 26e6
    del images
    who = evaluators(None, guides=False, data=DATA.model_copy(update={"size": size}), samples=600)
    evaluated(store)  # whatever is loaded once
    tracemalloc.start()
    try:
        evaluate_store(path, who, CPU)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.isfinite(xr.open_zarr(path).coverage).all()
    assert peak < 4.5e6


def test_an_evaluation_begins_with_the_store_as_it_is_when_no_other_process_holds_it(store, monkeypatch):
    """Another evaluation that ends while this one waits leaves nothing behind."""
    lock = Folder.lock

    @contextmanager
    def late(folder):
        monkeypatch.setattr(Folder, "lock", lock)
        sizes = open_store(folder).sizes
        other = xr.Dataset({"density": (CELL_DIMS, np.ones([sizes[dim] for dim in CELL_DIMS]))})
        add_variables(folder, other.assign_attrs(evaluation=json.dumps({"variables": ["density"]})))
        with lock(folder):
            yield

    monkeypatch.setattr(Folder, "lock", late)
    ds, _ = evaluated(store, classifier(3), extractor=False)
    assert "density" not in ds
    assert "judge_accuracy" in ds
