"""FreeDoM against its algorithm 2, written by hand, with the same noise."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from linear_models import HandLoop, Logits, close, log_prob, measurement, steps_of

from gradscope import methods

SCHEDULERS = [DDIMScheduler(clip_sample=False), DDPMScheduler(clip_sample=False), DDIMScheduler(clip_sample=True)]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("recurrence", "between"), [(1, None), (3, None), (3, (300, 700))])
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_the_whole_trajectory_is_that_of_algorithm_2(scheduler, recurrence, between, eta):
    is_ddim = isinstance(scheduler, DDIMScheduler)
    if eta and not is_ddim:
        return
    method, guide = methods.FreeDoM(recurrence, between), Logits(gain=2.0)
    steps = iter(steps_of(method, scheduler, guide, scale=0.3, **({"eta": eta} if eta else {})))
    loop = HandLoop(scheduler)
    x_t = loop.x_t
    for i, t in enumerate(loop.scheduler.timesteps):
        inside = between is None or between[0] <= int(t) < between[1]
        for repeat in range(recurrence if inside else 1):
            x, a = x_t.detach().requires_grad_(), loop.share(t)
            epsilon = loop.epsilon(x, t)
            x_0 = (x - (1 - a) ** 0.5 * epsilon) / a**0.5
            x_0 = x_0.clamp(-1, 1) if scheduler.config.clip_sample else x_0
            (gradient,) = torch.autograd.grad(log_prob(guide, x_0).sum(), x)
            prev = loop.step(epsilon, t, x, **({"eta": eta} if is_ddim else {})) + 0.3 * gradient
            step = next(steps)
            assert (step.step, step.repeat) == (i, repeat)
            close(step.x_t, x_t, rtol=1e-6, atol=1e-6)
            close(step.gradient, gradient, rtol=1e-6, atol=1e-6)
            close(step.prev_sample, prev, rtol=1e-6, atol=1e-6)
            x_t = loop.renoised(prev, i, repeat)
        x_t = prev
    assert next(steps, None) is None


def test_the_gradient_is_exact_at_each_repetition():
    loop, guide = HandLoop(SCHEDULERS[0]), measurement(0.5)
    for step in steps_of(methods.FreeDoM(recurrence=2), SCHEDULERS[0], guide):
        x, a = step.x_t.requires_grad_(), step.alphas_cumprod
        x_0 = (x - (1 - a) ** 0.5 * loop.epsilon(x, torch.tensor(int(step.timestep)))) / a**0.5
        (expected,) = torch.autograd.grad(guide(x_0, 0, x_0, range(3)).sum(), x)
        close(step.gradient, expected)
        close(step.shift, 0.3 * step.gradient, rtol=1e-12)


def test_without_recurrence_it_is_dps_without_norm():
    for one, other in zip(
        steps_of(methods.FreeDoM(), SCHEDULERS[1], measurement()),
        steps_of(methods.DPS(norm=False), SCHEDULERS[1], measurement()),
        strict=True,
    ):
        assert torch.equal(one.prev_sample, other.prev_sample)
