"""Unguided trajectories of a classifier: the diagnostics of gradients that are taken and not followed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
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
from gradscope.sampling.trajectory import sample_together
from probes import Belief, Cosine, FirstCosine, GuidedStep, Probe, ScoreCosine, Spectrum

SAMPLES, STEPS = 32, 30
"""As in the controls that the rule was fitted on."""
_BATCH = 32


def unguided(
    classifiers: Mapping[str, nn.Module],
    unet: nn.Module,
    scheduler: Any,
    labels: Sequence[int],
    inputs: Sequence[ClassifierInput] = ("x_t", "x0"),
    *,
    num_inference_steps: int = STEPS,
    seed: int = 0,
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, xr.Dataset]:
    """Sample without guidance, and take each classifier's gradient at every step of the same trajectory.

    Parameters
    ----------
    classifiers
        By name, from samples to logits ``(n, classes)``.
    unet, scheduler
        Denoiser and scheduler, as `GuidedSampler` takes them.
    labels
        Target class of each sample.
    inputs
        What the classifiers see.
    num_inference_steps, seed
        See `GuidedSampler.sample`.
    on_step
        Called after each step of each block, classifier and input.

    Returns
    -------
    dict
        For each classifier, `VARIABLES` over classifier_input, sample and timestep; the attribute ``classes`` numbers
        the logits.

    Raises
    ------
    GradscopeError
        The scheduler's steps cannot be computed exactly, or a label is no class of a classifier.
    """
    samplers = {
        (name, kind): GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, kind, guidance_scale=0.0))
        for name, classifier in classifiers.items()
        for kind in inputs
    }
    blocks: dict[tuple[str, str], list[xr.Dataset]] = {cell: [] for cell in samplers}
    for first in range(0, len(labels), _BATCH):
        collected = {cell: _Collected(on_step) for cell in samplers}
        with ExitStack() as stack:
            for cell, sampler in samplers.items():
                stack.enter_context(sampler.register_step_hook(collected[cell]))
            alone = [[sampler] for sampler in samplers.values()]
            sample_together(alone, labels[first : first + _BATCH], num_inference_steps, seed, first)
        for cell, hook in collected.items():
            blocks[cell].append(hook.dataset())
    joined = {
        cell: xr.concat(found, "sample", data_vars="all", combine_attrs="override") for cell, found in blocks.items()
    }
    return {
        name: xr.concat(
            [joined[name, kind] for kind in inputs], "classifier_input", data_vars="all", combine_attrs="override"
        ).assign_coords(classifier_input=list(inputs))
        for name in classifiers
    }


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
    controls = unguided(
        classifiers,
        denoiser.unet,
        denoiser.scheduler,
        labels,
        num_inference_steps=num_inference_steps,
        seed=seed,
        on_step=on_step,
    )
    rows = [predict(control.expand_dims(classifier=[name]), rule) for name, control in controls.items()]
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
