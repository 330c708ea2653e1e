"""Where two methods are one by their equations, their samples are equal."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from linear_models import HandLoop, Logits, close, steps_of

from gradscope import methods
from gradscope.sampling.guidance.methods import ClassifierGradient

DDIM, DDPM = DDIMScheduler(clip_sample=False), DDPMScheduler(clip_sample=False)
EULER, DPM = EulerDiscreteScheduler(timestep_spacing="leading"), DPMSolverMultistepScheduler()


@pytest.mark.parametrize("scheduler", [DDIM, DDPM])
def test_tfg_of_x_t_alone_is_freedom_times_a_factor(scheduler):
    """The factor is signal_s / signal_t."""
    loop = HandLoop(scheduler)
    for step in steps_of(methods.TFG(rho=0.7), scheduler, Logits()):
        freedom = _at(step, methods.FreeDoM(), scheduler)
        factor = (loop.before(step.step) / step.alphas_cumprod) ** 0.5
        close(step.gradient, 0.7 * factor * freedom.gradient, rtol=1e-12)


def _at(step, method, scheduler, kind="x0"):
    """Another method's evidence at the x_t of a step."""
    from linear_models import sampler_of

    sampler = sampler_of(method, scheduler, Logits(), kind)
    schedule = sampler.schedule(6)
    return sampler.evaluate(step.x_t, step.label, schedule.times[step.step], schedule, HandLoop(scheduler).seeds)


def test_tfg_of_x0_alone_by_one_step_is_mpgd_on_ddim():
    tfg = steps_of(methods.TFG(rho=0.0, mu=0.3, steps=1), DDIM, Logits(), scale=1.0)
    mpgd = steps_of(methods.MPGD(), DDIM, Logits(), "x0_detached", scale=0.3)
    for one, other in zip(tfg, mpgd, strict=True):
        close(one.prev_sample, other.prev_sample, rtol=1e-10)
        close(one.shift, other.shift, rtol=1e-10)


@pytest.mark.parametrize("scheduler", [DDIM, DDPM])
def test_tfg_with_noise_has_lgds_vector_times_a_factor(scheduler):
    loop = HandLoop(scheduler)
    for step in steps_of(methods.TFG(rho=1.0, std=0.8, draws=3), scheduler, Logits()):
        lgd = _at(step, methods.LGD(draws=3, std=0.8), scheduler)
        close(step.gradient, (loop.before(step.step) / step.alphas_cumprod) ** 0.5 * lgd.gradient, rtol=1e-12)
        close(step.energy, lgd.energy, rtol=1e-12)


@pytest.mark.parametrize("scheduler", [DDIM, EULER, DPM])
def test_forward_universal_guidance_is_the_classifiers_at_x0(scheduler):
    universal = steps_of(methods.Universal(forward=1.0, steps=0), scheduler, Logits())
    plain = steps_of(ClassifierGradient(), scheduler, Logits())
    for one, other in zip(universal, plain, strict=True):
        assert torch.equal(one.prev_sample, other.prev_sample)
        assert torch.equal(one.shift, other.shift)


def test_on_ddpm_they_differ_by_the_posteriors_factor():
    """The score moves x0-hat by noise^2 / signal, and the posterior mean takes its coefficient of x_0 of that."""
    loop = HandLoop(DDPM)
    for step in steps_of(methods.Universal(), DDPM, Logits()):
        a, before = step.alphas_cumprod, loop.before(step.step)
        factor = (1 - a) / a**0.5 * before**0.5 * (1 - a / before) / (1 - a)
        close(step.shift, 0.3 * factor * step.gradient, rtol=1e-5)


@pytest.mark.parametrize("scheduler", [DDIM, DDPM, EULER, DPM])
def test_lgd_by_one_draw_without_noise_is_the_classifiers_at_x0(scheduler):
    lgd = steps_of(methods.LGD(draws=1, std=0.0), scheduler, Logits())
    for one, other in zip(lgd, steps_of(ClassifierGradient(), scheduler, Logits()), strict=True):
        assert torch.equal(one.prev_sample, other.prev_sample)


def test_backward_universal_guidance_by_one_step_is_mpgd_times_a_factor():
    """Both move x0-hat by rate grad E, but MPGD keeps epsilon, and here epsilon follows: the change of prev_sample is
    signal_s - noise_s signal_t / noise_t of the move instead of signal_s.
    """
    loop = HandLoop(DDIM)
    for step in steps_of(methods.Universal(forward=0.0, steps=1, rate=0.2), DDIM, Logits(), scale=1.0):
        mpgd = _at(step, methods.MPGD(), DDIM, "x0_detached")
        a, before = step.alphas_cumprod, loop.before(step.step)
        factor = before**0.5 - ((1 - before) * a / (1 - a)) ** 0.5
        close(step.shift, 0.2 * factor * mpgd.gradient, rtol=1e-5)
