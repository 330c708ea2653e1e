"""LGD against autograd of the logarithm of a mean of exponentials, with the same noise."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from linear_models import D, HandLoop, Logits, close, log_prob, measurement, steps_of

from gradscope import Energy, methods
from gradscope.sampling.guidance.methods import ClassifierGradient
from gradscope.sampling.noise import own_noise

SCHEDULERS = [DDIMScheduler(clip_sample=False), DDPMScheduler(clip_sample=False)]


def x0_of(loop, x, step, held=False):
    epsilon = loop.epsilon(x, torch.tensor(int(step.timestep)))
    a = step.alphas_cumprod
    return (x - (1 - a) ** 0.5 * (epsilon.detach() if held else epsilon)) / a**0.5


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("kind", ["x0", "x0_detached"])
def test_a_classifiers_vector_is_the_gradient_of_its_mean_probability(scheduler, kind):
    guide, loop = Logits(gain=2.0), HandLoop(scheduler)
    for i, step in enumerate(steps_of(methods.LGD(draws=5, std=0.7), scheduler, guide, kind)):
        x, a = step.x_t.requires_grad_(), step.alphas_cumprod
        noised = x0_of(loop, x, step, kind == "x0_detached") + 0.7 * (1 - a) ** 0.5 * loop.draws(x, i, 0, 5)
        p = torch.stack([guide(c).softmax(dim=1) for c in noised]).mean(dim=0)
        value = p[range(3), range(3)].log()
        (expected,) = torch.autograd.grad(value.sum(), x)
        close(step.gradient, expected)
        close(step.energy, value.detach())
        close(step.logits.softmax(dim=1), p.detach())
        factor = {"DDPMScheduler": 1.0}.get(type(scheduler).__name__)
        if factor is not None:
            close(step.shift, 0.3 * step.gradient)


def test_the_vector_enters_ddims_noise_prediction():
    scheduler = SCHEDULERS[0]
    loop = HandLoop(scheduler)
    for step in steps_of(methods.LGD(), scheduler, Logits()):
        moved = step.model_output - step.noise * 0.3 * step.gradient
        prev = loop.step(moved, torch.tensor(int(step.timestep)), step.x_t)
        close(step.prev_sample, prev, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("noise_std", [0.4, 1.5])
def test_an_energys_vector_is_that_of_logsumexp(noise_std):
    loop, guide = HandLoop(SCHEDULERS[0]), measurement(noise_std)
    for i, step in enumerate(steps_of(methods.LGD(draws=3), SCHEDULERS[0], guide)):
        x, a = step.x_t.requires_grad_(), step.alphas_cumprod
        noised = x0_of(loop, x, step) + (1 - a) ** 0.5 * loop.draws(x, i, 0, 3)
        values = torch.stack([guide(c, 0, c, range(3)) for c in noised])
        (expected,) = torch.autograd.grad((values.logsumexp(dim=0) - math.log(3)).sum(), x)
        close(step.gradient, expected)


@pytest.mark.slow
def test_with_many_draws_it_is_the_smoothed_gaussian():
    """exp(-|x - m|^2 / 2 v) smoothed by N(0, r^2 I) has the log-gradient -(x - m) / (v + r^2)."""
    guide = Energy(lambda x, t, x_0: -(x_0 - 0.4).square().sum(dim=1) / (2 * 0.8))
    loop, off = HandLoop(SCHEDULERS[0], 4), {}
    for draws in (20, 2000):
        first = steps_of(methods.LGD(draws=draws), SCHEDULERS[0], guide, count=4)[2]
        x, a = first.x_t.requires_grad_(), first.alphas_cumprod
        x_0 = x0_of(loop, x, first)
        (exact,) = torch.autograd.grad((-(x_0 - 0.4).square().sum(dim=1) / (2 * (0.8 + 1 - a))).sum(), x)
        off[draws] = float((first.gradient - exact).norm() / exact.norm())
    assert off[2000] < 0.05
    assert off[2000] < off[20] / 3


@pytest.mark.parametrize("kind", ["x0", "x0_detached"])
@pytest.mark.parametrize("scheduler", [*SCHEDULERS, EulerDiscreteScheduler(timestep_spacing="leading")])
def test_without_noise_or_with_one_draw_of_none_it_is_the_classifiers_gradient(scheduler, kind):
    plain = steps_of(ClassifierGradient(), scheduler, Logits(), kind)
    for settings in ({"std": 0.0}, {"std": 0.0, "draws": 1}):
        for one, other in zip(plain, steps_of(methods.LGD(**settings), scheduler, Logits(), kind), strict=True):
            for name in ("gradient", "prev_sample", "shift", "logits", "energy", "backward_factor"):
                assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("margin", [5.0, 100.0, 250.0])
def test_a_convinced_classifiers_vector_is_exact(margin):
    """Of two classes, grad m is constant, so the vector is grad m * sum p_k (1 - p_k) / sum p_k, at 1e-109, too."""
    guide = Logits()
    guide.linear.bias.data += torch.tensor([margin, 0.0, -2000.0])
    loop = HandLoop(SCHEDULERS[0])
    for i, step in enumerate(steps_of(methods.LGD(draws=4), SCHEDULERS[0], guide)):
        x, a = step.x_t.requires_grad_(), step.alphas_cumprod
        x_0 = x0_of(loop, x, step)
        noised = x_0.detach() + (1 - a) ** 0.5 * loop.draws(x, i, 0, 4)
        m = torch.stack([(z := guide(c))[:, 0] - z[:, 1] for c in noised]).detach()
        factor = (m.sigmoid() * (-m).sigmoid()).sum(dim=0) / m.sigmoid().sum(dim=0)
        (slope,) = torch.autograd.grad((x_0 @ (guide.linear.weight[0] - guide.linear.weight[1])).sum(), x)
        assert 0 < float(factor[0])
        close(step.gradient[0], factor[0] * slope[0], rtol=1e-8, atol=0)
        assert float(step.gradient[0].abs().max()) > 0


def test_where_signal_is_1_the_noise_is_at_most_that_of_unit_data():
    """R = sigma / sqrt(1 + sigma^2), not sigma: Euler's first sigma is above 10."""
    scheduler = EulerDiscreteScheduler(timestep_spacing="leading")
    seen = []

    def energy(x, t, x_0):
        seen.append(x_0.detach().clone())
        return -x_0.square().sum(dim=1)

    steps = steps_of(methods.LGD(draws=2), scheduler, Energy(energy))
    loop = HandLoop(scheduler)
    assert steps[0].noise > 8
    for i, step in enumerate(steps):
        r = step.noise / (1 + step.noise**2) ** 0.5
        for k in range(2):
            expected = step.pred_original_sample + r * own_noise(loop.seeds, (i, 0, k), step.x_t)
            close(seen[2 * i + k], expected, rtol=1e-6, atol=1e-6)


def test_draws_do_not_depend_on_the_block_or_on_probes():
    sampled = steps_of(methods.LGD(), SCHEDULERS[1], Logits())
    again = steps_of(methods.LGD(), SCHEDULERS[1], Logits())
    for one, other in zip(sampled, again, strict=True):
        assert torch.equal(one.gradient, other.gradient)
    assert log_prob(Logits(), torch.zeros(3, D)).shape == (3,)
