"""Models and options that do not fit are refused in a line: none is broadcast, detached or stored in another form."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from small_models import SIZE, LinearClassifier
from torch import nn

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler, SmoothGrad
from gradscope.errors import GradscopeError
from gradscope.sampling.process import Schedule
from probes import Norm, Probe, Tensor, Variable

CONFIG = SimpleNamespace(sample_size=SIZE, in_channels=3, out_channels=3)


class Denoiser(nn.Module):
    """Half of x_t as the noise, in a form to be chosen."""

    config = CONFIG

    def __init__(self, form="right", parameters=True):
        super().__init__()
        self.form = form
        if parameters:
            self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, t):
        if self.form == "no_grad":
            with torch.no_grad():
                return 0.5 * x
        noise = 0.5 * x
        return {
            "right": lambda: noise, "one channel": lambda: noise[:, :1], "one sample": lambda: noise[0],
            "tuple": lambda: (noise,), "dict": lambda: {"sample": noise},
            "half": lambda: noise[:, :, ::2, ::2], "integers": lambda: noise.int(),
            "detached": noise.detach,
        }[self.form]()  # fmt: skip


class Classifier(nn.Module):
    def __init__(self, form="right"):
        super().__init__()
        self.form, self.linear = form, LinearClassifier()

    def forward(self, x):
        logits = self.linear(x)
        return {
            "right": lambda: logits, "detached": logits.detach, "one row": lambda: logits[:1],
            "integers": lambda: logits.round().int(), "one logit": lambda: logits[:, :1],
        }[self.form]()  # fmt: skip


def sampler(denoiser=None, classifier=None, scheduler=None, **guidance):
    torch.manual_seed(0)
    guide = ClassifierGuidance(classifier or Classifier(), **guidance)
    return GuidedSampler(denoiser or Denoiser(), scheduler or DDPMScheduler(), guide)


@pytest.mark.parametrize("kind", ["x_t", "x0", "x0_detached"])
@pytest.mark.parametrize("form", ["one channel", "one sample", "tuple", "dict", "half", "integers"])
def test_a_denoiser_gives_a_tensor_like_x_t(form, kind):
    with pytest.raises(
        GradscopeError, match=r"denoiser: Denoiser must give a tensor of the shape of x_t, \(2, 3, 8, 8\)"
    ):
        sampler(Denoiser(form), classifier_input=kind).sample([0, 1], 3)


@pytest.mark.parametrize("form", ["no_grad", "detached"])
def test_x0_needs_a_denoiser_that_can_be_differentiated(form):
    """Else the gradient is that of x0_detached, under the name of x0."""
    for kind in ("x_t", "x0_detached"):
        sampler(Denoiser(form), classifier_input=kind).sample([0, 1], 3)
    for smoothgrad in (None, SmoothGrad(2, 0.1)):
        with pytest.raises(GradscopeError, match=r"x0 is differentiated through the denoiser.* take x0_detached"):
            sampler(Denoiser(form), classifier_input="x0", smoothgrad=smoothgrad).sample([0, 1], 3)


def test_a_denoiser_needs_no_parameters():
    assert sampler(Denoiser(parameters=False)).sample([0, 1], 3).shape == (2, 3, SIZE, SIZE)


@pytest.mark.parametrize("kind", ["x_t", "x0"])
def test_a_classifier_needs_a_graph_and_a_row_for_each_image(kind):
    for smoothgrad in (None, SmoothGrad(2, 0.1)):
        with pytest.raises(GradscopeError, match="classifier: its output has no graph"):
            sampler(classifier=Classifier("detached"), classifier_input=kind, smoothgrad=smoothgrad).sample([0, 1], 3)
    for form, got in (("one row", "1 of type float32"), ("integers", "2 of type int32")):
        with pytest.raises(GradscopeError, match=rf"one row of floating-point logits for each image.* gave {got}"):
            sampler(classifier=Classifier(form), classifier_input=kind).sample([0, 1], 3)


def test_class_0_of_one_logit_has_no_logit_of_its_own():
    for labels, objective in (([0, 1], "log_prob"), ([1, 1], "logit")):
        sampler(classifier=Classifier("one logit"), objective=objective).sample(labels, 3)
    with pytest.raises(GradscopeError, match="class 0 has no logit to differentiate; take log_prob"):
        sampler(classifier=Classifier("one logit"), objective="logit").sample([0, 1], 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "dtype: got 'float64'"),
        ({"dtype": "bfloat16"}, "one of: float32, float16"),
        ({"codec": "zstd"}, "codec: got 'zstd'; one of: auto, none, lz4"),
        ({"tensor_samples": -1}, "tensor_samples: must be a whole number of at least 0, got -1"),
        ({"tensor_every": 0}, "tensor_every: must be a whole number of at least 1, got 0"),
        ({"classifier_name": 3}, "classifier: a name must be text, got 3"),
    ],
)
def test_options_of_a_recording_are_refused_and_no_store_is_made(tmp_path, options, message):
    with (
        pytest.raises(GradscopeError, match=message),
        gradscope.record(sampler(), tmp_path / "a.zarr", [Tensor("gradient")], **options) as recorder,
    ):
        recorder.sample([0, 1], 3)
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_batch_size_is_a_whole_number(tmp_path, size):
    with (
        pytest.raises(GradscopeError, match="batch_size: must be a whole number of at least 1"),
        gradscope.record(sampler(), tmp_path / "a.zarr", [Norm("gradient")]) as recorder,
    ):
        recorder.sample([0, 1], 3, batch_size=size)


def test_integers_of_numpy_are_numbers(tmp_path):
    options = {"tensor_samples": np.int64(1), "tensor_every": np.int32(2)}
    with gradscope.record(sampler(), tmp_path / "a.zarr", [Tensor("gradient")], **options) as recorder:
        recorder.sample([0, 1], np.int64(4), seed=np.uint8(1), batch_size=np.int64(1))
    assert (gradscope.open(tmp_path / "a.zarr")["written"].squeeze().values == [[3, 1, 3, 1], [1, 1, 1, 1]]).all()


@pytest.mark.parametrize("path", [None, 3, ""])
def test_a_path_is_a_path(path):
    with pytest.raises(GradscopeError, match="the path of a store (must be text|is empty)"):
        gradscope.record(sampler(), path, [Norm("gradient")])
    with pytest.raises(GradscopeError, match="the path of a store (must be text|is empty)"):
        gradscope.open(path)


class Late(Probe):
    """Right at the first step."""

    variables = (Variable("late", "a mean", "mean(x_t)"),)

    def __init__(self, form):
        self.form = form

    def measure(self, step, state):
        value = step.x_t.flatten(1).mean(dim=1)
        if step.step:
            value = {"shape": value.mean(), "name": value, "list": value.tolist()}[self.form]
        return {"other" if step.step and self.form == "name" else "late": value}, state


@pytest.mark.parametrize("form", ["shape", "name", "list"])
def test_what_a_probe_gives_is_checked_at_every_step(tmp_path, form):
    with (
        pytest.raises(GradscopeError, match="probes: Late"),
        gradscope.record(sampler(), tmp_path / "a.zarr", [Late(form)]) as recorder,
    ):
        recorder.sample([0, 1], 3)


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize(
    ("betas", "prediction_type"),
    [
        ([0.0, *[0.01] * 99], "epsilon"),
        ([1e-9, *[0.01] * 99], "epsilon"),
        ([*[0.01] * 98, 1.0, 1.0], "v_prediction"),
        ([*[0.01] * 99, float("nan")], "epsilon"),
        ([*[0.01] * 99, 1.5], "epsilon"),
    ],
)
def test_betas_that_define_no_process_are_refused(kind, betas, prediction_type):
    scheduler = kind(num_train_timesteps=100, trained_betas=betas, prediction_type=prediction_type)
    with pytest.raises(GradscopeError, match="alphas_cumprod must fall from below 1"):
        Schedule(scheduler, 100)


def test_an_unknown_spacing_is_refused():
    with pytest.raises(GradscopeError, match="scheduler: it cannot space 10 steps"):
        Schedule(DDPMScheduler(timestep_spacing="foo"), 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": "0.5"}, "guidance_scale: must be a finite number"),
        ({"guidance_scale": None}, "guidance_scale: must be a finite number"),
        ({"guidance_scale": [0.5]}, "guidance_scale: must be a finite number"),
        ({"interval": (500,)}, "guidance.interval: must be two timesteps"),
        ({"interval": (None, 500)}, "guidance.interval: must be two timesteps"),
        ({"interval": "ab"}, "guidance.interval: must be two timesteps"),
        ({"interval": (1, 2, 3)}, "guidance.interval: must be two timesteps"),
    ],
)
def test_guidance_that_is_none_is_refused(options, message):
    with pytest.raises(GradscopeError, match=message):
        ClassifierGuidance(Classifier(), **options)


@pytest.mark.parametrize("scale", [np.float32(0.5), np.int64(2), 1])
def test_numbers_of_numpy_are_scales(scale):
    assert ClassifierGuidance(Classifier(), guidance_scale=scale).guidance_scale == scale


def test_labels_and_first_sample_are_bounded():
    with pytest.raises(GradscopeError, match=r"labels: classes must be whole numbers below 2\*\*63"):
        sampler().sample([2**70], 3)
    for first in (-1, 0.5):
        with pytest.raises(GradscopeError, match="first_sample: must be a whole number of at least 0"):
            sampler().sample([0], 3, first_sample=first)


def test_a_path_is_no_store_that_is_open(tmp_path):
    with pytest.raises(GradscopeError, match="takes a store as gradscope.open gives it, got 'a.zarr'"):
        gradscope.report("a.zarr")
    with gradscope.record(sampler(), tmp_path / "a.zarr", [Norm("gradient")]) as recorder:
        recorder.sample([0, 1], 3)
    with pytest.raises(GradscopeError, match=r"guide: must be a torch.nn.Module, or a mapping of names"):
        gradscope.evaluate(tmp_path / "a.zarr", guide=lambda x: x)


def test_an_error_inside_a_denoiser_names_it_and_the_line():
    class Broken(Denoiser):
        def forward(self, x, t):
            raise RuntimeError("no such width")

    with pytest.raises(
        GradscopeError,
        match=r"denoiser: Broken, on samples of 3 x 8 x 8, raised RuntimeError: no such width \(.*models.py, line",
    ):
        sampler(Broken()).sample([0, 1], 3)
