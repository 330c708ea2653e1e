"""Universal guidance against its algorithm 1, written by hand, with the same noise."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from linear_models import HandLoop, Logits, close, log_prob, steps_of

from gradscope import methods

SCALE, FORWARD, RATE = 0.8, 0.6, 0.25
SCHEDULERS = [DDIMScheduler(clip_sample=False), DDPMScheduler(clip_sample=False)]


def guided_epsilon(loop, guide, x, t, steps):
    """Forward and backward guidance of epsilon: algorithm 1, with s(t) = sqrt(1 - a) s."""
    a, x = loop.share(t), x.detach().requires_grad_()
    epsilon = loop.epsilon(x, t)
    x_0 = (x - (1 - a) ** 0.5 * epsilon) / a**0.5
    loss = -log_prob(guide, x_0).sum()
    (forward,) = torch.autograd.grad(loss, x)
    delta = torch.zeros_like(x)
    for _ in range(steps):
        delta.requires_grad_()
        (slope,) = torch.autograd.grad(-log_prob(guide, x_0.detach() + delta).sum(), delta)
        delta = (delta - RATE * slope).detach()
    hat = epsilon + SCALE * FORWARD * (1 - a) ** 0.5 * forward - SCALE * (a / (1 - a)) ** 0.5 * delta
    return epsilon.detach(), hat.detach()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("recurrence", "steps"), [(1, 0), (1, 4), (3, 2)])
def test_the_whole_trajectory_is_that_of_algorithm_1(scheduler, recurrence, steps):
    guide = Logits(gain=2.0)
    method = methods.Universal(recurrence, forward=FORWARD, steps=steps, rate=RATE)
    found = iter(steps_of(method, scheduler, guide, scale=SCALE))
    loop = HandLoop(scheduler)
    x_t = loop.x_t
    for i, t in enumerate(loop.scheduler.timesteps):
        for repeat in range(recurrence):
            epsilon, hat = guided_epsilon(loop, guide, x_t, t, steps)
            prev = loop.step(hat, t, x_t)
            step = next(found)
            close(step.model_output, epsilon, rtol=1e-5, atol=1e-5)
            close(step.prev_sample, prev, rtol=1e-5, atol=1e-5)
            x_t = loop.renoised(prev, i, repeat)
        x_t = prev
    assert next(found, None) is None


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_vector_is_the_change_of_the_score(scheduler):
    """The score is -eps / noise."""
    guide, loop = Logits(gain=2.0), HandLoop(scheduler)
    for step in steps_of(methods.Universal(forward=FORWARD, steps=3, rate=RATE), scheduler, guide):
        epsilon, hat = guided_epsilon(loop, guide, step.x_t, torch.tensor(int(step.timestep)), 3)
        close(step.gradient, -(hat - epsilon) / SCALE / step.noise, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler])
def test_where_x0_hat_is_clamped_the_shift_is_not(kind):
    """x0-hat is clamped before it is moved, and not again: the shift keeps the vector's direction."""
    scheduler, clamped = kind(clip_sample=True, clip_sample_range=0.5), 0
    for step in steps_of(methods.Universal(steps=2), scheduler, Logits(gain=4.0), count=5):
        clamped += int((step.pred_original_sample.abs() == 0.5).sum())
        close(step.shift / step.shift.norm(), step.gradient / step.gradient.norm(), rtol=1e-9, atol=1e-9)
    assert clamped > 20


def test_a_solver_with_memory_remembers_the_guided_prediction():
    scheduler = DPMSolverMultistepScheduler()
    guide, loop = Logits(gain=2.0), HandLoop(scheduler)
    x_t = loop.x_t
    found = steps_of(methods.Universal(forward=FORWARD, steps=2, rate=RATE), scheduler, guide, scale=SCALE)
    for step, t in zip(found, loop.scheduler.timesteps, strict=True):
        _, hat = guided_epsilon(loop, guide, x_t, t, 2)
        x_t = loop.scheduler.step(hat, t, x_t).prev_sample
        close(step.prev_sample, x_t, rtol=1e-5, atol=1e-5)
