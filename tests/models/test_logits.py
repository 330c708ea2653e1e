"""What classifiers give becomes logits of at least two classes."""

import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import save_file
from small_models import SIZE, UNET
from torch import nn

from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.auditing.audit import audit
from gradscope.config import TimmClassifier
from gradscope.errors import GradscopeError, GradscopeWarning
from gradscope.evaluation.features import load_extractor
from gradscope.evaluation.judge import predict
from gradscope.models.classifiers import build_classifier, load_classifier
from gradscope.models.diffusion import load_denoiser
from gradscope.models.logits import as_logits, probabilities

SHAPE = (3, SIZE, SIZE)
MODELS = """
import torch
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET
from torch import nn
from types import SimpleNamespace

def linear(classes=4, *last):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, classes), *last)

class Object(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.inner = linear(classes)
    def forward(self, x):
        return SimpleNamespace(logits=self.inner(x))

class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = linear(1, nn.Sigmoid())
    def forward(self, x):
        return self.inner(x.add_(1).div_(2))

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = linear(3)
    def forward(self, x):
        return torch.sigmoid(self.inner(x)).float().reshape(len(x), 3)

class NoGradient(nn.Module):
    def forward(self, x):
        return x.detach().flatten(1)[:, :3].sigmoid()

one, flat, four = lambda: linear(1), lambda: linear(1, nn.Flatten(0)), linear
objects, one_in_object = lambda: Object(4), lambda: Object(1)
softmax, sigmoid = lambda: linear(4, nn.Softmax(dim=1)), lambda: linear(1, nn.Sigmoid())
log_softmax, positive = lambda: linear(4, nn.LogSoftmax(dim=1)), lambda: linear(4, nn.Softplus(), nn.Hardtanh(0.2, 0.9))
squeezed = lambda: linear(1, nn.Sigmoid(), nn.Flatten(0))
several, in_place, without = Functional, InPlace, NoGradient
half, double = lambda: linear().half(), lambda: linear().double()

def half_unet():
    torch.manual_seed(0)
    return UNet2DModel(sample_size=SIZE, **UNET).half(), DDPMScheduler()

class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Flatten(), nn.Linear(3 * SIZE**2, 4).half()
        self.scale = nn.Parameter(torch.ones(()))
    def forward(self, x):
        return self.last(self.first(x).half()).float() * self.scale
"""


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "models_of_logits.py").write_text(MODELS)
    yield
    sys.modules.pop("models_of_logits", None)


def load(name: str, where: str = "classifiers.c"):
    return load_classifier(f"models_of_logits:{name}", where, SHAPE)


def plain(classes: int = 4) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, classes))


@pytest.fixture
def images():
    return torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3))


def test_logits_of_every_form():
    z = torch.tensor([[1.5], [-2.0], [0.0]], dtype=torch.float64, requires_grad=True)
    for given in (z, z[:, 0], SimpleNamespace(logits=z)):
        two = as_logits(given)
        assert two.dtype == torch.float64
        torch.testing.assert_close(two.softmax(dim=1)[:, 1], torch.sigmoid(z[:, 0]))
        (gradient,) = torch.autograd.grad(two.log_softmax(dim=1)[:, 1].sum(), z)
        torch.testing.assert_close(gradient, 1 - torch.sigmoid(z))
    three = torch.randn(2, 3)
    assert as_logits(three) is three
    assert as_logits(SimpleNamespace(logits=three)) is three


@pytest.mark.parametrize(
    ("given", "got"),
    [({"logits": torch.zeros(2, 3)}, "dict"), (torch.zeros(2, 3, 4), r"\(2, 3, 4\)"), (torch.zeros(2, 0), r"\(2, 0\)"),
     (SimpleNamespace(logits=None), "SimpleNamespace"), (torch.zeros(()), r"\(\)"), (None, "NoneType")],
)  # fmt: skip
def test_what_is_no_logits(given, got):
    with pytest.raises(GradscopeError, match=rf"^a classifier must give logits .* it gave {got}$"):
        as_logits(given)


