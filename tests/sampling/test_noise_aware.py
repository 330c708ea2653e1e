"""Noise-aware classifiers f(x, t): the gradient of guided-diffusion's cond_fn, and t = 0 for clean images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from small_models import SIZE, LinearClassifier, ZeroUNet
from torch import nn
from torch.nn.functional import log_softmax

import gradscope
from gradscope.config import ModuleClassifier
from gradscope.errors import GradscopeError
from gradscope.evaluation.judge import predict
from gradscope.models.classifiers import load_classifier
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.sampler import GuidedSampler
from probes import ReferenceCosine, Trace
from probes.timed import takes_timestep

LABELS = [0, 3, 1]


class NoiseAware(LinearClassifier):
    """Logits that are linear in the image, with a gain per class that depends on the timestep."""

    def __init__(self):
        super().__init__(gain=2.0)
        self.asked = []

    def forward(self, x, timesteps):
        self.asked.append(timesteps.tolist())
        gain = 1 + torch.sin(timesteps[:, None] / 100 + torch.arange(4))
        return super().forward(x) * gain


class Optional(NoiseAware):
    def forward(self, x, mask=None, t=None):
        assert mask is None
        return super().forward(x, torch.zeros(len(x), dtype=torch.int64) if t is None else t)


class Hidden(NoiseAware):
    """Its signature shows no timestep."""

    def forward(self, *inputs):
        return super().forward(*inputs)


class Wrapped(NoiseAware):
    def forward(self, x, sigma):
        return SimpleNamespace(logits=super().forward(x, sigma))


def seeded(kind):
    torch.manual_seed(5)
    return kind()


def cond_fn(classifier, x, t, y):
    """As in guided-diffusion's classifier_sample.py."""
    with torch.enable_grad():
        x_in = x.detach().requires_grad_(True)
        logits = classifier(x_in, t)
        log_probs = log_softmax(logits, dim=-1)
        selected = log_probs[range(len(logits)), y.view(-1)]
        return torch.autograd.grad(selected.sum(), x_in)[0]


@pytest.mark.parametrize("scheduler", [DDPMScheduler(), DDIMScheduler(prediction_type="v_prediction")])
def test_the_gradient_at_x_t_is_cond_fns(unet, scheduler):
    classifier = seeded(NoiseAware)
    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, guidance_scale=0.4))
    for step in sampler.steps(LABELS, 4):
        t = torch.full((3,), int(step.timestep))
        expected = cond_fn(classifier, step.x_t, t, torch.tensor(LABELS))
        torch.testing.assert_close(step.gradient.float(), expected, rtol=1e-4, atol=1e-7)
        clean = cond_fn(classifier, step.x_t, 0 * t, torch.tensor(LABELS))
        assert step.timestep == 0 or not torch.allclose(expected, clean, rtol=0.05)


@pytest.mark.parametrize("classifier_input", ["x0", "x0_detached"])
@pytest.mark.parametrize("at", [0, 40])
def test_x0_hat_is_asked_at_0_or_as_configured(unet, classifier_input, at):
    classifier = seeded(NoiseAware)
    guidance = ClassifierGuidance(classifier, classifier_input, timestep_at_x0=at)
    steps = list(GuidedSampler(unet, DDPMScheduler(), guidance).steps(LABELS, 3))
    assert classifier.asked == [[at] * 3] * 3
    logits = classifier(steps[1].pred_original_sample, torch.full((3,), at))
    torch.testing.assert_close(steps[1].logits, logits.detach(), rtol=1e-4, atol=1e-5)


def test_smoothgrad_and_the_objective_ask_at_the_same_timestep(unet):
    classifier = seeded(NoiseAware)
    guidance = ClassifierGuidance(classifier, smoothgrad=SmoothGrad(samples=2, std=0.1))
    step = next(GuidedSampler(unet, DDPMScheduler(), guidance).steps(LABELS, 3))
    step.objective(step.x_t, step.label)
    assert classifier.asked == [[step.timestep] * 3] * 4


