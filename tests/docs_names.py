"""What the examples of documentation and docstrings take for granted: models, images, steps and stores."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import small_leaderboard
import small_store
import tiny_pipelines
import torch
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier

import gradscope
import probes
from gradscope import ClassifierGuidance, Grid, GuidedSampler, GuidedStep, stabilizers


def names() -> dict[str, Any]:
    """Names for the examples."""
    shape = (2, 3, SIZE, SIZE)
    sampler = _sampler()
    return {
        "gradscope": gradscope,
        "np": np,
        "torch": torch,
        "stabilizers": stabilizers,
        "ClassifierGuidance": ClassifierGuidance,
        "GuidedSampler": GuidedSampler,
        **{name: getattr(probes, name) for name in ("Cosine", "Norm", "Tensor", "Trace")},
        "unet": sampler.unet,
        "scheduler": sampler.scheduler,
        "classifier": sampler.guidance.classifier,
        "another_classifier": LinearClassifier(),
        "judge": LinearClassifier(),
        "sampler": sampler,
        "images": torch.rand(8, 3, SIZE, SIZE) * 2 - 1,
        "labels": torch.arange(8) % 4,
        "my_loop": partial(_loop, sampler),
        "pipe": _pipe(),
        "ds": small_store.evaluated(),
        "grid": _grid(shape),
        "steps": [
            GuidedStep(step=i, timestep=2 - i, x_t=x_t, gradient=x_t.sin(), prev_sample=x_t)
            for i, x_t in enumerate(torch.randn(3, *shape))
        ],
    }


def make_stores(folder: Path) -> None:
    """The stores of both.yaml and quickstart.yaml, small, a leaderboard, and one that a sampler recorded."""
    small_leaderboard.saved(folder / "oracle.zarr")
    both = small_store.evaluated()
    (folder / "runs").mkdir()
    small_store.save(both, folder / "runs" / "both.zarr")
    quickstart = both.isel(classifier_input=[0], stabilizer=[0], guidance_scale=[1])
    small_store.save(quickstart, folder / "runs" / "quickstart.zarr")
    measured = [probes.Tensor("gradient"), probes.Norm("gradient")]
    with gradscope.record(_sampler(), folder / "guided.zarr", measured) as recorder:
        recorder.sample(labels=[0, 1, 2, 3], num_inference_steps=3)


@cache
def _pipe() -> Any:
    return tiny_pipelines.stable_diffusion()[0]


@torch.no_grad()
def _loop(sampler: GuidedSampler, scale: float = 1.0) -> torch.Tensor:
    """A guided sampling loop of four steps, written by hand."""
    x, scheduler = torch.randn(4, 3, SIZE, SIZE), sampler.scheduler
    scheduler.set_timesteps(4)
    for t in scheduler.timesteps:
        with torch.enable_grad():
            seen = x.detach().requires_grad_()
            log_prob = sampler.guidance.classifier(seen).log_softmax(dim=1)[range(4), range(4)]
            (gradient,) = torch.autograd.grad(log_prob.sum(), seen)
        x = scheduler.step(sampler.unet(x, t).sample, t, x).prev_sample + scale * 0.01 * gradient
    return x


def _sampler() -> GuidedSampler:
    """The same at every call."""
    torch.manual_seed(0)
    unet, classifier = UNet2DModel(sample_size=SIZE, **UNET), LinearClassifier(gain=3.0)
    return GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(classifier, guidance_scale=0.4))


def _grid(shape: tuple[int, ...]) -> Grid:
    """Of the steps."""
    return Grid(
        classifier=("mine",),
        classifier_input=("x_t",),
        stabilizer=("none",),
        guidance_scale=(1.0,),
        label=np.array([0, 1]),
        seed=np.array([5, 6]),
        timestep=np.array([2, 1, 0]),
        alphas_cumprod=np.array([0.1, 0.5, 0.9]),
        sigma=np.array([0.3, 0.2, 0.0]),
        sample_shape=shape[1:],
        batch_size=2,
    )
