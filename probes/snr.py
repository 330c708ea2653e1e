"""Whether the gradient is about the image or about the noise."""

import numpy as np
import torch
from torch import Tensor

from probes.catalogue import CATALOGUE
from probes.differentiation import gradient
from probes.probe import Probe
from probes.step import GuidedStep


class GradientSNR(Probe):
    """Signal-to-noise ratio of the objective's gradient over draws of the forward noise at the same timestep.

    x0-hat is noised anew, K times; the ratio is that of the mean gradient's square to the square that it would have by
    chance. About 1: all noise (2 and less says little); infinite: all draws agree; NaN: zero gradients.

    Parameters
    ----------
    draws
        K, at least 2; each costs a forward and a backward pass.
    seed
        The noise is a function of (seed, step) and of the sample's place in its block, so the same in every cell; it is
        drawn by a generator of its own.
    """

    needs = ("pred_original_sample", "label", "alphas_cumprod", "objective")
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
        generator = _generator(self.seed, step.step)
        mean = torch.zeros_like(x_0, dtype=torch.float64)
        squares = torch.zeros_like(mean)  # Welford's sum of squared deviations
        for k in range(1, self.draws + 1):
            noise = torch.randn(x_0.shape, generator=generator).to(x_0)
            g = gradient(step.objective, a**0.5 * x_0 + (1 - a) ** 0.5 * noise, step.label).double()
            change = g - mean
            mean += change / k
            squares += change * (g - mean)
        by_chance = squares.flatten(1).sum(dim=1) / (self.draws - 1) / self.draws
        return {"gradient_snr": (mean.flatten(1).square().sum(dim=1) / by_chance).float()}, state


def _generator(seed: int, step: int) -> torch.Generator:
    (state,) = np.random.SeedSequence(seed, spawn_key=(step,)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
