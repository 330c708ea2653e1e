"""SmoothGrad: closed forms, and noise that depends on the sample's seed and the step alone."""

import pytest
import torch
from diffusers import DDPMScheduler
from small_models import ZeroUNet
from torch import nn

from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.sampler import GuidedSampler
from gradscope.sampling.seeds import sample_seeds

LABEL = torch.tensor([0, 3, 1])
SEEDS = [11, 12, 13]
THREE = SmoothGrad(3, 0.4)


class Quadratic(nn.Module):
    """Log-densities of Gaussians around constant images, as logits; keeps its inputs. Element by element, its gradient
    is the same for a sample whatever the batch.
    """

    def __init__(self, precision: float = 2.0) -> None:
        super().__init__()
        self.precision = precision
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        centres = torch.linspace(-1, 1, 4).view(1, 4, 1, 1, 1)
        return -self.precision / 2 * (x[:, None] - centres).square().flatten(2).sum(dim=2)


def evaluate(guidance, x_t, times, schedule, unet, seeds=SEEDS):
    t = torch.full((len(x_t),), times.timestep)
    return guidance.evaluate(x_t, LABEL[: len(x_t)], times, schedule, lambda x: unet(x, t).sample, seeds)


def test_gradient_of_a_quadratic_log_density_is_that_at_the_mean_noised_input(schedule, x_t, unet):
    classifier = Quadratic()
    guidance = ClassifierGuidance(classifier, objective="logit", smoothgrad=SmoothGrad(5, 0.3))
    evidence = evaluate(guidance, x_t, schedule.times[4], schedule, unet)
    clean, *noised = classifier.seen
    assert torch.equal(clean, x_t)
    assert len(noised) == 5
    centre = torch.linspace(-1, 1, 4)[LABEL].view(3, 1, 1, 1)
    expected = -2.0 * (torch.stack(noised).double().mean(dim=0) - centre)
    torch.testing.assert_close(evidence.gradient.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(evidence.logits, classifier(x_t))
    noise = (torch.stack(noised) - x_t).double() / 0.3
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert float((torch.corrcoef(noise.flatten(2).flatten(0, 1)) - torch.eye(15)).abs().max()) < 0.35


def test_smoothing_convolves_the_gradient_with_a_gaussian(schedule, x_t, unet):
    """Of a cubic, 3 x^2, it makes 3 (x^2 + std^2)."""

    class Cubic(nn.Module):
        def forward(self, x):
            return x.pow(3).flatten(1).sum(dim=1, keepdim=True).expand(-1, 4)

    samples, std = 400, 0.5
    guidance = ClassifierGuidance(Cubic(), objective="logit", smoothgrad=SmoothGrad(samples, std))
    gradient = evaluate(guidance, x_t, schedule.times[4], schedule, unet).gradient
    expected = 3 * (x_t**2 + std**2)
    error = ((9 * 4 * x_t**2 * std**2 + 9 * 2 * std**4) / samples).sqrt()  # standard deviation of the mean
    z = (gradient - expected) / error
    assert abs(float(z.mean())) < 4 / 576**0.5
    assert float(z.std()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("classifier_input", ["x_t", "x0", "x0_detached"])
def test_one_draw_without_noise_is_the_plain_gradient(schedule, x_t, classifier, unet, classifier_input):
    plain = evaluate(ClassifierGuidance(classifier, classifier_input), x_t, schedule.times[5], schedule, unet)
    guidance = ClassifierGuidance(classifier, classifier_input, smoothgrad=SmoothGrad(1, 0.0))
    smooth = evaluate(guidance, x_t, schedule.times[5], schedule, unet)
    assert torch.equal(smooth.gradient, plain.gradient)
    assert torch.equal(smooth.logits, plain.logits)


def test_the_mean_is_pulled_back_through_the_prediction_with_one_unet_pass(schedule, x_t, unet):
    """At x0-hat: the mean gradient at the noised x0-hat, then the U-Net's Jacobian by plain autograd."""
    classifier, times, passes = Quadratic(), schedule.times[5], []
    guidance = ClassifierGuidance(classifier, "x0", objective="logit", smoothgrad=SmoothGrad(4, 0.2))

    def denoise(x):
        passes.append(len(x))
        return unet(x, torch.full((3,), times.timestep)).sample

    evidence = guidance.evaluate(x_t, LABEL, times, schedule, denoise, SEEDS)
    assert passes == [3]
    mean = torch.stack(classifier.seen[1:]).mean(dim=0)
    at_x_0 = -2.0 * (mean - torch.linspace(-1, 1, 4)[LABEL].view(3, 1, 1, 1))
    x = x_t.clone().requires_grad_()
    a = times.alphas_cumprod
    x_0 = ((x - (1 - a) ** 0.5 * unet(x, times.timestep).sample) / a**0.5).clamp(-1, 1)
    x_0.backward(at_x_0)
    torch.testing.assert_close(evidence.gradient.float(), x.grad, rtol=1e-3, atol=1e-4)


def sampler(guidance_scale, smoothgrad=THREE):
    guidance = ClassifierGuidance(
        Quadratic(), "x0", guidance_scale, objective="logit", normalize="none", smoothgrad=smoothgrad
    )
    return GuidedSampler(ZeroUNet(), DDPMScheduler(clip_sample=False), guidance)


@pytest.mark.parametrize(("count", "first"), [(1, 2), (3, 1), (2, 2)])
def test_a_samples_gradients_are_bit_identical_whatever_the_batch(count, first):
    labels = [0, 1, 2, 3, 0]
    together = list(sampler(1e-3).steps(labels, 4, seed=3))
    some = list(sampler(1e-3).steps(labels[first : first + count], 4, seed=3, first_sample=first))
    for a, b in zip(together, some, strict=True):
        assert torch.equal(a.gradient[first : first + count], b.gradient)
        assert torch.equal(a.prev_sample[first : first + count], b.prev_sample)


def test_the_samplers_noise_is_left_alone():
    plain = sampler(0.0, None).sample([0, 1], 4, seed=3)
    state = torch.get_rng_state()
    assert torch.equal(sampler(0.0).sample([0, 1], 4, seed=3), plain)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_differs_between_steps_and_from_the_samplers(schedule, x_t, unet):
    classifier = Quadratic()
    guidance = ClassifierGuidance(classifier, objective="logit", smoothgrad=SmoothGrad(1, 1.0))
    seeds = sample_seeds(0, range(3)).tolist()
    for step in (0, 1, 0):
        evaluate(guidance, x_t, schedule.times[step], schedule, unet, seeds)
    first, second, again = (noised - x_t for noised in classifier.seen[1::2])
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)
    initial = torch.stack([torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(s)) for s in seeds])
    assert float((first - initial).abs().mean()) > 0.5


