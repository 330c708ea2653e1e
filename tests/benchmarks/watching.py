"""Loops that are watched, beside the same loops that are not."""

import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from measure import Case, Extent, Result, Work, interleaved, judged, ratios
from sampling import units
from torch import Tensor, nn

import gradscope
from gradscope.models.classifiers import load_classifier

STEPS = 50
CLASSES = 4
DENOISERS: dict[str, dict[str, Any]] = {
    "shipped": {"block_out_channels": (32, 64, 96), "norm_num_groups": 8, "layers_per_block": 1},
    "large": {"block_out_channels": (128, 256, 512, 544), "layers_per_block": 2},
    "tiny": {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1},
}
"""Settings of denoisers of 32 px: about as large as the shipped one, of 100 million parameters, and tiny."""


def results(extent: Extent) -> Iterator[Result]:
    """Each of `LOOPS` with each denoiser; random weights, which take the time of trained ones."""
    for model, loop in product(extent.size(("shipped", "large"), ("tiny",)), LOOPS):
        samples, steps = {"shipped": (16, 3), "large": (2, 2), "tiny": (2, 2)}[model]
        options = {"loop": loop, "model": model, "samples": samples, "steps": steps, "device": extent.device}
        cases = {name: Case(f"watching:{name}", options) for name in ("watched", "unwatched")}
        found = interleaved(cases, extent.rounds)
        millions = sum(p.numel() for p in denoiser(model, torch.device("meta")).parameters()) / 1e6
        detail = " / ".join(f"{1e3 * sum(times) / len(times) / steps:.1f}" for times in found.values()) + " ms a step"
        what = f"watched / not watched: {loop}, {millions:.1f} million parameters, batch {samples}"
        yield judged(what, ratios(found["watched"], found["unwatched"]), "<= 1.05", detail=detail)


def unwatched(loop: str, model: str, samples: int, steps: int, device: str) -> Work:
    """The loop alone."""
    torch.set_flush_denormal(True)
    return units(_forever(LOOPS[loop], *_parts(model, device), samples), lambda step: None, device, steps)


def watched(loop: str, model: str, samples: int, steps: int, device: str) -> Work:
    """The loop, watched with the usual probes, in blocks of one store."""
    torch.set_flush_denormal(True)
    unet, guide, scheduler = _parts(model, device)
    store = Path(tempfile.mkdtemp()) / "watched.zarr"
    guides = {} if loop.startswith("classifier-free") else {"guide": guide}
    seen = gradscope.watch(store, denoiser=unet, scheduler=scheduler, tensor_samples=samples, **guides)
    seen.__enter__()  # until the process ends
    timed = units(_forever(LOOPS[loop], unet, guide, scheduler, samples), lambda step: None, device, steps)

    def work() -> float:
        seconds = timed()
        assert not seen.problems, seen.problems
        return seconds

    return work


def _parts(model: str, device: str) -> tuple[nn.Module, nn.Module, DDPMScheduler]:
    where = torch.device(device)
    guide = load_classifier("zoo:sportballs32/non_robust", "guide", (3, 32, 32), where).module
    return denoiser(model, where).eval().requires_grad_(False), guide.requires_grad_(False), DDPMScheduler()


def denoiser(model: str, device: torch.device) -> UNet2DModel:
    """A class-conditional denoiser with random weights."""
    settings, levels = DENOISERS[model], len(DENOISERS[model]["block_out_channels"])
    torch.manual_seed(0)
    with device:
        return UNet2DModel(
            sample_size=32,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            num_class_embeds=CLASSES + 1,
            **settings,
        )


Loop = Callable[[nn.Module, nn.Module, DDPMScheduler, Tensor, Tensor], Iterator[None]]


def _forever(loop: Loop, unet: nn.Module, guide: nn.Module, scheduler: DDPMScheduler, samples: int) -> Iterator[None]:
    device = next(unet.parameters()).device
    y = torch.arange(samples, device=device) % CLASSES
    noise = torch.randn(samples, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    while True:
        scheduler.set_timesteps(STEPS)
        yield from loop(unet, guide, scheduler, noise, y)


def at_x_t(unet: nn.Module, guide: nn.Module, scheduler: DDPMScheduler, x: Tensor, y: Tensor) -> Iterator[None]:
    """Guided-diffusion's way: a classifier's gradient at x_t shifts the mean."""
    for t in scheduler.timesteps:
        with torch.no_grad():
            stepped = scheduler.step(unet(x, t, class_labels=y).sample, t, x)
        x_in = x.detach().requires_grad_()
        log_p = guide(x_in).log_softmax(dim=1)[range(len(y)), y]
        gradient = torch.autograd.grad(log_p.sum(), x_in)[0]
        x = stepped.prev_sample + scheduler._get_variance(t) * gradient
        yield


def through_x0(unet: nn.Module, guide: nn.Module, scheduler: DDPMScheduler, x: Tensor, y: Tensor) -> Iterator[None]:
    """The way of DPS: the gradient passes through the denoiser."""
    for t in scheduler.timesteps:
        x_in = x.detach().requires_grad_()
        stepped = scheduler.step(unet(x_in, t, class_labels=y).sample, t, x_in)
        log_p = guide(stepped.pred_original_sample).log_softmax(dim=1)[range(len(y)), y]
        gradient = torch.autograd.grad(log_p.sum(), x_in)[0]
        x = stepped.prev_sample.detach() + 0.1 * gradient
        yield


def classifier_free(
    unet: nn.Module, guide: nn.Module, scheduler: DDPMScheduler, x: Tensor, y: Tensor
) -> Iterator[None]:
    """Two predictions and no autograd."""
    nothing = torch.full_like(y, CLASSES)
    for t in scheduler.timesteps:
        with torch.no_grad():
            unconditional, conditional = (unet(x, t, class_labels=c).sample for c in (nothing, y))
            x = scheduler.step(unconditional + 3.0 * (conditional - unconditional), t, x).prev_sample
        yield


LOOPS: dict[str, Loop] = {
    "gradient at x_t": at_x_t,
    "gradient through x0": through_x0,
    "classifier-free guidance": classifier_free,
}
