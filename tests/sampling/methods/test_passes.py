"""How often denoiser and guide run: what each method's description says, and not more."""

import pytest
from diffusers import DDIMScheduler
from linear_models import GaussianDenoiser, Logits, measured, measurement, sampler_of

from gradscope import SmoothGrad, methods
from gradscope.sampling.guidance.measurement import Measurement
from gradscope.sampling.guidance.methods import ClassifierGradient

CASES = [
    # method, input, passes of a repetition: denoiser forward and backward, guide forward, repetitions
    (ClassifierGradient(), "x_t", 1, 0, 1, 1),
    (ClassifierGradient(), "x0", 1, 1, 1, 1),
    (ClassifierGradient(), "x0_detached", 1, 0, 1, 1),
    (methods.DPS(), "x0", 1, 1, 1, 1),
    (methods.LGD(draws=5), "x0", 1, 1, 5, 1),
    (methods.LGD(draws=5), "x0_detached", 1, 0, 5, 1),
    (methods.LGD(draws=5, std=0.0), "x0", 1, 1, 1, 1),
    (methods.MPGD(), "x0_detached", 1, 0, 1, 1),
    (methods.FreeDoM(), "x0", 1, 1, 1, 1),
    (methods.FreeDoM(recurrence=3), "x0", 1, 1, 1, 3),
    (methods.Universal(), "x0", 1, 1, 1, 1),
    (methods.Universal(recurrence=2, steps=4), "x0", 1, 1, 5, 2),
    (methods.Universal(forward=0.0, steps=4), "x0", 1, 0, 5, 1),
    (methods.TFG(), "x0", 1, 1, 1, 1),
    (methods.TFG(recurrence=2, std=0.5, draws=3), "x0", 1, 1, 3, 2),
    (methods.TFG(rho=0.5, mu=0.1, steps=2, std=0.5, draws=3), "x0", 1, 1, 9, 1),
    (methods.TFG(rho=0.0, mu=0.1, steps=2), "x0", 1, 0, 3, 1),
]


@pytest.mark.parametrize(("method", "kind", "forwards", "backwards", "asked", "repeats"), CASES, ids=str)
def test_passes_of_a_repetition(method, kind, forwards, backwards, asked, repeats):
    denoiser, guide, count = GaussianDenoiser(), Logits(), 4
    sampler = sampler_of(method, DDIMScheduler(clip_sample=False), guide, kind, denoiser=denoiser)
    seen = (0, 0, 0)
    for step in sampler.steps([0, 1, 2], count):
        now = (denoiser.forwards, denoiser.backwards, guide.forwards)
        made = tuple(b - a for a, b in zip(seen, now, strict=True))
        assert made == (forwards, backwards, asked), (step.step, step.repeat)
        seen = now
    assert denoiser.forwards == count * repeats * forwards


def test_passes_of_pigdm():
    """The operator of the conjugate gradients is not the denoiser: that runs once in each direction."""
    calls = []

    def operator(x_0):
        calls.append(x_0)
        return measured(x_0)

    denoiser = GaussianDenoiser()
    guide = Measurement(operator, measurement().target)
    sampler = sampler_of(methods.PiGDM(iterations=7), DDIMScheduler(), guide, denoiser=denoiser)
    list(sampler.steps([0, 1, 2], 4))
    assert (denoiser.forwards, denoiser.backwards) == (4, 4)
    assert len(calls) <= 4 * (3 + 7) + 2


def test_smoothgrad_asks_the_guide_once_more_for_its_logits():
    from gradscope import ClassifierGuidance, GuidedSampler

    denoiser, guide = GaussianDenoiser(), Logits()
    guidance = ClassifierGuidance(guide, "x0", smoothgrad=SmoothGrad(samples=6, std=0.1))
    list(GuidedSampler(denoiser, DDIMScheduler(), guidance).steps([0, 1, 2], 4))
    assert (denoiser.forwards, denoiser.backwards, guide.forwards) == (4, 4, 4 * 7)
