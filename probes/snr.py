"""Whether the gradient depends on the image or on the noise."""

import numpy as np
import torch
from torch import Tensor

from probes.catalogue import CATALOGUE
from probes.differentiation import gradient
from probes.probe import Probe
from probes.step import GuidedStep


class GradientSNR(Probe):
    """Signal-to-noise ratio of the objective's gradient over draws of the forward noise at the same timestep.

    Noise is added to x0-hat K times. The ratio is the square of the mean gradient, divided by the square that it would
    have by chance. About 1 means all noise (values up to 2 say little), infinite means that all draws agree, and NaN
    that the gradients are zero.

    Parameters
    ----------
    draws
        K, at least 2. Each draw costs a forward and a backward pass.
    seed
        The noise depends only on the seed, the step and the sample's place in its block, so it is the same in every
        cell. It is drawn by a separate generator.

    Examples
    --------
    The gradient of a linear objective is the same for all noise.

    >>> def objective(x, label):
    ...     return x.flatten(1).sum(dim=1)
    >>> x_0 = torch.zeros(1, 1, 2, 2)
    >>> step = GuidedStep(
    ...     step=0, timestep=500, x_t=x_0, gradient=torch.ones_like(x_0), pred_original_sample=x_0,
    ...     label=torch.tensor([0]), alphas_cumprod=0.5, objective=objective,
    ... )
    >>> values, _ = GradientSNR(draws=4).measure(step, None)
    >>> values["gradient_snr"]
    tensor([inf])
    """

    needs = ("pred_original_sample", "label", "alphas_cumprod", "objective")
    of_guide = True
    variables = (CATALOGUE["gradient_snr"],)

    def __init__(self, draws: int = 8, seed: int = 0) -> None:
        if draws < 2:
            raise ValueError(f"draws must be at least 2, got {draws}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.draws, self.seed = draws, seed

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        assert step.pred_original_sample is not None
        assert step.label is not None
        assert step.alphas_cumprod is not None
        assert step.objective is not None
        x_0, a = step.pred_original_sample, step.alphas_cumprod
        signal = a**0.5 if step.signal is None else step.signal
        scale = (1 - a) ** 0.5 if step.noise is None else step.noise
        generator = _generator(self.seed, step.step)
        mean = torch.zeros_like(x_0, dtype=torch.float64)
        squares = torch.zeros_like(mean)  # Welford's sum of squared deviations
        for k in range(1, self.draws + 1):
            noise = torch.randn(x_0.shape, generator=generator).to(x_0)
            g = gradient(step.objective, signal * x_0 + scale * noise, step.label).double()
            change = g - mean
            mean += change / k
            squares += change * (g - mean)
        by_chance = squares.flatten(1).sum(dim=1) / (self.draws - 1) / self.draws
        return {"gradient_snr": (mean.flatten(1).square().sum(dim=1) / by_chance).float()}, state


def _generator(seed: int, step: int) -> torch.Generator:
    (state,) = np.random.SeedSequence(seed, spawn_key=(step,)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
