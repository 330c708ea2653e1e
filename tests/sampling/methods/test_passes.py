"""Every method runs denoiser and guide as often as `docs/reference/performance.md` says, counted by hooks."""

from dataclasses import asdict

import pytest
import torch
from diffusers import DDIMScheduler
from documentation import ROOT
from linear_models import TARGET, GaussianDenoiser, Logits, Measured, sampler_of
from passes import Counted, Passes

from gradscope import ClassifierGuidance, GuidedSampler, SmoothGrad, methods
from gradscope.methods import METHODS, ClassifierGradient
from gradscope.sampling.guidance.measurement import Measurement

SMOOTH = SmoothGrad(samples=6, std=0.1)
CASES = [
    # method, input, passes of a repetition: denoiser forward and backward, guide forward and backward; repetitions
    ("classifier", ClassifierGradient(), "x_t", (1, 0), (1, 1), 1),
    ("classifier", ClassifierGradient(), "x0", (1, 1), (1, 1), 1),
    ("classifier", ClassifierGradient(), "x0_detached", (1, 0), (1, 1), 1),
    ("smoothgrad", SMOOTH, "x_t", (1, 0), (7, 6), 1),
    ("smoothgrad", SMOOTH, "x0", (1, 1), (7, 6), 1),
    ("smoothgrad", SMOOTH, "x0_detached", (1, 0), (7, 6), 1),
    ("dps", methods.DPS(), "x0", (1, 1), (1, 1), 1),
    ("dps", methods.DPS(norm=False), "x0", (1, 1), (1, 1), 1),
    ("lgd", methods.LGD(draws=5), "x0", (1, 1), (5, 5), 1),
    ("lgd", methods.LGD(draws=5), "x0_detached", (1, 0), (5, 5), 1),
    ("lgd", methods.LGD(draws=5, std=0.0), "x0", (1, 1), (1, 1), 1),
    ("lgd", methods.LGD(draws=5, std=0.0), "x0_detached", (1, 0), (1, 1), 1),
    ("mpgd", methods.MPGD(), "x0_detached", (1, 0), (1, 1), 1),
    ("pigdm", methods.PiGDM(iterations=1), "x0", (1, 1), (3, 2), 1),
    ("pigdm", methods.PiGDM(iterations=2), "x0", (1, 1), (4, 3), 1),
    ("freedom", methods.FreeDoM(), "x0", (1, 1), (1, 1), 1),
    ("freedom", methods.FreeDoM(recurrence=3), "x0", (1, 1), (1, 1), 3),
    ("universal", methods.Universal(), "x0", (1, 1), (1, 1), 1),
    ("universal", methods.Universal(steps=1), "x0", (1, 1), (1, 1), 1),
    ("universal", methods.Universal(recurrence=2, steps=4), "x0", (1, 1), (4, 4), 2),
    ("universal", methods.Universal(forward=0.0, steps=4), "x0", (1, 0), (4, 4), 1),
    ("universal", methods.Universal(forward=0.0, steps=0), "x0", (1, 0), (1, 0), 1),
    ("tfg", methods.TFG(), "x0", (1, 1), (1, 1), 1),
    ("tfg", methods.TFG(recurrence=2, std=0.5, draws=3), "x0", (1, 1), (3, 3), 2),
    ("tfg", methods.TFG(rho=0.5, mu=0.1, steps=2, std=0.5, draws=3), "x0", (1, 1), (6, 6), 1),
    ("tfg", methods.TFG(rho=0.0, mu=0.1, steps=2), "x0", (1, 0), (2, 2), 1),
    ("tfg", methods.TFG(rho=0.0), "x0", (1, 0), (1, 0), 1),
]
COUNT = 4


def models_of(name, method, kind):
    """A sampler, its denoiser, and the module that its guide runs."""
    denoiser, guide, asked = GaussianDenoiser(), Logits(), None
    if name == "pigdm":
        asked = Measured()
        guide = Measurement(asked, TARGET)
    if name == "smoothgrad":
        sampler = GuidedSampler(denoiser, DDIMScheduler(), ClassifierGuidance(guide, kind, smoothgrad=method))
    else:
        sampler = sampler_of(method, DDIMScheduler(clip_sample=False), guide, kind, denoiser=denoiser)
    return sampler, denoiser, guide if asked is None else asked


@pytest.mark.parametrize(("name", "method", "kind", "denoised", "asked", "repeats"), CASES, ids=str)
def test_passes_of_a_repetition(name, method, kind, denoised, asked, repeats):
    sampler, denoiser, guide = models_of(name, method, kind)
    counted = Counted(denoiser, 3), Counted(guide, 3)
    steps = 0
    for step in sampler.steps([0, 1, 2], COUNT):
        at_first = Passes(2, 0) if name == "pigdm" and steps == 0 else Passes(0, 0)  # whether the operator is linear
        assert [models.passes for models in counted] == [Passes(*denoised), Passes(*asked) + at_first], step.step
        steps += 1
    assert steps == COUNT * repeats


def test_the_cases_are_all_methods_at_all_inputs():
    found = {(name, kind) for name, _, kind, *_ in CASES if name != "smoothgrad"}
    assert found == {(name, kind) for name, method in METHODS.items() for kind in method.inputs}


def stated(name, kind):
    """The row of the table in the documentation: formulas of the method's settings."""
    lines = (ROOT / "docs" / "reference" / "performance.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith(f"| `{name}` | `{kind}` |")]
    return [cell.strip().strip("`") for cell in row.strip("|").split("|")[2:]]


@pytest.mark.parametrize(("name", "method", "kind", "denoised", "asked", "repeats"), CASES, ids=str)
def test_the_documented_table_says_so(name, method, kind, denoised, asked, repeats):
    settings = asdict(method) | {"max": max}
    assert [eval(formula, {"__builtins__": {}}, settings) for formula in stated(name, kind)] == [*denoised, *asked]


def test_without_signal_a_detached_x0_hat_is_not_differentiated():
    """1 / signal_t is infinite there; the guide is asked for its logits alone."""
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing")
    sampler, denoiser, guide = models_of("classifier", ClassifierGradient(), "x0_detached")
    sampler = GuidedSampler(denoiser, scheduler, sampler.guidance)
    counted, found = Counted(guide, 3), []
    for _ in sampler.steps([0, 1, 2], 3):
        found.append(counted.passes)
    assert found == [(1, 0), (1, 1), (1, 1)]


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("name", ["universal", "tfg"])
def test_the_shared_pass_gives_the_bits_of_two(name, steps):
    """The gradient at x_t and the first step at x0-hat come from one pass of the guide."""
    make = {
        "universal": lambda forward, count: methods.Universal(forward=forward, steps=count, rate=0.25),
        "tfg": lambda rho, count: methods.TFG(rho=rho, mu=0.25, steps=count, std=0.5, draws=2),
    }[name]
    both, at_x_t, at_x_0 = (
        next(models_of(name, make(first, count), "x0")[0].steps([0, 1, 2], 3)).gradient
        for first, count in ((0.5, steps), (0.5, 0), (0.0, steps))
    )
    torch.testing.assert_close(both, at_x_t + at_x_0, rtol=0, atol=0)
