"""Unguided trajectories of an audit: those of the sampler at scale 0, with the values that a recording has."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from small_models import LinearClassifier, ZeroUNet

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.auditing import unguided as module
from gradscope.auditing.prediction import VARIABLES, features
from gradscope.auditing.unguided import failures, unguided
from gradscope.errors import GradscopeError
from gradscope.models.diffusion import Denoiser
from probes.groups import NAMED

LABELS = [0, 1, 2, 3, 1, 0, 2]


def noisy_denoiser():
    unet = ZeroUNet()
    with torch.no_grad():
        unet.zero.fill_(0.8)
    return unet


@pytest.mark.parametrize("batch", [32, 3])
@pytest.mark.parametrize("kind", ["x_t", "x0"])
def test_the_values_are_those_of_a_recorded_control(tmp_path, monkeypatch, batch, kind):
    monkeypatch.setattr(module, "_BATCH", batch)
    classifier, unet, scheduler = LinearClassifier(), noisy_denoiser(), DDPMScheduler()
    guides = {"other": LinearClassifier(gain=3.0), "guide": classifier}
    together = unguided(guides, unet, scheduler, LABELS, num_inference_steps=6, seed=4)
    ours = together["guide"].sel(classifier_input=kind)
    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, kind, guidance_scale=0))
    probes = [probe for name in ("cosines", "belief", "spectrum") for probe in NAMED[name]()]
    with gradscope.record(sampler, tmp_path / "a.zarr", probes, tensor_samples=0) as recorder:
        recorder.sample(LABELS, 6, seed=4, batch_size=batch)
    theirs = gradscope.open(tmp_path / "a.zarr").squeeze()
    assert ours.sizes == {"sample": 7, "timestep": 6}
    np.testing.assert_array_equal(ours["timestep"], theirs["timestep"])
    for name in VARIABLES:
        np.testing.assert_allclose(ours[name], theirs[name].transpose("sample", "timestep"), rtol=1e-5, atol=1e-7)
    assert ours.attrs["classes"] == ["0", "1", "2", "3"]


def test_the_classifier_is_left_as_it_was_and_steps_are_counted():
    classifier, seen = LinearClassifier().train(), []
    guides = {"guide": classifier}
    unguided(guides, noisy_denoiser(), DDPMScheduler(), LABELS, num_inference_steps=4, on_step=lambda: seen.append(1))
    assert len(seen) == 8
    assert classifier.training
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_guides_and_inputs_share_the_denoisers_passes():
    unet, passes = noisy_denoiser(), []
    unet.register_forward_hook(lambda *_: passes.append(1))
    guides = {"one": LinearClassifier(), "two": LinearClassifier(gain=2.0)}
    unguided(guides, unet, DDPMScheduler(), LABELS, num_inference_steps=4)
    assert len(passes) == 4


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(GradscopeError, match="labels: the classifier has classes 0 to 3, got 9"):
        unguided({"a": LinearClassifier()}, noisy_denoiser(), DDPMScheduler(), [0, 9], num_inference_steps=2)


def test_failures_say_how_probable_and_by_which_features():
    denoiser = Denoiser(noisy_denoiser(), DDPMScheduler(), "mine")
    guides = {"one": LinearClassifier(), "other": LinearClassifier(gain=50.0)}
    found = failures(guides, denoiser, [2, 0], 5, 1, lambda: None)
    rule = module.read_rule()
    assert set(found) == {"failure_probability", *(f"unguided_{key}" for key in rule.features)}
    z = rule.intercept + sum(weight * found[f"unguided_{key}"].values for key, weight in rule.features.items())
    np.testing.assert_allclose(found["failure_probability"], 1 / (1 + np.exp(-z)))
    assert found["failure_probability"].dims == ("classifier", "classifier_input")
    labels = [2, 0] * 16
    mine = {"other": guides["other"]}
    alone = unguided(mine, denoiser.unet, denoiser.scheduler, labels, num_inference_steps=5, seed=1)["other"]
    for key in rule.features:
        wanted = [features(alone.sel(classifier_input=kind))[key] for kind in ("x_t", "x0")]
        np.testing.assert_allclose(found[f"unguided_{key}"][1], wanted)
    for array in found.values():
        assert set(array.attrs) == {"long_name", "units", "equation"}
