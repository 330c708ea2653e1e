"""Probes on samples that are not images: each value is that of the same numbers laid out as an image."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradscope import ClassifierGuidance, GuidedSampler, stabilizers
from gradscope.models.mixture import Denoiser, Mixture, NoiseAware, scheduler
from gradscope.models.schedulers import make_scheduler
from probes import NAMED, GuidedStep, Layers, ReferenceCosine, Spectrum, attach_all

SHAPES = {
    "points": (2,), "trajectories": (16, 2), "signals": (1, 64), "frames": (3, 4, 8, 8), "point sets": (5, 2)
}  # fmt: skip
NOT_HERE = {"spectrum", "classifier_free", "reference", "layers"}


def mixture(shape):
    return Mixture(torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0)), 0.3)


class Linear(nn.Module):
    """A classifier of samples of any shape."""

    def __init__(self, shape):
        super().__init__()
        self.layer = nn.Linear(int(np.prod(shape)), 2)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(self.layer.weight.shape, generator=generator) / self.layer.in_features)

    def forward(self, x):
        return self.layer(x.flatten(1)).tanh()


def sampler_of(shape, name="ddpm", guide=None, given="x0"):
    data, noise = mixture(shape), scheduler()
    guidance = ClassifierGuidance(guide or Linear(shape), classifier_input=given, guidance_scale=0.3)
    unet = Denoiser(data, noise.alphas_cumprod)
    return GuidedSampler(unet, make_scheduler(name, {}, noise), guidance, stabilizers.Adam())


def flat(step):
    """The step of the same samples as images of one row."""
    shape = step.x_t.shape[1:]

    def row(x):
        return x.reshape(len(x), 1, 1, -1)

    changed = {
        field.name: row(value)
        for field in fields(GuidedStep)
        if field.name != "logits"
        and isinstance(value := getattr(step, field.name), Tensor)
        and value.shape[1:] == shape
    }
    objective = step.objective
    return replace(step, **changed, objective=lambda x, label: objective(x.reshape(len(x), *shape), label))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("name", sorted(set(NAMED) - NOT_HERE))
def test_a_probe_measures_any_sample_as_it_measures_an_image(kind, name):
    shape = SHAPES[kind]
    probes, others = NAMED[name](), NAMED[name]()
    states, other_states = ([p.init() for p in found] for found in (probes, others))
    for step in sampler_of(shape).steps([0, 1, 0], 4):
        for i, (probe, other) in enumerate(zip(probes, others, strict=True)):
            got, states[i] = probe.measure(step, states[i])
            wanted, other_states[i] = other.measure(flat(step), other_states[i])
            for key, value in wanted.items():
                own = got[key].reshape(value.shape) if probe.variables[0].dims == ("...",) else got[key]
                torch.testing.assert_close(own, value, equal_nan=True, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", SHAPES)
def test_layers_are_measured(kind):
    sampler, layers = sampler_of(SHAPES[kind]), Layers(["classifier.layer"])
    steps = sampler.steps([0, 1], 3)
    with attach_all([layers], sampler.modules):
        step = next(steps)
    values, _ = layers.measure(step, None)
    assert torch.isfinite(values["layer_gradient_norm"]).all()
    assert (values["layer_activation_norm"] > 0).all()
    steps.close()


@pytest.mark.parametrize("scheduler_name", ["ddpm", "euler", "dpm_solver_multistep"])
@pytest.mark.parametrize("kind", SHAPES)
def test_a_guide_agrees_with_itself_as_the_reference(kind, scheduler_name):
    """Euler's x_t is not what the guide gets: the models get it scaled to unit variance."""
    guide = NoiseAware(mixture(SHAPES[kind]), scheduler().alphas_cumprod)
    for step in sampler_of(SHAPES[kind], scheduler_name, guide, "x_t").steps([0, 1], 5):
        values, _ = ReferenceCosine(guide).measure(step, None)
        torch.testing.assert_close(values["reference_cosine"], torch.ones(2), rtol=1e-4, atol=0)


AXES = {"trajectories": [0], "signals": [1], "frames": [2, 3], "point sets": [0]}


@pytest.mark.parametrize("kind", AXES)
def test_the_spectrum_is_over_the_axes_that_are_named(kind):
    shape, axes = SHAPES[kind], AXES[kind]
    gradient = np.random.default_rng(0).normal(size=(2, *shape))
    along = tuple(axis + 1 for axis in axes)
    power = np.abs(np.fft.fftn(gradient, axes=along)) ** 2
    squares = [
        np.fft.fftfreq(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))]) ** 2 for axis in axes
    ]
    radius = np.sqrt(np.broadcast_to(sum(squares), shape))
    values = spectrum(gradient, axes)
    high = (power * (radius > 0.25 + 1e-9)).reshape(2, -1).sum(axis=1) / power.reshape(2, -1).sum(axis=1)
    np.testing.assert_allclose(values["high_frequency_share"], high, rtol=1e-5)
    np.testing.assert_allclose(values["radial_spectrum"].sum(dim=1), 1, rtol=1e-6)
    if kind == "frames":
        np.testing.assert_array_equal(spectrum(gradient, None)["radial_spectrum"], values["radial_spectrum"])


def spectrum(gradient, axes):
    tensor = torch.from_numpy(gradient)
    return Spectrum(axes).measure(GuidedStep(step=0, timestep=1, x_t=tensor, gradient=tensor), None)[0]


def test_a_tone_lies_in_the_bin_of_its_frequency():
    wave = np.cos(2 * np.pi * 20 / 64 * np.arange(64))[None, None]
    assert spectrum(wave, [1])["radial_spectrum"][0].argmax() == 4  # above 4/16 up to 5/16 cycle per element
    assert spectrum(wave, [1])["high_frequency_share"] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["points", "trajectories", "signals", "point sets"])
def test_the_spectrum_asks_for_axes_where_there_are_no_pixels(kind):
    shape = SHAPES[kind]
    with pytest.raises(ValueError, match=rf"samples of shape \({shape[0]},.* have no height and width; name the axes"):
        spectrum(np.zeros((1, *shape)), None)
    with pytest.raises(ValueError, match=rf"axes must lie below {len(shape)} for samples of shape"):
        spectrum(np.zeros((1, *shape)), [len(shape)])


@pytest.mark.parametrize("axes", [[], [0, 0], [-1], [0, 1, 2]])
def test_axes_are_one_or_two_of_a_sample(axes):
    with pytest.raises(ValueError, match="axes must be one or two different axes of a sample, from 0, got"):
        Spectrum(axes)
