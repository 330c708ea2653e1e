"""PiGDM against the exact gradient of log p(y | x_t) of a linear-Gaussian model."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from linear_models import TARGET, D, GaussianDenoiser, HandLoop, close, matrix, measured, measurement, steps_of

from gradscope import ClassifierGuidance, Energy, GuidedSampler, WeightedSum, methods
from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.measurement import Measurement

SCHEDULERS = [DDIMScheduler(clip_sample=False), DDPMScheduler(clip_sample=False)]


def exact(x_t, share, noise_std, mean):
    """Gradient of log p(y | x_t) from the joint normal distribution of x_t and y, for data N(mean, I)."""
    h, x = matrix(), x_t.double().requires_grad_()
    covariance = h @ h.T + noise_std**2 * torch.eye(len(h))  # of y
    mixed = share**0.5 * h  # of y and x_t; that of x_t is I
    conditional = covariance - mixed @ mixed.T
    expected = mean @ h.T + (x - share**0.5 * mean) @ mixed.T
    log_p = torch.distributions.MultivariateNormal(expected, conditional).log_prob(TARGET)
    return torch.autograd.grad(log_p.sum(), x)[0]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("noise_std", [1.0, 0.05, 1e-4])
def test_the_vector_is_the_exact_gradient_with_the_papers_factor(scheduler, noise_std):
    loop = HandLoop(scheduler)
    for step in steps_of(methods.PiGDM(), scheduler, measurement(noise_std), scale=0.7):
        a = step.alphas_cumprod
        weighted = a**0.5 * (1 - a) * exact(step.x_t, a, noise_std, loop.denoiser.mean.detach())
        close(step.gradient, weighted, rtol=1e-7, atol=1e-9)
        close(step.shift, 0.7 * step.gradient)
        prev = loop.step(step.model_output, torch.tensor(int(step.timestep)), step.x_t)
        close(step.prev_sample, prev + step.shift, rtol=1e-6, atol=1e-6)
        residual = TARGET - measured(step.pred_original_sample)
        close(step.energy, -residual.square().sum(dim=1) / (2 * noise_std**2))


def test_without_convergence_the_vector_is_that_of_one_conjugate_gradient_step():
    """From 0 one step gives (b . b / b . K b) b, with K = r^2 H H^T + sigma^2 I."""
    for step in steps_of(methods.PiGDM(iterations=1), SCHEDULERS[0], measurement(0.2)):
        a, h = step.alphas_cumprod, matrix()
        b = TARGET - measured(step.pred_original_sample)
        k = (1 - a) * h @ h.T + 0.04 * torch.eye(2)
        v = b * ((b * b).sum(dim=1) / (b * (b @ k)).sum(dim=1))[:, None]
        close(step.gradient, a**0.5 * (1 - a) * a**0.5 * v @ h, rtol=1e-9)
        converged = a**0.5 * (1 - a) * a**0.5 * torch.linalg.solve(k, b.T).T @ h
        assert float((step.gradient - converged).norm()) > 1e-3 * float(converged.norm())


def test_as_many_steps_as_there_are_measurements_converge():
    for one, other in zip(
        steps_of(methods.PiGDM(iterations=2), SCHEDULERS[0], measurement(0.2)),
        steps_of(methods.PiGDM(iterations=50), SCHEDULERS[0], measurement(0.2)),
        strict=True,
    ):
        close(one.gradient, other.gradient, rtol=1e-8, atol=1e-10)


def test_where_signal_is_1_the_variance_is_that_of_unit_data():
    """For x_t = x_0 + sigma noise, r^2 = sigma^2 / (1 + sigma^2), and x0-hat has the slope 1 / (1 + sigma^2)."""
    for step in steps_of(methods.PiGDM(), EulerDiscreteScheduler(timestep_spacing="leading"), measurement(0.3)):
        h, sigma = matrix(), step.noise
        variance = sigma**2 / (1 + sigma**2)
        b = TARGET - measured(step.pred_original_sample)
        v = torch.linalg.solve(variance * h @ h.T + 0.09 * torch.eye(2), b.T).T @ h
        # the table of alphas_cumprod and sigma are rounded to float32
        close(step.gradient, v / (1 + sigma**2) * variance / (1 + sigma**2) ** 0.5, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "operator",
    [
        lambda x: x[:, :2] + 1,
        lambda x: x[:, :2].abs(),
        lambda x: x[:, :2] ** 3,
        lambda x: x[:, :2].relu(),
        lambda x: torch.stack([x.median(dim=1).values, x[:, 0]], dim=1),
        lambda x: x.sort(dim=1).values[:, :2],
    ],
    ids=["affine", "abs", "cube", "relu", "median", "sort"],
)
def test_an_operator_that_is_not_linear_is_refused(operator):
    guide = Measurement(operator, TARGET, name="classifiers.y")
    with pytest.raises(GradscopeError, match=r"^classifiers.y: the operator is not linear: A\(x - 2 z\) differs"):
        steps_of(methods.PiGDM(), SCHEDULERS[0], guide)


def test_linearity_is_checked_at_the_first_step_alone():
    calls = []

    def operator(x):
        calls.append(x)
        return measured(x)

    counts = [0]
    sampler = GuidedSampler(
        GaussianDenoiser(),
        SCHEDULERS[0],
        ClassifierGuidance(Measurement(operator, TARGET), "x0", method=methods.PiGDM(iterations=2)),
    )
    for _ in sampler.steps([0, 1, 2], 3):
        counts.append(len(calls))
    first, second, third = (b - a for a, b in zip(counts, counts[1:], strict=False))
    assert second == third == 4  # objective, A(x0-hat), two products
    assert first == second + 2


@pytest.mark.parametrize("guide", [Energy(lambda x, t, x_0: x_0.sum(dim=1)), torch.nn.Linear(D, 2)])
def test_another_guide_is_refused_when_the_guidance_is_made(guide):
    for each in (guide, WeightedSum([(1.0, guide)])):
        name = type(each).__name__
        with pytest.raises(GradscopeError, match=f"pigdm needs a linear measurement as its guide, got {name}; give"):
            ClassifierGuidance(each, "x0", method=methods.PiGDM())
