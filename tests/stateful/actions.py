"""What a process does to a store: small models, two cells of two samples in blocks of one, three steps."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from linear_models import D, GaussianDenoiser, Logits, log_prob

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler
from probes import Norm, Tensor

SCALES, LABELS, STEPS, SEEDS = (0.1, 0.3), (0, 1), 3, (1, 2)
RECORDED, WATCHED = "recorded", "watched"
DENOISER, GUIDE, SCHEDULER = GaussianDenoiser().float(), Logits(), DDIMScheduler()
PROBES = (Tensor("gradient"), Norm("gradient"))


def record(path: Path, seed: int, resume: bool = False) -> None:
    """Record a sampler of ours, in place of what is there; or go on with it."""
    sampler = GuidedSampler(DENOISER, SCHEDULER, ClassifierGuidance(GUIDE, "x_t", SCALES[0]), None)
    options = {"resume": True} if resume else {"overwrite": True}
    cells = {"guidance_scale": list(SCALES)}
    with gradscope.record(sampler, path, PROBES, cells=cells, classifier_name="guide", **options) as recorder:
        recorder.sample(LABELS, num_inference_steps=STEPS, seed=seed, batch_size=1)


def watch(path: Path, seed: int) -> None:
    """Watch a loop, in place of what is there; what fails there is an error here."""
    parts = {"denoiser": DENOISER, "guide": GUIDE, "scheduler": SCHEDULER, "labels": LABELS, "probes": PROBES}
    with warnings.catch_warnings():
        warnings.simplefilter("error", gradscope.errors.GradscopeWarning)
        with gradscope.watch(path, **parts, classifier="guide", overwrite=True) as watched:
            for scale in SCALES:
                with watched.cell(guidance_scale=scale):
                    watched.final(_loop(scale, seed))


def _loop(scale: float, seed: int) -> torch.Tensor:
    """A loop as users write it."""
    x = torch.randn(len(LABELS), D, generator=torch.Generator().manual_seed(seed))
    SCHEDULER.set_timesteps(STEPS)
    for t in SCHEDULER.timesteps:
        stepped = SCHEDULER.step(DENOISER(x, t.expand(len(x))), t, x).prev_sample
        x = x.detach().requires_grad_(True)
        gradient = torch.autograd.grad(log_prob(GUIDE, x, LABELS).sum(), x)[0]
        x = (stepped + scale * gradient).detach()
    return x


def evaluate(path: Path) -> None:
    """Judge the final samples by the guide."""
    gradscope.evaluate(path, GUIDE, judge="none", tell=lambda text: None)


ACTIONS: dict[str, Callable[..., None]] = {"record": record, "watch": watch, "evaluate": evaluate}
