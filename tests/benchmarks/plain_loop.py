"""Classifier guidance with ADAM and saved gradients, as a researcher writes it in an afternoon.

gradscope is timed against this loop: eager, contiguous, with parameters that require gradients, without flushing
denormals, one file per step.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def steps(
    unet: nn.Module,
    scheduler: Any,
    classifier: nn.Module,
    noise: Tensor,
    labels: Tensor,
    num_inference_steps: int,
    scale: float,
    classifier_input: str,
    folder: Path,
) -> Iterator[Tensor]:
    """DDPM sampling from `noise`, guided at x_t or x0-hat; gradients and updates of every step go to `folder`."""
    scheduler.set_timesteps(num_inference_steps)
    x = noise
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for i, t in enumerate(scheduler.timesteps):
        x = x.detach().requires_grad_()
        output = unet(x, t).sample
        stepped = scheduler.step(output, t, x)
        seen = stepped.pred_original_sample if classifier_input == "x0" else x
        log_prob = F.log_softmax(classifier(seen), dim=1)[torch.arange(len(x)), labels].sum()
        gradient = torch.autograd.grad(log_prob, x)[0]
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        update = (m / (1 - 0.9 ** (i + 1))) / ((v / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8)
        direction = update / update.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
        x = (stepped.prev_sample + scale * direction).detach()
        np.save(folder / f"gradient_{i:04d}.npy", gradient.numpy(force=True))
        np.save(folder / f"update_{i:04d}.npy", update.numpy(force=True))
        yield x
