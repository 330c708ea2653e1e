"""Guided sampling: ours with and without recording, the plain loop, and the models' own passes.

Every function that returns work makes that of one process: the next `UNIT` steps. A new trajectory follows the last
step of one. A store's chunk is full in the middle of a unit, so that its writing falls within the unit's time.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import plain_loop
import torch
from cuda_graphs import graphed
from measure import Case, Extent, Result, Work, alone, interleaved, judged, ratios
from torch import Tensor, nn

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
    "tiny": ("paper:tiny_denoiser", "paper:tiny_classifier"),
}
PROBES = ["gradient", "update", "norms", "cosines", "strength", "belief", "fractions", "sensitivity", "spectrum"]
SCALE = 0.5
STEPS, UNIT = 50, 5
AHEAD = 2
"""Number of steps before the first unit."""


def results(extent: Extent) -> Iterator[Result]:
    """The shipped models at 32 px, seen at x_t and through x0."""
    for classifier_input in extent.size(("x_t", "x0"), ("x0",)):
        samples = extent.size(32, 4)
        options = {"classifier_input": classifier_input, "samples": samples, "device": extent.device}
        goal = {"x0": ">= 1.8", "x_t": ">= 1.3"}[classifier_input]
        yield from compared(f"{classifier_input}, shipped models, batch {samples}", options, extent.rounds, goal)


def compared(name: str, options: Mapping[str, Any], rounds: int, goal: str, graphs: bool = False) -> Iterator[Result]:
    """All ratios of a step, from the same rounds; `goal` is that of the plain loop / ours.

    With `graphs`, ours is measured with and without CUDA graphs.
    """
    cases = {
        "recorded": Case("sampling:recorded", options),
        "recorded in float16": Case("sampling:recorded", {**options, "dtype": "float16"}),
        "not recorded": Case("sampling:sampled", options),
        "plain loop": Case("sampling:plain", options),
        "the models' own passes": Case("sampling:floor", options),
    }
    if options["device"] == "cpu":  # a GPU has no such setting
        flushing = Case("sampling:plain", {**options, "flush_denormals": True})
        cases["plain loop that flushes denormals"] = flushing
    if graphs:
        cases["recorded, CUDA graphs"] = Case("sampling:recorded", {**options, "graphs": True})
        cases["not recorded, CUDA graphs"] = Case("sampling:sampled", {**options, "graphs": True})
    found = interleaved(cases, rounds)

    def ratio(a: str, b: str, goal: str) -> Result:
        first, second = (1e3 * sum(found[case]) / rounds / UNIT for case in (a, b))
        detail = f"{first:.1f} / {second:.1f} ms a step"
        return judged(f"{a} / {b}: {name}", ratios(found[a], found[b]), goal, detail=detail)

    yield ratio("recorded", "not recorded", "<= 1.05")
    yield ratio("recorded in float16", "not recorded", "<= 1.03")
    for plain_case in (case for case in cases if case.startswith("plain")):
        yield ratio(plain_case, "recorded", goal)
    yield ratio("not recorded", "the models' own passes", "<= 1.1")
    if graphs:
        yield ratio("not recorded", "not recorded, CUDA graphs", "")
        yield ratio("recorded, CUDA graphs", "not recorded, CUDA graphs", "")
        yield ratio("plain loop", "recorded, CUDA graphs", goal)
    yield share_of_the_models(name, options)


def share_of_the_models(name: str, options: Mapping[str, Any]) -> Result:
    """The share of the models' passes in a recorded step; the shares of all parts are its detail."""
    (steps,) = alone(Case("step_shares:shares", options))
    medians = {part: median(step[part] for step in steps) for part in steps[0]}
    detail = ", ".join(f"{part} {100 * share:.1f} %" for part, share in medians.items() if share > 0)
    values = [sum(share for part, share in step.items() if part.endswith("ward")) for step in steps]
    return judged(f"share of the models in a recorded step, each part waited for: {name}", values, detail=detail)


def sampled(classifier_input: str, samples: int, device: str, models: str = "shipped", graphs: bool = False) -> Work:
    """Ours, without probes or store; with `graphs` the models run as CUDA graphs."""
    steps = _steps(run_of(classifier_input, samples, device, models), graphs)
    return units(steps, lambda step: None, device)


def recorded(
    classifier_input: str,
    samples: int,
    device: str,
    models: str = "shipped",
    dtype: str = "float32",
    graphs: bool = False,
) -> Work:
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

    return units(_steps(run, graphs), record, device)


def plain(
    classifier_input: str, samples: int, device: str, models: str = "shipped", flush_denormals: bool = False
) -> Work:
    """The plain loop with saved gradients; the models are as diffusers and timm load them.

    On some CPUs denormals make it several times slower. Ours flushes them, so the loop is measured with and without.
    """
    torch.set_flush_denormal(flush_denormals)
    return units(_plain_steps(*_plain_parts(samples, device, models), classifier_input), lambda step: None, device)


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

    return units(forever(), lambda step: None, device)


def units(steps: Iterator[Any], each: Callable[[Any], None], device: str, length: int = UNIT) -> Work:
    """The time of the next steps."""
    for _ in range(AHEAD):
        each(next(steps))

    def work() -> float:
        start = _now(device)
        for _ in range(length):
            each(next(steps))
        return _now(device) - start

    return work


def _steps(run: Run, graphs: bool) -> Iterator[GuidedStep]:
    """Steps of trajectory after trajectory, with frozen parameters as in `GuidedSampler.sample`."""
    sampler = run.sampler((0, 0, 0, 0))
    if graphs:
        graphed(sampler.unet), graphed(sampler.guidance.classifier)
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
