"""The gradient of a convinced guide against arithmetic of 80 digits."""

import mpmath
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from small_models import LinearClassifier, ZeroUNet
from torch import nn

from gradscope.sampling.guidance import objectives
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.process import Schedule
from gradscope.sampling.sampler import GuidedSampler
from gradscope.stabilizers import EMA, Adam, Lion

MARGINS = [-200.0, -30.0, -1.0, 0.0, 5.0, 20.0, 40.0, 88.0, 120.0, 200.0]


def exact(weight: np.ndarray, logits: np.ndarray, label: int) -> np.ndarray:
    """Gradient of log softmax(W x)[y], ``sum_k (delta_ky - p_k) W_k`` as ``(1 - p_y) W_y - sum_others p_k W_k``."""
    with mpmath.workdps(120):
        powers = [mpmath.exp(mpmath.mpf(float(z))) for z in logits]
        total = mpmath.fsum(powers)
        others = mpmath.fsum(p for k, p in enumerate(powers) if k != label) / total
        factors = [others if k == label else -p / total for k, p in enumerate(powers)]
        scale = max(abs(f) for f in factors)
        relative = np.array([float(f / scale) for f in factors])
        return relative @ weight.astype(np.float64) * float(scale)


class Convinced(nn.Module):
    """A linear classifier whose target margin is set, sample by sample."""

    def __init__(self, classes: int, labels: list[int], margins: list[float], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.labels, self.dtype = nn.Linear(192, classes), labels, dtype
        self.margins = torch.tensor(margins)

    def forward(self, x):
        if self.dtype is not None:
            with torch.autocast("cpu", self.dtype):
                return self.set(self.linear(x.flatten(1)).float())
        return self.set(self.linear(x.flatten(1)))

    def set(self, z):
        """Adds a constant to the target's logit, so that the margin is what is wanted."""
        rows = torch.arange(len(z))
        label = torch.tensor(self.labels)[: len(z)]
        others = z.detach().index_put((rows, label), torch.tensor(-torch.inf)).logsumexp(dim=1)
        change = self.margins[: len(z)] + others - z.detach()[rows, label]
        return z.index_put((rows, label), z[rows, label] + change)


def cosine(a, b):
    a, b = np.ravel(a).astype(np.longdouble), np.ravel(b).astype(np.longdouble)
    return float((a @ b) / np.sqrt(a @ a) / np.sqrt(b @ b))


def sampler(classes=4, labels=None, dtype=None, stabilizer=None, **settings):
    labels = [k % classes for k in range(len(MARGINS))] if labels is None else labels
    guide = Convinced(classes, labels, MARGINS, dtype)
    settings = {"guidance_scale": 0.5} | settings
    scheduler = DDPMScheduler(clip_sample=False)
    return GuidedSampler(ZeroUNet(), scheduler, ClassifierGuidance(guide, **settings), stabilizer), labels


def test_the_issue_in_one_line():
    """Logits [40, 0, 1, -2]: of the target's component nothing is left in float32; it is 1.6e-17."""
    logits = torch.tensor([[40.0, 0.0, 1.0, -2.0]], requires_grad=True)
    label = torch.tensor([0])
    (naive,) = torch.autograd.grad(logits.log_softmax(dim=1)[0, 0], logits)
    assert naive[0, 0] == 0
    value, log_factor, _ = objectives.scores("log_prob", logits, label)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    found = objectives.scaled(gradient, log_factor)[0]
    reference = exact(np.eye(4), logits.detach().numpy()[0], 0)
    np.testing.assert_allclose(found.numpy(), reference, rtol=1e-6)
    assert found[0] == pytest.approx(1.64e-17, rel=0.01)


@pytest.mark.parametrize("classes", [2, 4, 1000])
@pytest.mark.parametrize(("dtype", "least"), [(None, 1 - 1e-9), (torch.bfloat16, 0.9999), (torch.float16, 0.9999)])
def test_gradient_and_direction_are_exact_for_any_margin(classes, dtype, least):
    guided, labels = sampler(classes, dtype=dtype)
    step = next(guided.steps(labels, 4))
    weight = guided.guidance.classifier.linear.weight.detach().numpy()
    for i, m in enumerate(MARGINS):
        reference = exact(weight, step.logits[i].numpy(), labels[i])
        assert cosine(step.gradient[i], reference) > least
        assert cosine(step.direction[i], reference) > least
        assert np.linalg.norm(step.gradient[i]) == pytest.approx(np.linalg.norm(reference), rel=3e-2 if dtype else 1e-4)
        assert float(step.shift[i].norm()) == pytest.approx(0.5, rel=1e-5), m


@pytest.mark.parametrize("method", [EMA(), Adam(), Lion()])
def test_a_stabiliser_of_a_convinced_guide_starts_where_the_gradient_points(method):
    guided, labels = sampler(stabilizer=method)
    step = next(guided.steps(labels, 4))
    for i in range(len(MARGINS)):
        assert float(step.update[i].norm()) > 0
        assert cosine(step.update[i], step.gradient[i]) > 0


@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
def test_smoothgrad_weighs_its_draws_by_their_factors(classifier_input):
    """Mean over the draws of exact gradients, at the inputs that the classifier saw; margins up to 200."""
    guided, labels = sampler(smoothgrad=SmoothGrad(3, 0.05), classifier_input=classifier_input)
    guide, seen = guided.guidance.classifier, []

    def keep(module, inputs, output):
        seen.append(output.detach())

    with guide.register_forward_hook(keep):
        step = next(guided.steps(labels, 4))
    weight = guide.linear.weight.detach().numpy()
    for i in range(len(MARGINS)):
        reference = sum(exact(weight, logits[i].numpy(), labels[i]) for logits in seen[1:]) / 3
        assert cosine(step.gradient[i], reference) > 1 - 1e-9
        assert cosine(step.direction[i], reference) > 1 - 1e-9


def test_the_objective_is_the_log_probability_of_80_digits():
    logits = torch.tensor([[40.0, 0.0, 1.0, -2.0], [-3.0, 2.0, 0.5, 100.0]])
    label = torch.tensor([0, 1])
    for z, y, found in zip(logits, label, objectives.value("log_prob", logits, label), strict=True):
        with mpmath.workdps(80):
            powers = [mpmath.exp(float(v)) for v in z]
            expected = mpmath.log(powers[int(y)] / mpmath.fsum(powers))
        assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize("scale", [0.5, -0.5, 2.0])
def test_the_shift_points_where_the_direction_does(unet, kind, prediction_type, clip_sample, scale):
    """Cosine(shift, direction) is the sign of the scale; with DDIM a second clamp once turned it (-0.96)."""
    scheduler = kind(prediction_type=prediction_type, clip_sample=clip_sample)
    guidance = ClassifierGuidance(LinearClassifier(), "x0", scale)
    for step in GuidedSampler(unet, scheduler, guidance).steps([0, 1, 2], 7):
        for shift, direction in zip(step.shift, step.direction, strict=True):
            assert abs(cosine(shift, direction) - np.sign(scale)) < 1e-6


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("normalize", ["none", "l2"])
def test_the_shift_is_exact_for_gradients_of_any_size(unet, classifier, kind, size, normalize):
    """Against float64: the published change of epsilon for DDIM, the shift of the mean for DDPM."""

    class Scaled(nn.Module):
        def forward(self, x):
            return classifier(x) * size

    scheduler = kind(clip_sample=True)
    guidance = ClassifierGuidance(Scaled(), "x_t", 0.7, objective="logit", normalize=normalize)
    steps = list(GuidedSampler(unet, scheduler, guidance).steps([0, 1, 2], 10))
    schedule = Schedule(scheduler, 10)
    for step, times in zip(steps, schedule.times, strict=True):
        g = step.gradient.numpy().astype(np.float64)
        amount = 0.7 * (g / np.sqrt((g**2).sum(axis=(1, 2, 3), keepdims=True)) if normalize == "l2" else g)
        a, gain = times.alphas_cumprod, 1.0
        if kind is DDIMScheduler:
            t = step.timestep - 100
            b = float(scheduler.alphas_cumprod[t]) if t >= 0 else 1.0
            gain = b**0.5 * (1 - a) / a**0.5 - ((1 - b) * (1 - a)) ** 0.5
        error = np.linalg.norm(step.shift.numpy().astype(np.float64) - gain * amount)
        assert error <= 1e-5 * np.linalg.norm(gain * amount)


@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
def test_at_signal_0_what_is_undefined_goes_unguided(unet, classifier, kind, classifier_input):
    """DDIM changes epsilon, which says nothing of x0 there; x0_detached divides by the signal. All else guides."""
    scheduler = kind(rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing")
    guidance = ClassifierGuidance(classifier, classifier_input, 0.5)
    first, *others = GuidedSampler(unet, scheduler, guidance).steps([0, 1], 5)
    assert first.alphas_cumprod == 0
    free = kind is DDIMScheduler or classifier_input == "x0_detached"
    assert first.unguided.tolist() == [free] * 2
    assert bool((first.shift == 0).all()) == free
    for step in [first, *others]:
        assert all(x.isfinite().all() for x in (step.gradient, step.shift, step.prev_sample, step.logits))
    assert not any(step.unguided.any() for step in others)