@pytest.mark.parametrize(
    ("module", "takes"),
    [
        (NoiseAware(), True),
        (Optional(), True),
        (Wrapped(), True),
        (Hidden(), False),
        (LinearClassifier(), False),
        (torch.compile(NoiseAware()), True),
        (torch.compile(LinearClassifier()), False),
        (nn.Sequential(nn.Flatten()), False),
        (torch.jit.trace(LinearClassifier(), torch.zeros(1, 3, SIZE, SIZE)), False),
    ],
)
def test_the_signature_says_whether_a_classifier_takes_a_timestep(module, takes):
    assert takes_timestep(module) == takes


@pytest.mark.parametrize(
    ("kind", "takes", "at"),
    [(NoiseAware, None, 666), (Optional, None, 666), (Wrapped, None, 666), (Hidden, True, 666), (Optional, False, 0)],
)
def test_the_keyword_overrules_the_signature(unet, kind, takes, at):
    classifier = seeded(kind)
    guidance = ClassifierGuidance(classifier, takes_timestep=takes)
    step = next(GuidedSampler(unet, DDPMScheduler(), guidance).steps(LABELS, 3))
    expected = NoiseAware.forward(classifier, step.x_t, torch.full((3,), at)).detach()
    torch.testing.assert_close(step.logits, expected)


@pytest.mark.parametrize("takes", [None, True])
def test_a_configured_classifier_is_asked_at_0_about_clean_images(monkeypatch, takes):
    kind = Hidden if takes else Wrapped
    monkeypatch.setattr(torch, "_mine", lambda: seeded(kind), raising=False)
    loaded = load_classifier(
        ModuleClassifier(module="torch:_mine", takes_timestep=takes), "classifiers.mine", (3, SIZE, SIZE)
    )
    images = torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    expected = NoiseAware.forward(seeded(kind), images, torch.zeros(8, dtype=torch.int64))
    assert loaded.num_classes == 4
    assert np.array_equal(predict(loaded.module, images), expected.argmax(dim=1))
    other = NoiseAware.forward(seeded(kind), images, torch.full((8,), 500))
    assert not np.array_equal(predict(loaded.module, images), other.argmax(dim=1))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"module": "torch:_nothing"}, "classifiers.mine.module: torch has no '_nothing'"),
        ({"module": "torch:get_num_threads"}, "classifiers.mine.module: .* must give a torch.nn.Module, it gave int"),
    ],
)
def test_a_module_that_is_none_is_refused_by_its_key(spec, message):
    with pytest.raises(GradscopeError, match=message):
        load_classifier(ModuleClassifier(**spec), "classifiers.mine", (3, SIZE, SIZE))


def test_the_audit_asks_at_the_noises_timestep_and_x0_hat_at_0():
    classifier = seeded(NoiseAware)
    images = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3])
    found = gradscope.audit({"mine": classifier}, images, labels, unet=ZeroUNet(), timesteps=3)
    steps = found.timestep.values.tolist()
    assert classifier.asked == [[t] * 4 for t in steps for _ in range(2)] + [[0] * 4] * 6


def test_a_noise_aware_reference_is_asked_at_the_steps_timestep(unet):
    reference = seeded(NoiseAware)
    trace = Trace([ReferenceCosine(reference)])
    sampler = GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(LinearClassifier()))
    with sampler.register_step_hook(trace):
        sampler.sample(LABELS, 3)
    assert [t for t, *_ in reference.asked] == [666, 333, 0]


@pytest.mark.parametrize("at", [-1, 0.5, True])
def test_a_timestep_that_is_none_is_refused(classifier, at):
    with pytest.raises(GradscopeError, match=r"guidance.timestep_at_x0: must be a whole number of at least 0, got"):
        ClassifierGuidance(classifier, timestep_at_x0=at)
