"""Small stores whose samples are images, videos, signals, trajectories, points, or sets of points."""

from pathlib import Path

import numpy as np
import torch

from gradscope.recording.recorder import Recorder
from gradscope.store import Grid
from probes import Cosine, GuidedStep, Norm, Tensor

SHAPES = {
    "image": ((3, 8, 8), ()),
    "video": ((3, 10, 8, 8), ()),
    "signal": ((2, 32), ()),
    "series": ((24,), ("time",)),
    "trajectory": ((16, 3), ("horizon", "action")),
    "point": ((2,), ()),
    "number": ((1,), ()),
    "space": ((5,), ()),
    "cloud": ((12, 2), ("point", "axis")),
    "table": ((3, 4), ("row", "column")),
}
"""Shape of each sample, and the names of its dimensions where they are not the usual ones."""
CELLS = (2, 1, 1, 2)
SAMPLES, TENSORS, TIMESTEPS, CLASSES = 12, 6, 8, 3


def grid(kind: str) -> Grid:
    shape, dims = SHAPES[kind]
    alphas = np.linspace(0.02, 0.98, TIMESTEPS)
    return Grid(
        ("robust", "non_robust"), ("x_t",), ("none",), (0.0, 0.5), np.arange(SAMPLES) % CLASSES, np.arange(SAMPLES),
        np.linspace(990, 10, TIMESTEPS).astype(int), alphas, np.sqrt(1 - alphas), shape, 4, dims,
    )  # fmt: skip


def final(kind: str, sample: int) -> np.ndarray:
    """The sample without guidance, in [-1, 1]: another curve, place or ring for each class."""
    shape, _ = SHAPES[kind]
    label = sample % CLASSES
    angle = 2 * np.pi * label / CLASSES
    if kind in ("point", "number", "space"):
        mean = np.resize([np.cos(angle), np.sin(angle)], shape)
    elif kind == "cloud":
        around = np.linspace(0, 2 * np.pi, shape[0], endpoint=False)
        mean = (0.3 + 0.3 * label) * np.stack([np.cos(around), np.sin(around)], axis=1)
    elif kind in ("signal", "series"):
        wave = np.sin(np.linspace(0, 2 * np.pi * (label + 1), shape[-1]))
        mean = np.broadcast_to(wave, shape) * np.linspace(0.5, 1, shape[0])[:, None] if len(shape) > 1 else wave
    elif kind == "trajectory":
        mean = np.linspace(0, 1, shape[0])[:, None] * np.cos(angle + np.arange(shape[1]))
    elif kind == "video":
        mean = np.full(shape, -0.8)
        for frame in range(shape[1]):
            mean[label, frame, 2:5, frame % 6 : frame % 6 + 3] = 0.9
    else:
        mean = np.full(shape, 0.3 * label)
    return mean + 0.05 * np.random.default_rng([1, sample]).normal(size=shape)


def tensors(kind: str, cell: tuple[int, ...], sample: int, step: int) -> dict[str, np.ndarray]:
    """Tensors of one sample at one step, and its final sample; all cells start at the same noise."""
    shape, _ = SHAPES[kind]
    signal, noise = np.sqrt(grid(kind).alphas_cumprod[step]), np.sqrt(1 - grid(kind).alphas_cumprod[step])
    clean = final(kind, sample) + 0.2 * (cell[3] > 0) * (1 if cell[0] else 0.2)
    epsilon = np.random.default_rng([2, sample]).normal(size=shape)
    x_t = signal * clean + noise * epsilon
    rng = np.random.default_rng([3, *cell, sample, step])
    gradient = (clean - x_t) * 10.0 ** (step - TIMESTEPS) if cell[0] == 0 else rng.normal(size=shape)
    guess = clean + 0.3 * noise * rng.normal(size=shape)
    found = {"x_t": x_t, "pred_original_sample": guess, "gradient": gradient, "prev_sample": clean}
    return {name: values.astype(np.float32) for name, values in found.items()}


def save(path: Path, kind: str, probes=("gradient", "x_t", "pred_original_sample"), marred=(), **how) -> Path:
    """Record it. `marred`: (cell, sample, step, value), the value of the first element of gradient and x_t there.

    `how`: further arguments of the recorder.
    """
    own = grid(kind)
    measured = [*map(Tensor, probes), Norm("gradient"), Cosine("gradient")]
    with Recorder(path, own, measured, device=torch.device("cpu"), tensor_samples=TENSORS, **how) as recorder:
        for cell in np.ndindex(own.cells):
            for first in range(0, SAMPLES, own.batch_size):
                hook = recorder.trajectory(cell, first)
                for step, timestep in enumerate(own.timestep.tolist()):
                    rows = [tensors(kind, cell, first + i, step) for i in range(own.batch_size)]
                    for at, sample, when, value in marred:
                        if (at, when) == (cell, step) and first <= sample < first + own.batch_size:
                            rows[sample - first]["gradient"].flat[0] = value
                            rows[sample - first]["x_t"].flat[0] = value
                    stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
                    hook(GuidedStep(step=step, timestep=timestep, **stacked))
    return path
