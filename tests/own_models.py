"""A user's own small models, and a configuration that names them."""

import sys

import pytest

from gradscope.config import RunConfig, check
from gradscope.recording.prepare import prepare

MODELS = """
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DModel
from gradscope.stabilizers import Stabilizer
from small_models import LinearClassifier
from probes import Probe, Variable


def denoiser():
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=8, block_out_channels=(8, 8), down_block_types=("DownBlock2D", "DownBlock2D"),
                       up_block_types=("UpBlock2D", "UpBlock2D"), layers_per_block=1, norm_num_groups=4)
    return unet, DDPMScheduler()


def robust():
    torch.manual_seed(1)
    return LinearClassifier(gain=2.0)


def non_robust():
    torch.manual_seed(2)
    return LinearClassifier(gain=3.0)


def wide():
    return LinearClassifier(size=16)


class Peak(Probe):
    variables = (Variable("peak", "largest magnitude", "max|g|"),)

    def measure(self, step, state):
        return {"peak": step.gradient.abs().flatten(1).amax(dim=1)}, state


class Scaled(Probe):
    variables = (Variable("scaled", "largest magnitude, scaled", "scale * max|g|"),)

    def __init__(self, scale: float, power: int = 1):
        if power < 1:
            raise ValueError(f"power must be at least 1, got {power}")
        self.scale, self.power = scale, power

    def measure(self, step, state):
        return {"scaled": self.scale * step.gradient.abs().flatten(1).amax(dim=1) ** self.power}, state


@dataclass(frozen=True)
class LastTwo(Stabilizer):
    share: float = 0.5

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {self.share}")

    def init(self, x_T):
        return None

    def update(self, gradient, state):
        return torch.lerp(gradient, gradient if state is None else state, self.share), gradient


class Greedy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.unet, self.config = denoiser()[0], denoiser()[0].config

    def forward(self, x, t):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.unet(x, t)


def greedy():
    return Greedy(), DDPMScheduler()
"""


@pytest.fixture
def content(tmp_path, monkeypatch):
    (tmp_path / "mymodels.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mymodels", raising=False)
    return {
        "denoiser": "mymodels:denoiser",
        "classifiers": {"robust": "mymodels:robust", "non_robust": "mymodels:non_robust"},
        "guidance": {"classifier_input": ["x_t", "x0"], "guidance_scale": [0, 0.4]},
        "stabilizers": {"none": {}, "adam": {}},
        "sampling": {"num_inference_steps": 4, "samples": 5, "batch_size": 3},
        "probes": ["gradient", "update", "x_t", "norms", "cosines", "mymodels:Peak"],
        "recording": {"path": str(tmp_path / "run.zarr")},
    }


def run_of(content, **options):
    return prepare(check(RunConfig, content, "test"), device="cpu", **options)


def changed(content, key, value):
    *parents, last = key.split(".")
    target = content
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = value
    return content
