"""The audit of a classifier: its predictions and gradients on noised images, before any sampling.

Held-out images x_0 are noised to x_t = sqrt(alphas_cumprod) x_0 + sqrt(1 - alphas_cumprod) noise (equation 4 of arXiv
2006.11239). Two noises are drawn for each image and shared by all classifiers, inputs and timesteps. Along t an image
thus moves on one smooth path between itself and its first noise, so that

- `gradient_cosine` compares gradients for one image and one noise at successive audited timesteps, and falls below 1
  only because the gradient turns;
- `noise_cosine` compares gradients for one image at one timestep under its two noises: near 0, the gradient follows the
  noise rather than the image.

All other values (accuracy, calibration, log p, ...) are those under the first noise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_calibration_error

import gradscope.sampling.guidance.objectives as objectives
from gradscope.config import ClassifierInput
from gradscope.errors import GradscopeError
from gradscope.intervals import resampled, wilson
from gradscope.models.calls import output_of
from gradscope.models.schedulers import make_scheduler
from gradscope.sampling.guidance.classifier import ClassifierGuidance, Evidence
from gradscope.sampling.guidance.guides import without_logits
from gradscope.sampling.process import Schedule, Times, refuse_inexact

_BINS = 15
_REPLICATES = 1000
_CELL = ("classifier", "classifier_input", "timestep")
_SAMPLE = (*_CELL, "sample")
_BOUNDS = (*_CELL, "bound")
_TRUE = "the true class"

_VARIABLES: dict[str, tuple[tuple[str, ...], str, str, str]] = {
    "predicted_class": (_SAMPLE, "class that the classifier predicts", "1", "argmax_k f(c)[k]; -1: logits not finite"),
    "confidence": (_SAMPLE, "probability of the predicted class", "1", "max_k softmax(f(c))[k]"),
    "log_prob": (_SAMPLE, f"log-probability of {_TRUE}", "nat", "log softmax(f(c))[y]"),
    "gradient_norm": (_SAMPLE, f"l2 norm of the gradient of {_TRUE}'s log-probability", "nat", "|d log p(y|c)/d x_t|"),
    "gradient_cosine": (
        _SAMPLE, "cosine of the gradient with that at the next larger audited timestep, same noise", "1",
        "cos(g_t, g_next); NaN at the largest t and where a gradient is zero or not finite",
    ),
    "noise_cosine": (
        _SAMPLE, "cosine of the image's gradients under two independent noises", "1",
        "cos(g_t(noise_1), g_t(noise_2)); NaN where a gradient is zero or not finite",
    ),
    "leverage": (
        _SAMPLE, "change of log p along the gradient over one length of the DDPM posterior's noise, to first order",
        "nat", "gradient_norm sigma_t sqrt(d), with sigma_t of a single training timestep",
    ),
    "zero_fraction": (_SAMPLE, "share of elements of the gradient that are exactly zero", "1", "mean(g == 0)"),
    "finite_fraction": (_SAMPLE, "share of finite elements of the gradient", "1", "mean(isfinite(g))"),
    "accuracy": (_CELL, "share of images whose true class is predicted", "1", "mean(predicted_class == y)"),
    "accuracy_interval": (_BOUNDS, "95 % Wilson interval of the accuracy", "1", "Wilson"),
    "calibration_error": (
        _CELL, f"expected calibration error of the predicted class, {_BINS} bins, l1", "1",
        "sum_b n_b/N |accuracy_b - confidence_b|; NaN where logits are not finite",
    ),
    "noise_cosine_interval": (
        _BOUNDS, "95 % bootstrap interval over images of the mean noise_cosine, where an undefined cosine counts as 0",
        "1", f"percentiles of {_REPLICATES} resampled means",
    ),
    "can_guide": (
        _CELL, "whether the accuracy is above chance and two noises' gradients agree", "1",
        "accuracy_interval[low] > chance and noise_cosine_interval[low] > 0",
    ),
    "chance": ((), "accuracy of the best constant answer: share of the most frequent class", "1", "max_k mean(y == k)"),
}  # fmt: skip
_DTYPES = {"predicted_class": np.int32, "can_guide": np.bool_}


def audit(
    classifiers: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    *,
    unet: nn.Module | None = None,
    scheduler: Any = None,
    timesteps: int = 20,
    batch_size: int = 32,
    seed: int = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> xr.Dataset:
    """Audit classifiers on noised images, per timestep, at x_t and, with a denoiser, at x0-hat.

    Parameters
    ----------
    classifiers
        Classifiers by name, from images ``(n, channel, height, width)`` to logits ``(n, classes)``. They are set to
        evaluation mode.
    images, labels
        Held-out images ``(n, channel, height, width)`` in [-1, 1], n >= 2, on the classifiers' device, and the true
        classes ``(n,)``, int64, in the classifiers' numbering.
    unet, scheduler
        Denoiser for x0-hat, as `GuidedSampler` takes it, and its scheduler. Default: no denoiser, and
        `DDPMScheduler()`, which has 1000 timesteps and linear betas.
    timesteps
        Number of timesteps, evenly spaced from the last to 0.
    batch_size
        Number of images that go through the models together. The noise does not depend on it.
    seed
        Seed of the noise and of the bootstrap.
    on_step
        Called with the number of finished steps and of all steps.

    Returns
    -------
    xarray.Dataset
        Over classifier, classifier_input, timestep (descending, as in sampling) and sample. Attributes describe each
        variable. ``can_guide`` holds if the lower bound of the accuracy is above ``chance`` and the lower bound of the
        mean cosine between two noises' gradients is above 0. Both are necessary for guidance, but not sufficient.

    Raises
    ------
    GradscopeError
        There are fewer than two images, a guide is no classifier or lacks a label, or the scheduler's steps are not
        exact.

    Examples
    --------
    >>> found = gradscope.audit({"mine": classifier}, images, labels, timesteps=4)
    >>> found.timestep.values.tolist()
    [999, 666, 333, 0]
    """
    if len(images) < 2:
        raise GradscopeError(f"samples: an audit needs at least 2 images, got {len(images)}")
    for name, module in classifiers.items():
        if kind := without_logits(module):
            raise GradscopeError(
                f"classifiers: {name!r} is {kind}, which predicts no class; an audit takes classifiers"
            )
    schedule, times = _times(DDPMScheduler() if scheduler is None else scheduler, timesteps)
    inputs: list[ClassifierInput] = ["x_t"] if unet is None else ["x_t", "x0"]
    for module in [*classifiers.values(), *([] if unet is None else [unet])]:
        module.eval()
    guides = [ClassifierGuidance(module, kind) for module in classifiers.values() for kind in inputs]
    names = [name for name, (dims, *_) in _VARIABLES.items() if dims == _SAMPLE and name != "leverage"]
    values = {name: np.full((len(guides), len(times), len(images)), np.nan) for name in names}
    generator = torch.Generator().manual_seed(seed)
    blocks = range(0, len(images), batch_size)
    done, total = 0, len(blocks) * len(guides) * len(times)
    for first in blocks:
        rows = slice(first, first + batch_size)
        x_0, label = images[rows], labels[rows]
        noises = torch.stack([torch.randn(2, *image.shape, generator=generator) for image in x_0], dim=1).to(x_0.device)
        for g, guide in enumerate(guides):
            denoiser = unet if guide.classifier_input == "x0" else None  # x_t needs no pass of the denoiser
            for k, measured in enumerate(_along(schedule, times, guide, denoiser, x_0, label, noises)):
                for name, value in measured.items():
                    values[name][g, k, rows] = value.cpu().numpy()
                done += 1
                on_step(done, total)
    return _dataset(values, labels.cpu().numpy(), list(classifiers), inputs, times, images[0].numel(), seed)


def _times(scheduler: Any, timesteps: int) -> tuple[Schedule, list[Times]]:
    """Evenly spaced timesteps of the whole schedule, including both ends, descending."""
    refuse_inexact(scheduler)
    # All training timesteps, whichever the scheduler and its spacing.
    every = make_scheduler("ddpm", {"timestep_spacing": "leading", "steps_offset": 0}, scheduler, "scheduler")
    schedule = Schedule(every, every.config.num_train_timesteps)
    if not 2 <= timesteps <= len(schedule.times):
        raise GradscopeError(f"timesteps: must be from 2 to the scheduler's {len(schedule.times)}, got {timesteps}")
    chosen = np.linspace(0, len(schedule.times) - 1, timesteps).round().astype(int)
    return schedule, [schedule.times[i] for i in chosen]


def _along(
    schedule: Schedule,
    times: list[Times],
    guide: ClassifierGuidance,
    unet: nn.Module | None,
    x_0: Tensor,
    label: Tensor,
    noises: Tensor,
) -> Iterator[dict[str, Tensor]]:
    """Measure one block at each of `times`; `noises` has shape ``(2, *x_0.shape)``."""
    previous = None
    for now in times:
        t = torch.full_like(label, now.timestep)
        denoise = partial(_output, unet, t)
        looks = [
            guide.evaluate(schedule.scheduler.add_noise(x_0, noise, t), label, now, schedule, denoise)
            for noise in noises
        ]
        yield _measure(looks, previous, label)
        previous = looks[0].gradient


def _output(unet: nn.Module | None, t: Tensor, x: Tensor) -> Tensor:
    """The denoiser's output; zeros where none is needed."""
    return torch.zeros_like(x) if unet is None else output_of(unet, x, t)