@pytest.mark.parametrize("name", ["one", "flat", "one_in_object"])
def test_one_logit_guides_judges_and_is_audited(images, name):
    loaded = load(name)
    assert loaded.num_classes == 2
    z = plain(1)(images).detach()[:, 0]
    torch.testing.assert_close(loaded.module(images).detach(), torch.stack([torch.zeros(5), z], dim=1))
    np.testing.assert_array_equal(predict(loaded.module, images), (z > 0).numpy())

    torch.manual_seed(0)
    guidance = ClassifierGuidance(loaded.module, guidance_scale=0.5)
    sampler = GuidedSampler(UNet2DModel(sample_size=SIZE, **UNET), DDPMScheduler(), guidance)
    steps = []
    sampler.register_step_hook(steps.append)
    sampler.sample([0, 1], 2)
    weight = plain(1)[1].weight.detach().reshape(SHAPE)
    for step in steps:
        p = torch.sigmoid(plain(1)(step.x_t).detach())[:, :, None, None]
        wanted = torch.stack([-p[0] * weight, (1 - p[1]) * weight])
        torch.testing.assert_close(step.gradient.float(), wanted, rtol=1e-4, atol=1e-6)
        assert (step.gradient.flatten(1).norm(dim=1) > 1e-3).all()

    label = (z > 0).long()
    ds = audit({"c": loaded.module}, images, label, timesteps=2)
    assert ds.accuracy.sel(timestep=0).item() == 1


def test_objects_with_logits(images):
    loaded = load("objects")
    assert loaded.num_classes == 4
    torch.testing.assert_close(loaded.module(images), plain()(images))


def test_one_logit_of_timm_is_two_and_its_features_stay(tmp_path, images):
    options = {"channels": [8, 8, 8, 8], "stem_width": 8, "stem_type": ""}
    torch.manual_seed(0)
    model = build_classifier("resnet10t", 1, 3, options).eval()
    save_file(model.state_dict(), tmp_path / "one.safetensors")
    spec = TimmClassifier(timm="resnet10t", num_classes=1, checkpoint="one.safetensors", options=options)
    assert load_classifier(spec, "c", SHAPE).num_classes == 2
    assert load_extractor(spec, "c", SHAPE).num_features == 8
    assert load_extractor("models_of_logits:objects", "c", SHAPE).num_features == 4


PROBABILITIES = {"softmax": "softmax", "sigmoid": "sigmoid", "squeezed": "sigmoid", "several": "sigmoid"}


@pytest.mark.parametrize("name", [*PROBABILITIES, "in_place"])
def test_probabilities_are_said_to_be_some(name):
    made = PROBABILITIES.get(name, "sigmoid")
    message = rf"^judge: its outputs are probabilities already \({made}\); gradscope applies softmax to them again"
    with pytest.warns(GradscopeWarning, match=message):
        load(name, "judge")


@pytest.mark.parametrize("name", ["one", "four", "flat", "objects", "log_softmax", "positive", "without"])
def test_logits_are_not_said_to_be_probabilities(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(name)


def test_one_logit_between_0_and_1_is_a_logit():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 1))
    nn.init.zeros_(linear[1].weight)
    nn.init.constant_(linear[1].bias, 0.5)
    assert probabilities(linear, torch.zeros(2, *SHAPE)) is None


@pytest.mark.parametrize("name", ["half", "double"])
def test_models_of_another_type_run_in_float32(images, name):
    with pytest.warns(GradscopeWarning, match=r"^classifiers\.c: the model is in float\d\d; it runs in float32$"):
        module = load(name).module
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    tolerance = {"rtol": 2e-3, "atol": 2e-3} if name == "half" else {}
    torch.testing.assert_close(module(images), plain()(images), **tolerance)


def test_a_model_that_converts_by_itself_stays_as_it_is(images):
    module = load("Mixed").module
    assert {p.dtype for p in module.parameters()} == {torch.float16, torch.float32}


def test_a_half_denoiser_runs_in_float32(images):
    with pytest.warns(GradscopeWarning, match=r"^denoiser: the model is in float16; it runs in float32$"):
        unet = load_denoiser("models_of_logits:half_unet").unet
    torch.manual_seed(0)
    wanted = UNet2DModel(sample_size=SIZE, **UNET)(images, 10).sample
    torch.testing.assert_close(unet(images, 10).sample, wanted, rtol=2e-2, atol=2e-2)
