"""DPS against plain autograd: -|y - A(x0-hat)| through the denoiser, added to prev_sample of any process."""

import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from linear_models import TARGET, D, HandLoop, Logits, close, log_prob, measured, measurement, steps_of

from gradscope import Energy, methods
from gradscope.errors import GradscopeError

SCHEDULERS = [
    DDPMScheduler(clip_sample=False),
    DDIMScheduler(clip_sample=False),
    EulerDiscreteScheduler(timestep_spacing="leading"),
    DPMSolverMultistepScheduler(),
    DEISMultistepScheduler(),
]


def named(scheduler):
    return type(scheduler).__name__


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=named)
def test_the_whole_trajectory_is_that_of_a_loop_by_hand(scheduler):
    """x_s = x'_s - s grad |y - A(x0-hat(x_t))|, with the scheduler's own step and memory."""
    found = steps_of(methods.DPS(), scheduler, measurement(), scale=0.3)
    loop = HandLoop(scheduler)
    x_t = loop.x_t * float(getattr(loop.scheduler, "init_noise_sigma", 1.0))
    for step, t in zip(found, loop.scheduler.timesteps, strict=True):
        x = x_t.detach().requires_grad_()
        given = loop.scheduler.scale_model_input(x, t) if hasattr(loop.scheduler, "scale_model_input") else x
        signal, noise = step.signal, step.noise
        epsilon = loop.epsilon(given, t)
        norm = (TARGET - measured((x - noise * epsilon) / signal)).norm(dim=1)
        (gradient,) = torch.autograd.grad(-norm.sum(), x)
        options = {} if named(scheduler).startswith(("DPM", "DEIS")) else {"generator": loop.generators}
        prev = loop.scheduler.step(epsilon.detach(), t, x.detach(), **options).prev_sample
        close(step.gradient, gradient, rtol=1e-6, atol=1e-6)
        close(step.energy, -(norm.detach() ** 2) / 2, rtol=1e-5, atol=1e-6)
        x_t = prev + 0.3 * gradient
        close(step.prev_sample, x_t, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheduler", SCHEDULERS[:2], ids=named)
def test_the_gradient_is_exact_at_each_step(scheduler):
    loop = HandLoop(scheduler)
    for norm, noise_std in [(True, 1.0), (True, 0.25), (False, 0.25)]:
        for step in steps_of(methods.DPS(norm=norm), scheduler, measurement(noise_std)):
            x, a = step.x_t.requires_grad_(), step.alphas_cumprod
            epsilon = loop.epsilon(x, torch.tensor(int(step.timestep)))
            residual = (TARGET - measured((x - (1 - a) ** 0.5 * epsilon) / a**0.5)).norm(dim=1) / noise_std
            (gradient,) = torch.autograd.grad((-residual if norm else -(residual**2) / 2).sum(), x)
            close(step.gradient, gradient, rtol=1e-10)
            close(step.shift, 0.3 * step.gradient, rtol=1e-12)


def test_a_clamped_element_has_no_gradient():
    scheduler = DDIMScheduler(clip_sample=True, clip_sample_range=0.5)
    for step in steps_of(methods.DPS(), scheduler, measurement()):
        clamped = step.pred_original_sample.abs() == 0.5
        assert bool(clamped.any())
        assert bool((step.gradient[clamped] == 0).all())  # the denoiser of this data keeps elements apart


def test_a_convinced_classifiers_gradient_is_exact():
    """-sqrt(-2 log p) has the gradient grad log p / sqrt(-2 log p), for 1 - p of 1e-40: both are below float32."""
    guide = Logits(gain=0.1)
    guide.linear.bias.data += torch.tensor([90.0, 0.0, -5.0])
    for step in list(steps_of(methods.DPS(), DDIMScheduler(clip_sample=False), guide))[:2]:
        loop, x = HandLoop(DDIMScheduler()), step.x_t.requires_grad_()
        a = step.alphas_cumprod
        z = guide((x - (1 - a) ** 0.5 * loop.epsilon(x, torch.tensor(int(step.timestep)))) / a**0.5)
        off = (z[:, 1:].logsumexp(dim=1) - z[:, 0]).exp()[:1]  # (1 - p) / p of the sample of class 0
        # log p = -log(1 + off), so -sqrt(-2 log p) = -sqrt(2 log1p(off))
        (expected,) = torch.autograd.grad(-(2 * off.log1p()).sqrt().sum(), x)
        assert 0 < float(step.energy[0].abs()) < 1e-37
        assert math.isfinite(float(step.backward_factor[0]))
        close(step.gradient[0], expected[0], rtol=1e-9, atol=0)


def test_at_the_target_itself_the_gradient_is_0():
    guide = Energy(lambda x, t, x_0: -(x_0 * 0).square().sum(dim=1))
    for step in steps_of(methods.DPS(), SCHEDULERS[1], guide):
        assert bool((step.gradient == 0).all())
        assert not bool(step.unguided.any())


def test_an_objective_above_0_is_refused():
    guide = Energy(lambda x, t, x_0: x_0.square().sum(dim=1))
    message = r"guidance.method.dps.norm: the guide's objective must not be above 0, got .*; set norm: false"
    with pytest.raises(GradscopeError, match=message):
        steps_of(methods.DPS(), SCHEDULERS[1], guide)
    steps_of(methods.DPS(norm=False), SCHEDULERS[1], guide)


def test_of_a_classifier_it_is_the_gradient_of_log_p_over_its_root():
    guide, loop = Logits(), HandLoop(SCHEDULERS[1])
    for step in steps_of(methods.DPS(), SCHEDULERS[1], guide):
        x, a = step.x_t.requires_grad_(), step.alphas_cumprod
        x_0 = (x - (1 - a) ** 0.5 * loop.epsilon(x, torch.tensor(int(step.timestep)))) / a**0.5
        (expected,) = torch.autograd.grad(-(-2 * log_prob(guide, x_0)).sqrt().sum(), x)
        close(step.gradient, expected)
        assert step.gradient.shape == (3, D)