def test_a_non_finite_draw_is_not_averaged_away(schedule, x_t, unet):
    class Fails(Quadratic):
        def forward(self, x):
            logits = super().forward(x)
            factor = torch.ones(3, 1)
            factor[1] = torch.nan if len(self.seen) == 3 else 1
            return logits * factor

    guidance = ClassifierGuidance(Fails(), smoothgrad=SmoothGrad(4, 0.1))
    evidence = evaluate(guidance, x_t, schedule.times[4], schedule, unet)
    assert torch.isnan(evidence.gradient[1]).all()
    assert torch.isfinite(evidence.gradient[[0, 2]]).all()
    assert torch.isfinite(evidence.logits).all()


def test_bad_settings_name_their_key(schedule, x_t, classifier, unet):
    for settings, message in {
        (0, 0.1): "guidance.smoothgrad.samples: must be at least 1, got 0",
        (4, -0.1): "guidance.smoothgrad.std: must be finite and at least 0, got -0.1",
        (4, float("nan")): "guidance.smoothgrad.std: must be finite and at least 0, got nan",
    }.items():
        with pytest.raises(GradscopeError, match=message):
            SmoothGrad(*settings)
    guidance = ClassifierGuidance(classifier, smoothgrad=SmoothGrad(2, 0.1))
    with pytest.raises(ValueError, match="one seed per sample, got 0 for 3 samples"):
        evaluate(guidance, x_t, schedule.times[4], schedule, unet, ())


def test_labels_out_of_range_are_refused_before_the_first_draw(classifier):
    guidance = ClassifierGuidance(classifier, smoothgrad=SmoothGrad(2, 0.1))
    guided = GuidedSampler(ZeroUNet(), DDPMScheduler(), guidance)
    with pytest.raises(GradscopeError, match="labels: the classifier has classes 0 to 3, got 4"):
        guided.sample([0, 4], 2)
