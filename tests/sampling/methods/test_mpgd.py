"""MPGD against steps by hand in which x0-hat is moved and epsilon is kept."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from linear_models import GaussianDenoiser, HandLoop, Logits, close, log_prob, sampler_of, steps_of

from gradscope import ClassifierGuidance, Energy, methods
from gradscope.errors import GradscopeError

SCALE = 0.3


def moved_x0(step, guide):
    """x0-hat, clamped if it is, plus the scaled gradient there."""
    x_0 = step.pred_original_sample.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(log_prob(guide, x_0).sum(), x_0)
    return gradient, x_0.detach() + SCALE * gradient


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("clipped_output", [False, True])
def test_a_step_of_ddim(clip, eta, clipped_output):
    """x_s = sqrt(a_s) x0' + sqrt(1 - a_s - sigma^2) eps + sigma z."""
    scheduler = DDIMScheduler(clip_sample=clip, clip_sample_range=0.6)
    settings = {"eta": eta, "use_clipped_model_output": clipped_output}
    guide, loop = Logits(gain=2.0), HandLoop(scheduler)
    steps = steps_of(methods.MPGD(), scheduler, guide, "x0_detached", **settings)
    clamped = False
    for i, step in enumerate(steps):
        a, before = step.alphas_cumprod, loop.before(i)
        clamped |= bool((step.pred_original_sample.abs() == 0.6).any())
        gradient, x_0 = moved_x0(step, guide)
        close(step.gradient, gradient)
        epsilon = step.model_output
        if clipped_output:
            epsilon = (step.x_t - a**0.5 * step.pred_original_sample) / (1 - a) ** 0.5
        sigma = eta * ((1 - before) / (1 - a) * (1 - a / before)) ** 0.5
        noise = torch.zeros_like(x_0)
        if eta:
            noise = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in loop.generators])
        prev = before**0.5 * x_0 + (1 - before - sigma**2) ** 0.5 * epsilon + sigma * noise
        close(step.prev_sample, prev, rtol=2e-6, atol=2e-6)
        close(step.shift, before**0.5 * SCALE * gradient, rtol=1e-12)
    assert clamped == clip


@pytest.mark.parametrize("clip", [False, True])
def test_a_step_of_ddpm(clip):
    """The posterior mean of x0' and x_t (equation 7 of arXiv 2006.11239)."""
    scheduler = DDPMScheduler(clip_sample=clip, clip_sample_range=0.6)
    guide, loop = Logits(gain=2.0), HandLoop(scheduler)
    for i, step in enumerate(steps_of(methods.MPGD(), scheduler, guide, "x0_detached")):
        a, before = step.alphas_cumprod, loop.before(i)
        beta = 1 - a / before
        _, x_0 = moved_x0(step, guide)
        mean = before**0.5 * beta / (1 - a) * x_0 + (a / before) ** 0.5 * (1 - before) / (1 - a) * step.x_t
        noise = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in loop.generators])
        sigma = (beta * (1 - before) / (1 - a)) ** 0.5 if step.timestep else 0.0
        close(step.prev_sample, mean + sigma * noise, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "scheduler",
    [
        EulerDiscreteScheduler(timestep_spacing="leading"),
        EulerAncestralDiscreteScheduler(timestep_spacing="leading"),
        FlowMatchEulerDiscreteScheduler(),
    ],
)
def test_a_step_in_sigma(scheduler):
    """X' = signal' x0' + noise' eps; the ancestral one goes below the next sigma and adds noise."""

    class Velocity(GaussianDenoiser):
        def forward(self, x, t):
            return 0.3 * x + 0.1

    denoiser = Velocity() if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) else GaussianDenoiser()
    guide = Logits(gain=2.0)
    steps = list(sampler_of(methods.MPGD(), scheduler, guide, "x0_detached", denoiser=denoiser).steps([0, 1, 2], 6, 4))
    loop = HandLoop(scheduler, denoiser=denoiser)
    for i, step in enumerate(steps):
        gradient, x_0 = moved_x0(step, guide)
        epsilon = (step.x_t - step.signal * step.pred_original_sample) / step.noise
        last = i + 1 == len(steps)
        following = float(loop.scheduler.sigmas[i + 1]) if not last else 0.0
        signal = 1 - following if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) else 1.0
        down, up, noise = following, 0.0, 0.0
        if isinstance(scheduler, EulerAncestralDiscreteScheduler):
            up = (following**2 * (step.noise**2 - following**2) / step.noise**2) ** 0.5
            down = (following**2 - up**2) ** 0.5
            noise = torch.stack([torch.randn(x_0.shape[1:], generator=g) for g in loop.generators])
        close(step.prev_sample, signal * x_0 + down * epsilon + up * noise, rtol=1e-4, atol=1e-4)
        close(step.shift, signal * SCALE * gradient, rtol=1e-6)


def test_the_guide_alone_is_differentiated():
    """An energy that also depends on x_t: only its part of x0-hat moves x0-hat."""
    guide = Energy(lambda x, t, x_0: (x * x_0).sum(dim=1))
    for step in steps_of(methods.MPGD(), DDIMScheduler(clip_sample=False), guide, "x0_detached"):
        close(step.gradient, step.x_t)


@pytest.mark.parametrize(
    "scheduler",
    [DPMSolverMultistepScheduler(), DEISMultistepScheduler(), HeunDiscreteScheduler(), UniPCMultistepScheduler()],
)
def test_a_solver_with_memory_is_refused(scheduler):
    torch.set_default_dtype(torch.float32)  # UniPC of diffusers fails with float64
    sampler = sampler_of(methods.MPGD(), scheduler, Logits(), "x0_detached")
    name = type(scheduler).__name__
    message = (
        f"guidance.method: mpgd moves x0-hat and keeps epsilon, but {name} makes steps of its memory, .*; take ddpm"
    )
    with pytest.raises(GradscopeError, match=message):
        sampler.schedule(6)


@pytest.mark.parametrize("kind", ["x_t", "x0"])
def test_it_is_defined_at_the_detached_x0_alone(kind):
    message = f"guidance.classifier_input: MPGD is not defined at '{kind}'; .*one of: x0_detached$"
    with pytest.raises(GradscopeError, match=message):
        ClassifierGuidance(Logits(), kind, method=methods.MPGD())
