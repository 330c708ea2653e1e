"""Unguided trajectories of a classifier: the diagnostics of gradients that are taken and not followed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from gradscope.auditing.prediction import FEATURES, VARIABLES, predict, read_rule
from gradscope.config import ClassifierInput
from gradscope.models.diffusion import Denoiser
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.sampler import GuidedSampler
from probes import Belief, Cosine, FirstCosine, GuidedStep, Probe, ScoreCosine, Spectrum

SAMPLES, STEPS = 32, 30
"""As in the controls that the rule was fitted on."""
_BATCH = 32


def unguided(
    classifier: nn.Module,
    unet: nn.Module,
    scheduler: Any,
    labels: Sequence[int],
    inputs: Sequence[ClassifierInput] = ("x_t", "x0"),
    *,
    num_inference_steps: int = STEPS,
    seed: int = 0,
    on_step: Callable[[], None] = lambda: None,
) -> xr.Dataset:
    """Sample without guidance, and take a classifier's gradient at every step.

    Parameters
    ----------
    classifier
        From samples to logits ``(n, classes)``.
    unet, scheduler
        Denoiser and scheduler, as `GuidedSampler` takes them.
    labels
        Target class of each sample.
    inputs
        What the classifier sees.
    num_inference_steps, seed
        See `GuidedSampler.sample`.
    on_step
        Called after each step of each block and input.

    Returns
    -------
    xarray.Dataset
        `VARIABLES` over classifier_input, sample and timestep; the attribute ``classes`` numbers the logits.

    Raises
    ------
    GradscopeError
        The scheduler's steps cannot be computed exactly, or a label is no class of the classifier.
    """
    found = []
    for kind in inputs:
        sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, kind, guidance_scale=0.0))
        blocks = []
        for first in range(0, len(labels), _BATCH):
            collected = _Collected(on_step)
            with sampler.register_step_hook(collected):
                sampler.sample(labels[first : first + _BATCH], num_inference_steps, seed, first)
            blocks.append(collected.dataset())
        found.append(xr.concat(blocks, "sample", data_vars="all", combine_attrs="override"))
    together = xr.concat(found, "classifier_input", data_vars="all", combine_attrs="override")
    return together.assign_coords(classifier_input=list(inputs))


def failures(
    classifiers: Mapping[str, nn.Module],
    denoiser: Denoiser,
    targets: Sequence[int],
    num_inference_steps: int,
    seed: int,
    on_step: Callable[[], None],
) -> dict[str, xr.DataArray]:
    """How probably each classifier fails at x_t and at x0-hat, and the features of the rule that says so.

    Unguided trajectories take `targets` in turn. The arrays lie over classifier and classifier_input:
    ``failure_probability``, and ``unguided_FEATURE`` for each feature.
    """
    rule = read_rule()
    labels = [targets[i % len(targets)] for i in range(SAMPLES)]
    rows = []
    for name, module in classifiers.items():
        control = unguided(
            module,
            denoiser.unet,
            denoiser.scheduler,
            labels,
            num_inference_steps=num_inference_steps,
            seed=seed,
            on_step=on_step,
        )
        rows.append(predict(control.expand_dims(classifier=[name]), rule))
    terms = " + ".join([f"{rule.intercept:g}", *(f"{weight:g} {key}" for key, weight in rule.features.items())])
    about = f"probability that guidance fails, by a rule that was fitted on {rule.about}"
    probabilities = [[p.probability for p in row] for row in rows]
    found = {"failure_probability": _array(probabilities, about, f"1 / (1 + exp(-({terms})))")}
    for key in rule.features:
        values = [[p.features[key] for p in row] for row in rows]
        drawn = f"of {SAMPLES} unguided trajectories of {num_inference_steps} steps"
        found[f"unguided_{key}"] = _array(values, f"{FEATURES[key].about}, {drawn}", key)
    return found


def _array(values: list[list[float]], long_name: str, equation: str) -> xr.DataArray:
    attributes = {"long_name": long_name, "units": "1", "equation": equation}
    return xr.DataArray(np.array(values), dims=("classifier", "classifier_input"), attrs=attributes)


class _Collected:
    """A step hook that keeps what probes measure."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        probes: list[Probe] = [Cosine("gradient"), FirstCosine(), ScoreCosine(), Spectrum(), Belief()]
        self._states = [(probe, probe.init()) for probe in probes]
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in VARIABLES}
        self._times: list[float] = []
        self._classes = 0
        self._on_step = on_step

    def __call__(self, step: GuidedStep) -> None:
        assert step.logits is not None
        self._classes = step.logits.shape[1]
        self._times.append(step.timestep)
        states = []
        for probe, state in self._states:
            with torch.no_grad():
                values, after = probe.measure(step, state)
            states.append((probe, after))
            for name in VARIABLES:
                if name in values:
                    self._columns[name].append(values[name].cpu().numpy())
        self._states = states
        self._on_step()

    def dataset(self) -> xr.Dataset:
        arrays = {name: (("sample", "timestep"), np.stack(columns, axis=1)) for name, columns in self._columns.items()}
        return xr.Dataset(arrays, {"timestep": self._times}, {"classes": [str(k) for k in range(self._classes)]})
