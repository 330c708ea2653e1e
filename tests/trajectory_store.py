"""A store of a robot's trajectories, as a user's own loop records it: two methods, a timestep that comes twice."""

from pathlib import Path

import numpy as np
import torch

from gradscope.recording.recorder import Recorder
from gradscope.store import Grid
from probes import Cosine, GuidedStep, Norm, Tensor

SAMPLES, TIMES = 5, np.array([80.0, 24.4, 24.4, 5.1, 0.7])
"""A grid of a second-order solver in sigma, which evaluates the denoiser twice at one timestep."""


def grid(**changes):
    content = {
        "classifier": ("value",), "classifier_input": ("x_t",), "stabilizer": ("none", "adam"),
        "guidance_scale": (0.0, 0.5), "label": np.arange(SAMPLES) % 2, "seed": np.arange(SAMPLES), "timestep": TIMES,
        "alphas_cumprod": 1 / (1 + TIMES**2), "sigma": np.zeros(len(TIMES)), "sample_shape": (8, 2),
        "sample_dims": ("horizon", "action"), "batch_size": 2, "further": {"method": ("dps", "mpgd")},
        "signal": np.ones(len(TIMES)), "noise": TIMES,
    }  # fmt: skip
    return Grid(**(content | changes))


def tensors(cell, first, step, repeat=0):
    """Gradients whose values encode cell, sample and step."""
    rng = np.random.default_rng([*cell, first, step, repeat])
    rows = min(2, SAMPLES - first)
    return torch.from_numpy(rng.normal(size=(rows, 8, 2)))


def save(path: Path, **changes) -> Path:
    """Record it; `changes` are those of the grid."""
    probes, own = [Tensor("gradient"), Norm("gradient"), Cosine("gradient")], grid(**changes)
    with Recorder(path, own, probes, device=torch.device("cpu")) as recorder:
        for cell in np.ndindex(own.cells):
            for first in range(0, SAMPLES, 2):
                hook = recorder.trajectory(cell, first)
                for step, timestep in enumerate(own.timestep.tolist()):
                    g = tensors(cell, first, step)
                    hook(GuidedStep(step=step, timestep=timestep, x_t=g, gradient=g, prev_sample=g))
    return path
