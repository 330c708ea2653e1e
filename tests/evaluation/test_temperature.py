"""Calibration by one temperature: against scipy's minimum, and through cards."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from torch import nn

from gradscope.config import TrainClassifierConfig
from gradscope.data import datasets, sportballs
from gradscope.errors import GradscopeError
from gradscope.evaluation import temperature
from gradscope.models import cards, training
from gradscope.models.classifiers import load_classifier
from gradscope.models.logits import tempered
from gradscope.models.weights import state_hash
from probes.timed import ask, takes_timestep

CPU = torch.device("cpu")
DATA = {"name": "sportballs", "size": 8, "samples": 400, "seed": 3}
STEPS = {"steps": 50, "batch_size": 16, "warmup_steps": 2, "learning_rate": 0.01, "ema_decay": 0.3, "seed": 1}
OPTIONS = {"channels": [8, 8, 8, 8], "stem_width": 8, "stem_type": ""}


@pytest.mark.parametrize(("classes", "scale", "seed"), [(2, 0.3, 0), (4, 1.0, 1), (10, 7.0, 2), (3, 40.0, 3)])
def test_the_temperature_is_scipys_minimum_of_the_likelihood(classes, scale, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(300, classes)) * 2
    labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)  # drawn from softmax(z)
    logits = z * scale

    def nll(log_temperature: float) -> float:
        log_p = torch.from_numpy(logits / np.exp(log_temperature)).log_softmax(dim=1)
        return float(nn.functional.nll_loss(log_p, torch.from_numpy(labels)))

    best = minimize_scalar(nll, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9})
    assert np.log(temperature.fit_temperature(logits, labels)) == pytest.approx(best.x, abs=1e-5)
    assert temperature.fit_temperature(logits, labels) == pytest.approx(scale, rel=0.3)


def test_no_temperature_is_best_where_all_are_right_or_nothing_is_known():
    z = np.eye(3)[[0, 1, 2]] * 5
    with pytest.raises(GradscopeError, match="every sample is predicted right"):
        temperature.fit_temperature(z, [0, 1, 2])
    with pytest.raises(GradscopeError, match="the logits say nothing on the labels"):
        temperature.fit_temperature(z, [1, 2, 0])


class Timed(nn.Module):
    def forward(self, x, t):
        return x.flatten(1)[:, :3] * 2 + t[:, None]


@pytest.mark.parametrize("module", [nn.Flatten(), Timed()])
def test_a_tempered_module_divides_its_logits(module):
    x, t = torch.randn(5, 3, 1, 1), torch.tensor([0.0, 1, 2, 3, 4])
    cold = tempered(module, 2.5)
    assert takes_timestep(cold) == takes_timestep(module)
    torch.testing.assert_close(ask(cold, x, t), ask(module, x, t) / 2.5)
    assert tempered(module, 1.0) is module
    assert state_hash(cold) != state_hash(tempered(module, 2.0))


def trained(folder, **changes):
    content = {"data": DATA, "timm": "resnet10t", "options": OPTIONS, "training": STEPS, "output": str(folder / "mine")}
    return training.train_classifier(TrainClassifierConfig.model_validate(content | changes), CPU)


@pytest.fixture
def held_out(monkeypatch):
    monkeypatch.setattr(temperature, "_HELD_OUT", 90)
    index = np.random.default_rng(0).permutation(datasets.HELD_OUT)[:90]
    drawn = sportballs.factors(DATA["seed"], DATA["samples"] + index)
    return torch.from_numpy(sportballs.render(drawn, DATA["size"])) * 2 - 1, torch.from_numpy(drawn.label)


@pytest.mark.parametrize("takes", [False, True])
def test_a_calibrated_copy_gives_the_logits_divided_by_its_temperature(tmp_path, held_out, takes):
    path = trained(tmp_path, train_on="x_t", takes_timestep=takes)
    copy = tmp_path / "further" / "cold.yaml"
    card = temperature.calibrate(path, [0, 1000], CPU, copy)
    assert cards.read(copy) == card
    assert cards.read(path).temperature == 1
    assert card.temperature != 1
    assert cards.file_hash(copy.with_suffix(".safetensors")) == card.sha256
    before, after = (load_classifier(str(p), "mine", (3, 8, 8)).module for p in (path, copy))
    x, t = held_out[0][:7], torch.arange(7) * 100
    with torch.no_grad():
        torch.testing.assert_close(ask(after, x, t), ask(before, x, t) / card.temperature)
    assert takes_timestep(after) == takes


def test_the_cards_likelihoods_are_those_of_held_out_images(tmp_path, held_out):
    path = trained(tmp_path)
    module = load_classifier(str(path), "mine", (3, 8, 8)).module
    card = temperature.calibrate(path, [0, 1], CPU)
    assert cards.read(path) == card
    images, labels = held_out
    torch.manual_seed(1)
    with torch.no_grad():  # the first of 1000 timesteps: beta is 1e-4
        logits = module((1 - 1e-4) ** 0.5 * images + 1e-2 * torch.randn_like(images)).double()
    for name, T in {"nll": 1.0, "nll_calibrated": card.temperature}.items():
        metric = card.metrics[name]
        assert metric.value == pytest.approx(float(nn.functional.cross_entropy(logits / T, labels)), abs=1e-4)
        assert metric.n == 90
        assert metric.interval[0] < metric.value < metric.interval[1]
    assert card.metrics["nll_calibrated"].value < card.metrics["nll"].value
    again = temperature.calibrate(path, [0, 1], CPU)
    assert again.temperature == pytest.approx(card.temperature, rel=1e-4)
    assert again.metrics["nll"] == card.metrics["nll"]


def test_what_cannot_be_calibrated_is_refused_and_nothing_is_written(tmp_path, held_out):
    path = trained(tmp_path)
    there = sorted(tmp_path.iterdir())
    for timesteps, output, message in [
        ([5, 1001], None, r"^calibrate: first and end with 0 <= first < end <= 1000, got \[5, 1001\]"),
        ([0, 1], path, r"^output: .*mine\.yaml exists"),
        ([0, 1], tmp_path / "cold", r"^output: .*cold must be NAME\.yaml"),
    ]:
        with pytest.raises(GradscopeError, match=message):
            temperature.calibrate(path, timesteps, CPU, output)
    denoiser = cards.resolve("zoo:sportballs32/ddpm", "x")
    with pytest.raises(GradscopeError, match="is the card of a denoiser"):
        temperature.calibrate(denoiser, [0, 1], CPU, tmp_path / "cold.yaml")
    assert sorted(tmp_path.iterdir()) == there


def test_the_copys_weights_are_the_originals(tmp_path, held_out):
    path = trained(tmp_path)
    temperature.calibrate(path, [0, 1], CPU, tmp_path / "cold.yaml")
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("mine", "cold"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
