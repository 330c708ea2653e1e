"""SmoothGrad (arXiv 1706.03825): the mean gradient over noised inputs of the classifier."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.objectives import Scores, scaled, slope
from gradscope.sampling.noise import own_generator


@dataclass(frozen=True)
class SmoothGrad:
    """``1/K sum_k grad f(c + std * noise_k)`` from K forward and backward passes of the classifier, one after another.

    Raises
    ------
    GradscopeError
        A setting is out of range.

    Examples
    --------
    >>> SmoothGrad(samples=8, std=0.2)
    SmoothGrad(samples=8, std=0.2)
    """

    samples: int
    """K, at least 1."""
    std: float
    """Standard deviation of the Gaussian noise on the classifier's input, at least 0. Images lie in [-1, 1], so the
    paper's noise level of 10 to 20 % of the range is 0.2 to 0.4."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise GradscopeError(f"guidance.smoothgrad.samples: must be at least 1, got {self.samples}")
        if not (math.isfinite(self.std) and self.std >= 0):
            raise GradscopeError(f"guidance.smoothgrad.std: must be finite and at least 0, got {self.std}")

    def gradient(
        self, scores: Callable[[Tensor], Scores], c: Tensor, seeds: Sequence[int], step: int
    ) -> tuple[Tensor, Tensor]:
        """Mean over the draws of ``exp(log_factor) grad value``, as a tensor and the logarithm of a factor.

        The factors of a saturated classifier may all lie below float32's range. Only their ratios enter the tensor, so
        that a denoiser can differentiate it in float32.

        Parameters
        ----------
        scores
            Maps samples ``(n, *sample)`` to `Scores`.
        c
            The classifier's input.
        seeds, step
            Sample i's noise is a function of ``(seeds[i], step)`` only. It depends neither on the batch nor on the
            device, and uses no generator of the sampler.

        Returns
        -------
        mean : Tensor
            Shape and type of c, without a graph.
        log_factor : Tensor
            ``(n,)``, float64: the mean gradient is ``mean * exp(log_factor)``.
        """
        generators = [own_generator(seed, (step,)) for seed in seeds]
        if len(generators) != len(c):
            raise ValueError(f"SmoothGrad takes one seed per sample, got {len(generators)} for {len(c)} samples")
        total = torch.zeros_like(c, dtype=torch.float64)
        largest = torch.full((len(c),), -torch.inf, dtype=torch.float64, device=c.device)
        for _ in range(self.samples):
            noise = torch.stack([torch.randn(c.shape[1:], generator=generator) for generator in generators])
            noised = (c.detach() + self.std * noise.to(c)).requires_grad_()
            with torch.enable_grad():
                value, log_factor, _ = scores(noised)
                gradient = slope(value, noised)
            before, largest = largest, torch.maximum(largest, log_factor)
            total = scaled(total, before - largest) + scaled(gradient, log_factor - largest)
        return (total / self.samples).to(c.dtype), largest
