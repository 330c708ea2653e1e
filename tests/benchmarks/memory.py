"""Memory that recording adds, measured with models that need next to none themselves."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDPMScheduler
from measure import Case, Extent, Result, Work, Worker, judged
from torch import Tensor, nn

from gradscope.config import RunConfig, check
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

PROBES = ["gradient", "update", "norms", "cosines", "strength", "belief", "fractions", "sensitivity"]


def results(extent: Extent) -> Iterator[Result]:
    """Memory that recording adds to the process, by batch, size and length."""
    for samples, size, goal in extent.size(((32, 32, 256), (16, 64, 256), (16, 256, 1024)), ((4, 32, 256),)):
        options = {"samples": samples, "size": size, "device": extent.device}
        short, long = extent.size((100, 1000), (10, 20))
        bare = grown(**options, timesteps=short, recorded=False)
        for timesteps in (short, long):
            held = grown(**options, timesteps=timesteps, recorded=True)
            what = f"memory added by recording: batch {samples}, {size} px, {timesteps:,} timesteps"
            yield judged(what, [held - bare], f"<= {goal}", "MB", f"{held:.0f} - {bare:.0f} MB")


def grown(**options: Any) -> float:
    """MB by which the peak exceeds the memory of the models and the libraries."""
    with Worker(Case("memory:sampled", options)) as worker:
        worker.run()
        return worker.grown / 1e6


class Faint(nn.Module):
    """Predicts nearly no noise."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(sample_size=size, in_channels=3, out_channels=3)
        self.gain = nn.Parameter(torch.tensor(1e-3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * self.gain


class Means(nn.Module):
    """Logits from the channels' means."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean(dim=(2, 3)))


def denoiser32() -> tuple[nn.Module, DDPMScheduler]:
    return Faint(32), DDPMScheduler()


def denoiser64() -> tuple[nn.Module, DDPMScheduler]:
    return Faint(64), DDPMScheduler()


def denoiser256() -> tuple[nn.Module, DDPMScheduler]:
    return Faint(256), DDPMScheduler()


def sampled(samples: int, size: int, timesteps: int, recorded: bool, device: str) -> Work:
    """Sampling one block, with or without recording.

    The chunks of tensors are removed as they come: 1,000 timesteps of 16 samples at 256 px would be 25 GB.
    """
    store = Path(tempfile.mkdtemp()) / "run.zarr"
    settings = {
        "denoiser": f"memory:denoiser{size}",
        "classifiers": {"means": "memory:Means"},
        "guidance": {"guidance_scale": [0.5]},
        "stabilizers": {"adam": {}},
        "sampling": {"samples": samples, "batch_size": samples, "num_inference_steps": timesteps},
        "probes": PROBES,
        "recording": {"path": str(store), "codec": "none", "tensor_samples": samples},
    }
    run = prepare(check(RunConfig, settings, "memory"), device)

    def remove(*step: object) -> None:
        for name in ("gradient", "update"):
            for chunk in (store / name).glob("c.*"):
                if not chunk.name.endswith(".partial"):
                    chunk.unlink(missing_ok=True)

    def work() -> None:
        if recorded:
            record_run(run, on_step=remove)
        else:
            run.sampler((0, 0, 0, 0)).sample(run.grid.label.tolist(), timesteps)

    return work
