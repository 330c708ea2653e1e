"""TFG against its algorithm 1, written by hand, with the same noise."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from linear_models import HandLoop, Logits, close, log_prob, measurement, steps_of

from gradscope import methods

SCHEDULERS = [DDIMScheduler(clip_sample=False), DDPMScheduler(clip_sample=False)]
SETTINGS = [
    {"rho": 0.4},
    {"rho": 0.0, "mu": 0.3, "steps": 3},
    {"rho": 0.4, "mu": 0.3, "steps": 2, "std": 0.5, "draws": 3},
    {"rho": 0.2, "mu": 0.1, "steps": 2, "std": 0.5, "draws": 2, "recurrence": 3},
    {"rho": 0.2, "mu": 0.1, "recurrence": 2, "between": (400, 900)},
    {"rho": 0.0, "mu": 0.3, "steps": 0},
]


def averaged(guide, x_0, noise):
    """Log of the mean of exp(log p) over noised clean samples, ``(n,)``."""
    values = torch.stack([log_prob(guide, x_0 + each) for each in noise])
    return values.logsumexp(dim=0) - math.log(len(values))


def algorithm_1(loop, guide, x_t, i, repeat, rho=1.0, mu=0.0, steps=1, std=0.0, draws=4, **_):
    """One repetition of a step: prev_sample and the vector that it gained."""
    t = loop.scheduler.timesteps[i]
    a, before = loop.share(t), loop.before(i)
    noise = torch.zeros(1, *x_t.shape)
    if std:
        noise = std * (1 - a) ** 0.5 * loop.draws(x_t, i, repeat, draws)
    x = x_t.detach().requires_grad_()
    epsilon = loop.epsilon(x, t)
    x_0 = (x - (1 - a) ** 0.5 * epsilon) / a**0.5
    (slope,) = torch.autograd.grad(averaged(guide, x_0, noise).sum(), x)
    moved = x_0.detach().clone()
    for _ in range(steps):
        at = moved.detach().requires_grad_()
        moved = moved + mu * torch.autograd.grad(averaged(guide, at, noise).sum(), at)[0]
    vector = rho * slope / (a / before) ** 0.5 + before**0.5 * (moved - x_0.detach())
    return loop.step(epsilon, t, x) + vector, vector


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_whole_trajectory_is_that_of_algorithm_1(scheduler, settings):
    guide, loop = Logits(gain=2.0), HandLoop(scheduler)
    found = iter(steps_of(methods.TFG(**settings), scheduler, guide, scale=1.0))
    x_t, (first, end) = loop.x_t, settings.get("between", (0, 1000))
    for i, t in enumerate(loop.scheduler.timesteps):
        for repeat in range(settings.get("recurrence", 1) if first <= int(t) < end else 1):
            prev, vector = algorithm_1(loop, guide, x_t, i, repeat, **settings)
            step = next(found)
            assert (step.step, step.repeat) == (i, repeat)
            close(step.gradient, vector, rtol=1e-5, atol=1e-6)
            close(step.prev_sample, prev, rtol=1e-5, atol=1e-6)
            x_t = loop.renoised(prev, i, repeat)
        x_t = prev
    assert next(found, None) is None


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_vector_is_exact_at_each_repetition(settings):
    guide, loop = Logits(gain=2.0), HandLoop(SCHEDULERS[0])
    for step in steps_of(methods.TFG(**settings), SCHEDULERS[0], guide, scale=1.0):
        _, vector = algorithm_1(loop, guide, step.x_t, step.step, step.repeat, **settings)
        close(step.gradient, vector, rtol=1e-9, atol=1e-11)
        close(step.shift, step.gradient, rtol=0, atol=0)


def test_where_signal_is_1_the_noise_is_at_most_that_of_unit_data():
    """As in LGD, whatever the process: Euler's sigma itself, above 10, would drown x0-hat."""
    scheduler = EulerDiscreteScheduler(timestep_spacing="leading")
    lgd = steps_of(methods.LGD(draws=3, std=0.5), scheduler, measurement())[0]
    tfg = steps_of(methods.TFG(std=0.5, draws=3), scheduler, measurement())[0]
    close(tfg.gradient, lgd.gradient, rtol=1e-9)
    close(tfg.energy, lgd.energy, rtol=1e-9)
