"""A store in memory as the recorder fills it, with all values of the probes and the tensors of some samples."""

import numpy as np
import torch
import xarray as xr

from gradscope.store import CELL_DIMS
from probes import NAMED, FiniteFraction, GuidedStep, Trace

CELLS = (2, 1, 2, 1)
OVER = (*CELL_DIMS, "sample", "timestep")
IMAGE = ("channel", "height", "width")
SAMPLES, KEPT, TIMESTEPS, SHAPE = 12, 7, 23, (3, 8, 8)
TENSORS = ("gradient", "update", "x_t", "pred_original_sample")


def coordinates(samples=SAMPLES, timesteps=TIMESTEPS):
    """Coordinates of the store."""
    return {
        "classifier": ["robust", "non_robust"],
        "classifier_input": ["x_t"],
        "stabilizer": ["none", "adam"],
        "guidance_scale": [0.4],
        "timestep": np.arange(timesteps)[::-1] * 10,
        "alphas_cumprod": ("timestep", np.linspace(0.01, 0.99, timesteps)),
        "label": ("sample", np.arange(samples) % 4),
    }


def recorded():
    """A store as the recorder fills it, with all values of the probes, and tensors of the first 7 samples."""
    generator = torch.Generator().manual_seed(0)
    groups = ("norms", "cosines", "fractions", "sensitivity", "spectrum")
    probes = [FiniteFraction(), *(probe for group in groups for probe in NAMED[group]())]
    data = {name: np.full((*CELLS, SAMPLES, TIMESTEPS, *SHAPE), np.nan, dtype=np.float32) for name in TENSORS}
    coords = coordinates()
    for cell in np.ndindex(CELLS):
        trace = Trace(probes)
        for k in range(TIMESTEPS):
            step = guided_step(k, generator, coords["alphas_cumprod"][1][k])
            trace(step)
            for name in TENSORS:
                data[name][(*cell, slice(KEPT), k)] = getattr(step, name)[:KEPT].numpy()
        for name in (variable.name for probe in probes for variable in probe.variables if not variable.dims):
            data.setdefault(name, np.full((*CELLS, SAMPLES, TIMESTEPS), np.nan, dtype=np.float32))
            data[name][cell] = trace[name].numpy()
    written = np.full((*CELLS, SAMPLES, TIMESTEPS), 1, dtype=np.uint8)
    written[..., :KEPT, :] = 3
    variables = {name: ((*OVER, *IMAGE) if name in TENSORS else OVER, values) for name, values in data.items()}
    return xr.Dataset({**variables, "written": (OVER, written)}, coords=coords)


def guided_step(k, generator, alphas_cumprod):
    """A random step of consistent fields, with zero, tiny, infinite and clamped tensors among its samples."""

    def image(scale=1.0):
        return scale * torch.randn(SAMPLES, *SHAPE, generator=generator)

    gradient, x_t, x_0 = image(1e-6), image(), image(0.5)
    gradient[0] *= 1e-30
    gradient[1] = 0
    gradient[2, :, :, ::2] = 0
    if k == 4:
        gradient[3, 0, 0, 0] = torch.inf
    x_0[:5] = x_0[:5].clamp(-1, 1)
    x_0[5:] = x_0[5:].clamp(-0.99, 0.99)
    epsilon = (x_t - alphas_cumprod**0.5 * x_0) / (1 - alphas_cumprod) ** 0.5
    return GuidedStep(
        step=k, timestep=k, x_t=x_t, gradient=gradient, update=image(), pred_original_sample=x_0, clip_range=1.0,
        model_output=epsilon, num_train_timesteps=1000,
    )  # fmt: skip
