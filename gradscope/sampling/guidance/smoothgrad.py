"""SmoothGrad (arXiv 1706.03825): the mean gradient over noised inputs of the classifier."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.objectives import Scores, scaled, slope


@dataclass(frozen=True)
class SmoothGrad:
    """``1/K sum_k grad f(c + std * noise_k)``: K classifier passes, forward and backward, one after the other.

    Raises
    ------
    GradscopeError
        For a setting out of range.

    Examples
    --------
    >>> SmoothGrad(samples=8, std=0.2)
    SmoothGrad(samples=8, std=0.2)
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

    def gradient(
        self, scores: Callable[[Tensor], Scores], c: Tensor, seeds: Sequence[int], step: int
    ) -> tuple[Tensor, Tensor]:
        """Mean over the draws of ``exp(log_factor) grad value``, as a tensor and the logarithm of a common factor.

        Factors of a convinced classifier's draws may all lie below float32's range; only their ratios enter the tensor,
        which can then pass through a denoiser in float32.

        Parameters
        ----------
        scores
            ``(n, channel, height, width)`` -> `Scores`.
        c
            The classifier's input.
        seeds, step
            Sample i's noise is a function of ``(seeds[i], step)`` alone: of neither the batch nor the device, and no
            generator of the sampler's moves.

        Returns
        -------
        mean : Tensor
            Of the shape and type of c, without a graph.
        log_factor : Tensor
            ``(n,)``, float64: the mean gradient is ``mean * exp(log_factor)``.
        """
        generators = [_generator(seed, step) for seed in seeds]
        if len(generators) != len(c):
            raise ValueError(f"SmoothGrad takes one seed a sample, got {len(generators)} for {len(c)} samples")
        total = torch.zeros_like(c, dtype=torch.float64)
        largest = torch.full((len(c),), -torch.inf, dtype=torch.float64, device=c.device)
        for _ in range(self.samples):
            noise = torch.stack([torch.randn(c.shape[1:], generator=generator) for generator in generators])
            noised = (c.detach() + self.std * noise.to(c)).requires_grad_()
            with torch.enable_grad():
                value, log_factor = scores(noised)
                gradient = slope(value, noised)
            before, largest = largest, torch.maximum(largest, log_factor)
            total = scaled(total, before - largest) + scaled(gradient, log_factor - largest)
        return (total / self.samples).to(c.dtype), largest


def _generator(seed: int, step: int) -> torch.Generator:
    # A spawn key keeps this stream apart from the sampler's, which is seeded with the bare seed.
    (state,) = np.random.SeedSequence(int(seed), spawn_key=(step,)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