def _measure(looks: Sequence[Evidence], previous: Tensor | None, label: Tensor) -> dict[str, Tensor]:
    """Values ``(n,)`` by name, from the evidence under both noises and the gradient at the previous timestep."""
    gradient, other = (look.gradient.flatten(1).double() for look in looks)  # float32 squares underflow
    before = torch.full_like(gradient, torch.nan) if previous is None else previous.flatten(1).double()
    assert looks[0].logits is not None
    logits = looks[0].logits.double()
    log_p = logits.log_softmax(dim=1)
    confidence, predicted = log_p.exp().max(dim=1)
    finite = torch.isfinite(logits).all(dim=1)
    return {
        "predicted_class": predicted.where(finite, -1),
        "confidence": confidence.where(finite, torch.nan),
        "log_prob": objectives.value("log_prob", logits, label),
        "gradient_norm": torch.linalg.vector_norm(gradient, dim=1),
        "gradient_cosine": torch.cosine_similarity(gradient, before, dim=1, eps=0),
        "noise_cosine": torch.cosine_similarity(gradient, other, dim=1, eps=0),
        "zero_fraction": (gradient == 0).double().mean(dim=1),
        "finite_fraction": torch.isfinite(gradient).double().mean(dim=1),
    }


def _dataset(
    values: dict[str, np.ndarray],
    label: np.ndarray,
    classifiers: list[str],
    inputs: Sequence[str],
    times: list[Times],
    elements: int,
    seed: int,
) -> xr.Dataset:
    sigma = np.array([now.sigma for now in times])
    right = values["predicted_class"] == label
    chance = np.bincount(label).max() / len(label)
    accuracy_interval = np.stack(wilson(right.sum(axis=-1), len(label)), axis=-1)
    agreement = np.nan_to_num(values["noise_cosine"], nan=0)  # an undefined gradient agrees with none
    replicates = agreement @ resampled(len(label), _REPLICATES, seed).T / len(label)
    noise_cosine_interval = np.stack(np.quantile(replicates, [0.025, 0.975], axis=-1), axis=-1)
    values |= {
        "leverage": values["gradient_norm"] * sigma[:, None] * elements**0.5,
        "accuracy": right.mean(axis=-1),
        "accuracy_interval": accuracy_interval,
        "calibration_error": _calibration_error(values["confidence"], right),
        "noise_cosine_interval": noise_cosine_interval,
        "can_guide": (accuracy_interval[..., 0] > chance) & (noise_cosine_interval[..., 0] > 0),
        "chance": np.array(chance),
    }
    coords = {
        "classifier": (("classifier",), np.array(classifiers, dtype=object), "audited classifier"),
        "classifier_input": (("classifier_input",), np.array(inputs, dtype=object), "what the classifier sees"),
        "timestep": (("timestep",), [now.timestep for now in times], "diffusion time, in sampling order"),
        "sample": (("sample",), np.arange(len(label)), "index of the image"),
        "bound": (("bound",), np.array(["low", "high"], dtype=object), "end of an interval"),
        "alphas_cumprod": (("timestep",), [now.alphas_cumprod for now in times], "cumulative product of alphas"),
        "sigma": (("timestep",), sigma, "standard deviation of the DDPM posterior, of single training timesteps"),
        "label": (("sample",), label, "true class, in the classifiers' numbering"),
    }
    ds = xr.Dataset(
        coords={
            name: (dims, content, {"long_name": long_name, "units": "1"})
            for name, (dims, content, long_name) in coords.items()
        }
    )
    for name, (dims, long_name, units, equation) in _VARIABLES.items():
        shape = tuple(ds.sizes[dim] for dim in dims)
        attributes = {"long_name": long_name, "units": units, "equation": equation}
        ds[name] = dims, values[name].reshape(shape).astype(_DTYPES.get(name, np.float32)), attributes
    return ds


def _calibration_error(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Expected calibration error (arXiv 1706.04599) over the last dimension, of the predicted class only."""
    out = np.full(confidence.shape[:-1], np.nan)
    for cell in np.ndindex(out.shape):
        if not np.isnan(confidence[cell]).any():
            pair = torch.from_numpy(confidence[cell]), torch.from_numpy(right[cell]).int()
            out[cell] = float(binary_calibration_error(*pair, n_bins=_BINS, norm="l1"))
    return out
