"""Memory that recording adds, measured with models that need next to none themselves."""

import resource
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import DDPMScheduler
from measure import Work
from torch import Tensor, nn

from gradscope.config import RunConfig, check
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

PROBES = ["gradient", "update", "norms", "cosines", "strength", "belief", "fractions", "sensitivity"]


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


def peak(samples: int, size: int, timesteps: int, recorded: bool, device: str) -> Work:
    """Largest resident size of the process in bytes, after sampling, with or without recording."""
    folder = Path(tempfile.mkdtemp())
    settings = {
        "denoiser": f"memory:denoiser{size}",
        "classifiers": {"means": "memory:Means"},
        "guidance": {"guidance_scale": [0.5]},
        "stabilizers": {"adam": {}},
        "sampling": {"samples": samples, "batch_size": samples, "num_inference_steps": timesteps},
        "probes": PROBES,
        "recording": {"path": str(folder / "run.zarr"), "codec": "none", "tensor_samples": samples},
    }
    run = prepare(check(RunConfig, settings, "memory"), device)

    def work() -> float:
        if recorded:
            record_run(run)
        else:
            run.sampler((0, 0, 0, 0)).sample(run.grid.label.tolist(), timesteps)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0

    return work
