"""Guided sampling: ours with and without recording, the plain loop, and the models' own passes.

Every function makes the work of one process: the next `UNIT` steps. A new trajectory follows the last step of one.
A store's chunk is full in the middle of a unit, so that its writing falls within the unit's time.
"""

import atexit
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import plain_loop
import torch
from measure import Work
from torch import Tensor, nn

import gradscope
from gradscope.config import RunConfig, load
from gradscope.models.classifiers import load_classifier
from gradscope.models.diffusion import Denoiser, load_denoiser
from gradscope.recording.prepare import Run, prepare
from gradscope.recording.recorder import Recorder
from gradscope.sampling.denoiser import sample_shape
from gradscope.sampling.seeds import sample_seeds
from probes import GuidedStep

MODELS = {
    "shipped": ("zoo:sportballs32/ddpm", "zoo:sportballs32/non_robust"),
    "paper": ("paper:denoiser", "paper:classifier"),
}
PROBES = ["gradient", "update", "norms", "cosines", "strength", "belief", "fractions", "sensitivity", "spectrum"]
SCALE = 0.5
STEPS, UNIT = 50, 5
AHEAD = 2
"""Number of steps before the first unit."""


def sampled(classifier_input: str, samples: int, device: str, models: str = "shipped") -> Work:
    """Ours, without probes or store."""
    steps = _steps(run_of(classifier_input, samples, device, models))
    return _units(steps, lambda step: None, device)


def recorded(classifier_input: str, samples: int, device: str, models: str = "shipped", dtype: str = "float32") -> Work:
    """Ours, with every probe that needs no further pass, into a store: a new one for each trajectory."""
    run = run_of(classifier_input, samples, device, models, dtype)
    path = Path(run.config.recording.path)
    open_recorder, hooks = ExitStack(), []

    def record(step: GuidedStep) -> None:
        if step.step == 0:
            recorder = open_recorder.enter_context(recorder_of(run, path))
            hooks[:] = [recorder.trajectory((0, 0, 0, 0), 0)]
        hooks[0](step)
        if step.step == STEPS - 1:
            open_recorder.close()  # so that the next trajectory can overwrite the store

    return _units(_steps(run), record, device)


def plain(
    classifier_input: str, samples: int, device: str, models: str = "shipped", flush_denormals: bool = False
) -> Work:
    """The plain loop with saved gradients; the models are as diffusers and timm load them.

    On some CPUs denormals make it several times slower. Ours flushes them, so the loop is measured with and without.
    """
    torch.set_flush_denormal(flush_denormals)
    return _units(_plain_steps(*_plain_parts(samples, device, models), classifier_input), lambda step: None, device)


def watched(classifier_input: str, samples: int, device: str, models: str = "shipped") -> Work:
    """The same loop, watched, in blocks of one store."""
    parts = _plain_parts(samples, device, models)
    denoiser, classifier, _, _ = parts
    store = Path(tempfile.mkdtemp()) / "watched.zarr"
    open_watch = ExitStack()
    open_watch.enter_context(
        gradscope.watch(
            store, denoiser=denoiser.unet, guide=classifier, scheduler=denoiser.scheduler, probes=PROBES,
            tensor_samples=samples,
        )
    )  # fmt: skip
    atexit.register(open_watch.close)
    return _units(_plain_steps(*parts, classifier_input), lambda step: None, device)


def _plain_parts(samples: int, device: str, models: str) -> tuple[Denoiser, nn.Module, Tensor, Tensor]:
    where = torch.device(device)
    denoiser = load_denoiser(MODELS[models][0], where)
    shape = sample_shape(denoiser.unet)
    classifier = load_classifier(MODELS[models][1], "guide", shape, where).module
    for module in (denoiser.unet, classifier):
        module.to(memory_format=torch.contiguous_format).requires_grad_(True)
    seeds = sample_seeds(0, range(samples)).tolist()  # the noise that our sampler begins with
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]).to(where)
    return denoiser, classifier, noise, torch.tensor(_labels(samples), device=where)


def _plain_steps(
    denoiser: Denoiser, classifier: nn.Module, noise: Tensor, labels: Tensor, classifier_input: str
) -> Iterator[Any]:
    folder = Path(tempfile.mkdtemp())
    while True:
        yield from plain_loop.steps(
            denoiser.unet, denoiser.scheduler, classifier, noise, labels, STEPS, SCALE, classifier_input, folder
        )


def floor(classifier_input: str, samples: int, device: str, models: str = "shipped") -> Work:
    """The passes of U-Net and classifier in our settings, and nothing else: no sampler can take less time."""
    sampler = run_of(classifier_input, samples, device, models).sampler((0, 0, 0, 0))
    unet, classifier = sampler.unet.requires_grad_(False), sampler.guidance.classifier.requires_grad_(False)
    inputs = [
        (step.x_t, step.timestep, step.pred_original_sample) for step in sampler.steps(_labels(samples), STEPS)
    ]  # fmt: skip

    def passes(x_t: Tensor, timestep: int, pred_original_sample: Tensor) -> None:
        times = torch.full((len(x_t),), timestep, device=x_t.device)
        x = x_t.detach().requires_grad_()
        with torch.set_grad_enabled(classifier_input == "x0"):
            output = unet(x, times).sample
        seen = (pred_original_sample if classifier_input == "x0" else x_t).detach().requires_grad_()
        (at_seen,) = torch.autograd.grad(classifier(seen).sum(), seen)
        if classifier_input == "x0":
            torch.autograd.grad(output, x, at_seen)

    def forever() -> Iterator[None]:
        while True:
            for each in inputs:
                passes(*each)
                yield

    return _units(forever(), lambda step: None, device)


def _units(steps: Iterator[Any], each: Callable[[Any], None], device: str) -> Work:
    for _ in range(AHEAD):
        each(next(steps))

    def work() -> float:
        start = _now(device)
        for _ in range(UNIT):
            each(next(steps))
        return _now(device) - start

    return work


def _steps(run: Run) -> Iterator[GuidedStep]:
    """Steps of trajectory after trajectory, with frozen parameters as in `GuidedSampler.sample`."""
    sampler = run.sampler((0, 0, 0, 0))
    while True:
        yield from sampler.steps(run.grid.label.tolist(), STEPS)


def run_of(classifier_input: str, samples: int, device: str, models: str = "shipped", dtype: str = "float32") -> Run:
    """One cell of one block."""
    denoiser, guide = MODELS[models]
    settings = [
        f"denoiser={denoiser}",
        f"classifiers={{guide: {guide}}}",
        "stabilizers={adam: {}}",
        f"guidance.classifier_input=[{classifier_input}]",
        f"guidance.guidance_scale=[{SCALE}]",
        f"sampling.samples={samples}",
        f"sampling.batch_size={samples}",
        f"sampling.num_inference_steps={STEPS}",
        f"probes=[{', '.join(PROBES)}]",
        f"recording.path={Path(tempfile.mkdtemp()) / 'run.zarr'}",
        f"recording.dtype={dtype}",
        "recording.codec=none",
        f"recording.tensor_samples={samples}",
    ]
    return prepare(load(RunConfig, "quickstart.yaml", settings), device)


def recorder_of(run: Run, path: Path) -> Recorder:
    recording = run.config.recording
    return Recorder(
        path,
        run.grid,
        run.probes,
        device=run.device,
        overwrite=True,
        tensor_samples=recording.tensor_samples,
        dtype=recording.dtype,
    )


def _labels(samples: int) -> list[int]:
    return [i % 4 for i in range(samples)]


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()
