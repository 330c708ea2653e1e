"""How often denoiser and guide run with every scheduler, condition, kind of guide and probe, counted by hooks."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from every_probe import make
from passes import Counted, Passes
from small_models import SIZE, UNET, LinearClassifier
from solvers import Case, Classifier, Denoiser, plain_loop
from torch import nn

from gradscope import ClassifierGuidance, Energy, GuidedSampler, WeightedSum
from gradscope.config import RunConfig
from gradscope.models.schedulers import SCHEDULERS
from gradscope.recording.measure import measured
from gradscope.sampling.denoiser import Condition
from gradscope.stabilizers import Adam
from probes import NAMED, Trace

LABELS, STEPS = [0, 1, 2], 4
ONCE, FORWARD, NONE = Passes(1, 1), Passes(1, 0), Passes(0, 0)
THROUGH = {"x_t": FORWARD, "x0": ONCE, "x0_detached": FORWARD}
"""Passes of the denoiser for one gradient."""
inputs = pytest.mark.parametrize("kind", THROUGH)


def passes_of(sampler, *models, probes=()):
    """Passes of models at each step, each with its probes."""
    counted, states = [Counted(model, len(LABELS)) for model in models], [probe.init() for probe in probes]
    found = []
    with sampler.register_step_hook(lambda step: measured(probes, step, states)):
        with sampler.register_step_hook(lambda step: found.append([model.passes for model in counted])):
            sampler.sample(LABELS, STEPS)
    return found


@inputs
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_takes_no_pass_more_than_in_diffusers_own_loop(name, kind):
    scheduler = Case(name, {}, {}).scheduler()
    denoiser, guide = Denoiser(), Classifier()
    plain = Counted(denoiser, len(LABELS))
    plain_loop(scheduler, denoiser, len(LABELS), STEPS, seed=0)
    expected = plain.passes.forward
    sampler = GuidedSampler(denoiser, scheduler, ClassifierGuidance(guide, kind, guidance_scale=0.1))
    asked = [ONCE] * expected
    if kind == "x0_detached" and name.startswith("flow_match"):
        asked[0] = FORWARD  # from pure noise, where 1 / signal_t is infinite
    assert passes_of(sampler, denoiser, guide) == [[THROUGH[kind], each] for each in asked]


@inputs
@pytest.mark.parametrize(("scale", "calls"), [(1.0, 1), (3.0, 2)])
def test_classifier_free_guidance_runs_the_denoiser_twice(kind, scale, calls):
    unet, guide = UNet2DModel(sample_size=SIZE, num_class_embeds=5, **UNET), LinearClassifier()
    guidance = ClassifierGuidance(guide, kind, guidance_scale=0.1)
    sampler = GuidedSampler(unet, DDPMScheduler(), guidance, condition=Condition("label", scale=scale))
    assert passes_of(sampler, unet, guide) == [[THROUGH[kind] * calls, ONCE]] * STEPS


@inputs
def test_a_sum_runs_each_of_its_guides_once(kind):
    class Near(nn.Module):
        def forward(self, x, t, x_0):
            return -(x_0 + x).square().flatten(1).sum(dim=1)

    denoiser, guide, energy = Denoiser(), Classifier(), Near()
    total = WeightedSum([(1.0, guide), (-0.5, Energy(energy))])
    sampler = GuidedSampler(denoiser, DDIMScheduler(), ClassifierGuidance(total, kind, guidance_scale=0.1))
    assert passes_of(sampler, denoiser, guide, energy) == [[THROUGH[kind], ONCE, ONCE]] * STEPS


def test_stabilizer_scale_and_interval_need_no_pass():
    denoiser, guide = Denoiser(), Classifier()
    for scale in (0.0, -1.0, 5.0):
        guidance = ClassifierGuidance(guide, "x0", guidance_scale=scale, interval=(0, 500))
        found = passes_of(GuidedSampler(denoiser, DDIMScheduler(), guidance, Adam()), denoiser, guide)
        assert found == [[ONCE, ONCE]] * STEPS


GRADIENTS = {"snr": 8, "attribution": 4 + 1}
"""Gradients of the objective for a probe with its default settings."""
VALUES = {"attribution": 4 + 1}
"""Values of the objective that are not differentiated."""


def expected_with(names, kind):
    """Passes of denoiser, guide and reference at a step."""
    gradients, values = (sum(table.get(name, 0) for name in names) for table in (GRADIENTS, VALUES))
    through = NONE if kind == "x_t" else THROUGH[kind]  # the objective at x_t needs no prediction
    denoised = THROUGH[kind] + through * gradients + Passes(through.forward, 0) * values
    return [denoised, ONCE + ONCE * gradients + FORWARD * values, ONCE if "reference" in names else NONE]


SETS = {name: [name] for name in NAMED if name != "classifier_free"}  # which measures another kind of sampler
SETS |= {"default": list(RunConfig.model_fields["probes"].default), "all": list(SETS)}


@inputs
@pytest.mark.parametrize("names", SETS.values(), ids=SETS)
def test_probes_take_their_own_passes_alone(names, kind, classifier, unet):
    found = [probe for name in names for probe in make(name)]
    reference = next((probe.classifier for probe in found if hasattr(probe, "classifier")), nn.Identity())
    guidance = ClassifierGuidance(classifier, kind, guidance_scale=0.1)
    sampler = GuidedSampler(unet, DDIMScheduler(), guidance)
    attached = [probe for probe in found if type(probe).__name__ == "Layers"]
    if attached:
        sampler.register_step_hook(Trace(attached))
        found = [probe for probe in found if probe not in attached]
    assert passes_of(sampler, unet, classifier, reference, probes=found) == [expected_with(names, kind)] * STEPS


def test_the_counter_sees_a_pass_too_many(unet, x_t):
    counted = Counted(unet, len(x_t))
    x = x_t.requires_grad_()
    for _ in range(2):
        torch.autograd.grad(unet(x, 3).sample.sum(), x)
    assert counted.passes == Passes(2, 2)
    unet(torch.cat([x_t, x_t]), 3)
    assert counted.passes == Passes(2, 0)
