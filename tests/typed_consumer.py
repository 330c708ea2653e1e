"""A short program of a user's own, with annotations: `make lint` checks it in mypy's strict mode, a test runs it."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import nn

import gradscope
from gradscope import ClassifierGuidance, GradscopeError, Grid, GuidedSampler, GuidedStep, Recorder, stabilizers
from gradscope.stabilizers import Stabilizer
from probes import Cosine, Norm, Probe, Tensor


def record_with_our_sampler(
    unet: nn.Module, scheduler: object, classifier: nn.Module, path: Path, labels: list[int]
) -> xr.Dataset:
    """Guide with ADAM, record, and open the store."""
    guidance = ClassifierGuidance(classifier, classifier_input="x_t", guidance_scale=0.4)
    stabilizer: Stabilizer = stabilizers.Adam(betas=(0.9, 0.99))
    sampler = GuidedSampler(unet, scheduler, guidance, stabilizer)
    norms: list[float] = []

    def keep(step: GuidedStep) -> None:
        norms.append(float(step.norm("gradient").mean()))

    probes: list[Probe] = [Tensor("gradient"), Norm("update"), Cosine("gradient")]
    with sampler.register_step_hook(keep), gradscope.record(sampler, path, probes) as recorder:
        images: torch.Tensor = recorder.sample(labels, num_inference_steps=4, seed=0)
    ds = gradscope.open(path)
    assert images.shape[0] == ds.sizes["sample"]
    return ds.assign_attrs(norms=norms)


def record_a_grid(sampler: GuidedSampler, judge: nn.Module, path: Path, labels: list[int]) -> xr.Dataset:
    """Record two inputs and two stabilisers, judged, and show nothing but the share that is done."""
    done: list[float] = []

    def progress(steps: int, total: int) -> None:
        done.append(steps / total)

    cells = {
        "classifier_input": ["x_t", "x0"],
        "stabilizer": {"none": stabilizers.Identity(), "adam": stabilizers.Adam()},
    }
    with gradscope.record(sampler, path, ["norms"], cells=cells, judge=judge, progress=progress) as recorder:
        ds: xr.Dataset = recorder.sample(labels, num_inference_steps=3, seed=0)
    return ds.assign_attrs(done=done)


def record_a_loop_of_my_own(gradients: torch.Tensor, path: Path) -> xr.Dataset:
    """Record gradients ``(steps, samples, ...)`` that another sampler took."""
    steps, samples = gradients.shape[:2]
    timesteps = np.arange(steps)[::-1] * 100
    grid = Grid(
        classifier=("mine",),
        classifier_input=("x_t",),
        stabilizer=("none",),
        guidance_scale=(1.0,),
        label=np.zeros(samples, dtype=np.int64),
        seed=np.arange(samples),
        timestep=timesteps,
        alphas_cumprod=np.linspace(0.1, 0.9, steps),
        sigma=np.linspace(0.9, 0.1, steps),
        sample_shape=gradients.shape[2:],
        batch_size=samples,
    )
    with Recorder(path, grid, [Norm("gradient")], device=torch.device("cpu")) as recorder:
        after_step = recorder.trajectory((0, 0, 0, 0), 0)
        for i, gradient in enumerate(gradients):
            x = torch.zeros_like(gradient)
            after_step(GuidedStep(step=i, timestep=int(timesteps[i]), x_t=x, gradient=gradient, prev_sample=x))
    return gradscope.open(path)


def findings(ds: xr.Dataset) -> tuple[pd.DataFrame, dict[str, str]]:
    """What fails, and what could not be tested."""
    found: pd.DataFrame = gradscope.signatures(ds)
    untested: dict[str, str] = ds.gradscope.untested()
    return found, untested


def is_refused(path: Path) -> bool:
    """Whether there is no store at a path."""
    try:
        gradscope.open(path)
    except GradscopeError:
        return True
    return False
