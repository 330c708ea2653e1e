"""What people hand to a sampler: it works, or it is refused by name."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier
from torch import nn

from gradscope.errors import GradscopeError
from gradscope.evaluation.judge import predict
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.sampler import GuidedSampler
from probes import GradientSNR, ReferenceCosine, Trace

LABELS = [0, 3, 1]


def sampler(unet, classifier, classifier_input="x0", scheduler=None, **settings):
    guidance = ClassifierGuidance(classifier, classifier_input, **({"guidance_scale": 0.5} | settings))
    return GuidedSampler(unet, DDPMScheduler() if scheduler is None else scheduler, guidance)


@pytest.mark.parametrize("labels", [torch.tensor(LABELS), np.array(LABELS), tuple(LABELS), np.array(LABELS, np.uint8)])
def test_labels_in_any_form_are_the_same_classes(unet, classifier, labels):
    expected = sampler(unet, classifier).sample(LABELS, 3)
    assert torch.equal(sampler(unet, classifier).sample(labels, 3), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 3}, r"labels: must be one class per sample, for example \[0, 1, 2\], got 3"),
        ({"labels": [0.0, 1.0]}, "labels: classes must be whole numbers, got 0.0"),
        ({"labels": torch.tensor([0.5])}, "labels: classes must be whole numbers, got 0.5"),
        ({"labels": np.zeros((2, 2), int)}, r"labels: classes must be whole numbers, got \[0, 0\]"),
        ({"labels": []}, "labels: at least one sample"),
        ({"labels": [0], "seed": -1}, "seed: must be a whole number of at least 0, got -1"),
        ({"labels": [0], "seed": 0.5}, "seed: must be a whole number of at least 0, got 0.5"),
        ({"labels": [0], "num_inference_steps": 0}, "num_inference_steps: must be a whole number of at least 1, got 0"),
    ],
)
def test_what_cannot_be_sampled_is_refused_by_name(unet, classifier, options, message):
    with pytest.raises(GradscopeError, match=message):
        sampler(unet, classifier).sample(**({"num_inference_steps": 3} | options))


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 1e39, -1e39])
def test_scales_that_no_image_can_hold_are_refused(classifier, scale):
    with pytest.raises(GradscopeError, match="guidance_scale: must be a finite number within float32's range, got"):
        ClassifierGuidance(classifier, guidance_scale=scale)


def test_a_negative_scale_steers_away(unet, classifier):
    """The first step's shift is the opposite of that of the positive scale, and log p falls."""
    here, away = (next(sampler(unet, classifier, guidance_scale=s).steps(LABELS, 5)) for s in (0.5, -0.5))
    assert torch.equal(away.shift, -here.shift)
    assert torch.equal(away.gradient, here.gradient)


@pytest.mark.parametrize("interval", [(990, 999), (1000, 2000), (101, 200)])
def test_an_interval_without_a_timestep_is_refused(unet, classifier, interval):
    """Five steps visit 800, 600, ... 0."""
    with pytest.raises(GradscopeError, match=r"interval: no timestep lies in \[.*; the 5 steps go from 800 to 0"):
        sampler(unet, classifier, interval=interval).sample(LABELS, 5)
    sampler(unet, classifier, interval=(101, 201)).sample(LABELS, 5)


@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
def test_inference_mode_and_no_grad_change_nothing(unet, classifier, classifier_input, kind):
    guided = sampler(unet, classifier, classifier_input, kind())
    expected = guided.sample(LABELS, 3)
    for mode in (torch.inference_mode, torch.no_grad):
        trace = Trace([GradientSNR(draws=2), ReferenceCosine(LinearClassifier())])
        with mode(), guided.register_step_hook(trace):
            assert torch.equal(guided.sample(LABELS, 3), expected)
            assert torch.equal(list(guided.steps(LABELS, 3))[-1].prev_sample, expected)
        assert np.isfinite(trace["reference_cosine"]).all()


