"""SmoothGrad (arXiv 1706.03825): the mean gradient over noised inputs of the classifier."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradscope.errors import GradscopeError


@dataclass(frozen=True)
class SmoothGrad:
    """``1/K sum_k grad f(c + std * noise_k)``: K classifier passes, forward and backward, one after the other.

    Raises
    ------
    GradscopeError
        For a setting out of range.
    """

    samples: int
    """K."""
    std: float
    """Standard deviation of the Gaussian noise, absolute, in the units of the classifier's input, whose images lie in
    [-1, 1]: the paper's noise level of 10 to 20 % of the range is 0.2 to 0.4."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise GradscopeError(f"guidance.smoothgrad.samples: must be at least 1, got {self.samples}")
        if not (math.isfinite(self.std) and self.std >= 0):
            raise GradscopeError(f"guidance.smoothgrad.std: must be finite and at least 0, got {self.std}")

    def gradient(self, scores: Callable[[Tensor], Tensor], c: Tensor, seeds: Sequence[int], step: int) -> Tensor:
        """Mean gradient of `scores` at c.

        Parameters
        ----------
        scores
            ``(n, channel, height, width)`` -> one number a sample, ``(n,)``.
        c
            The classifier's input.
        seeds, step
            Sample i's noise is a function of ``(seeds[i], step)`` alone: of neither the batch nor the device, and no
            generator of the sampler's moves.

        Returns
        -------
        Tensor
            Of the shape of c, without a graph.
        """
        generators = [_generator(seed, step) for seed in seeds]
        if len(generators) != len(c):
            raise ValueError(f"SmoothGrad takes one seed a sample, got {len(generators)} for {len(c)} samples")
        total = torch.zeros_like(c)
        for _ in range(self.samples):
            noise = torch.stack([torch.randn(c.shape[1:], generator=generator) for generator in generators])
            noised = (c.detach() + self.std * noise.to(c)).requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(scores(noised).sum(), noised)
            total += gradient
        return total / self.samples


def _generator(seed: int, step: int) -> torch.Generator:
    # A spawn key keeps this stream apart from the sampler's, which is seeded with the bare seed.
    (state,) = np.random.SeedSequence(int(seed), spawn_key=(step,)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