def test_models_made_in_inference_mode_are_refused(unet):
    with torch.inference_mode():
        made = LinearClassifier()
    with pytest.raises(GradscopeError, match="classifier: its weights were made inside torch.inference_mode"):
        sampler(unet, made).sample(LABELS, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_another_type_run_in_it(classifier, dtype):
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=SIZE, **UNET)
    expected = next(sampler(unet, classifier).steps(LABELS, 3))
    other = next(sampler(unet.to(dtype), classifier.to(dtype)).steps(LABELS, 3))
    assert other.x_t.dtype == other.prev_sample.dtype == torch.float32
    error = (other.gradient - expected.gradient).norm() / expected.gradient.norm()
    assert float(error) < {torch.float64: 1e-5, torch.float16: 0.05, torch.bfloat16: 0.5}[dtype]


class InPlace(nn.Module):
    """Normalises its input in place, as torchvision's Normalize(inplace=True) does."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, *t):
        return self.inner(x.add_(1).div_(2).sub_(0.45).div_(0.22), *t)


class OutOfPlace(InPlace):
    def forward(self, x, *t):
        return self.inner(((x + 1) / 2 - 0.45) / 0.22, *t)


@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
def test_models_that_work_in_place_harm_nothing(unet, classifier, classifier_input, kind):
    class Denoiser(OutOfPlace):
        config = unet.config

    class DenoiserInPlace(InPlace):
        config = unet.config

    clean = list(sampler(Denoiser(unet), OutOfPlace(classifier), classifier_input, kind()).steps(LABELS, 3))
    harmed = list(sampler(DenoiserInPlace(unet), InPlace(classifier), classifier_input, kind()).steps(LABELS, 3))
    for a, b in zip(clean, harmed, strict=True):
        for name in ("x_t", "gradient", "pred_original_sample", "model_output", "prev_sample"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-5)


def test_a_judge_that_works_in_place_leaves_the_images(classifier):
    images = torch.randn(64, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    before = images.clone()
    found = predict(InPlace(classifier), images)
    assert torch.equal(images, before)
    assert np.array_equal(found, predict(OutOfPlace(classifier), images))


class Output:
    def __init__(self, logits):
        self.logits = logits


class Wrapped(nn.Module):
    """Gives an object with logits, as the models of transformers do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return Output(self.inner(x))


def test_an_object_with_logits_is_its_logits(unet, classifier):
    expected = sampler(unet, classifier).sample(LABELS, 3)
    assert torch.equal(sampler(unet, Wrapped(classifier)).sample(LABELS, 3), expected)
    assert np.array_equal(predict(Wrapped(classifier), expected), predict(classifier, expected))


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_is_two_classes(unet, flat):
    """p(1) = sigmoid(z): the gradients of log p of the two classes, by hand."""
    torch.manual_seed(3)
    binary = LinearClassifier(classes=1)

    class Flat(nn.Module):
        def forward(self, x):
            return binary(x)[:, 0]

    guided = sampler(unet, Flat() if flat else binary, "x_t")
    step = next(guided.steps([0, 1], 3))
    weight = binary.linear.weight.detach().double().view(3, SIZE, SIZE)
    p = torch.sigmoid(binary(step.x_t).detach().double())[:, 0]
    torch.testing.assert_close(step.gradient[0], -p[0] * weight, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(step.gradient[1], (1 - p[1]) * weight, rtol=1e-5, atol=1e-9)
    assert step.logits.shape == (2, 2)
    with pytest.raises(GradscopeError, match="the classifier has classes 0 to 1, got 2"):
        guided.sample([2], 3)


@pytest.mark.parametrize("output", [torch.zeros(3, 4, 1), {"a": 1}])
def test_what_are_no_logits_is_refused(unet, output):
    class Strange(nn.Module):
        def forward(self, x):
            return output

    with pytest.raises(GradscopeError, match=r"a classifier must give logits of shape \(n, classes\).*it gave"):
        sampler(unet, Strange()).sample(LABELS, 3)


def test_a_classifier_of_other_images_or_arguments_is_refused_by_name(unet):
    class Masked(LinearClassifier):
        def forward(self, x, first, second):
            return super().forward(x)

    wanted = r"classifier: LinearClassifier fails on images of 3 x 8 x 8 \(channel, height, width\).*RuntimeError"
    for classifier, message in [
        (LinearClassifier(channels=1), wanted),
        (Masked(), "classifier: Masked fails .* TypeError: .*first"),
    ]:
        with pytest.raises(GradscopeError, match=message):
            sampler(unet, classifier).sample(LABELS, 3)
