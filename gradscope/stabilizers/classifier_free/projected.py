"""Adaptive projected guidance, APG (algorithm 1 of arXiv 2410.02416).

The paper sees d_k = c - u as the gradient of an ascent, and changes its step in three ways. With b_0 = 0:

    b_k = d_k + momentum b_{k-1}                              (a negative momentum leaves out what is old)
    r_k = b_k min(1, norm_threshold / ||b_k||)
    p_k = <r_k, c> / <c, c> c                                 (the part along c, which saturates images)
    e_k = r_k - p_k + eta p_k

The guided prediction is c + (w - 1) e_k, which is u + w d for d = (d_k + (w - 1) e_k) / w. Norms and inner products are
those of each sample.

diffusers' `AdaptiveProjectedGuidance` takes u + w e_k by default, so that momentum, threshold and eta also act on the
first unit of scale. With `use_original_formulation` it takes c + w e_k, which is the paper's with w - 1 for w.

The paper projects predictions of x_0 (`Predictions.to` converts to ``sample``). diffusers projects the denoiser's own
output. These differ: the part along c depends on the type of prediction, and so does the length of d_k.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gradscope.stabilizers.checks import require_positive
from gradscope.stabilizers.classifier_free.base import Remedy
from gradscope.stabilizers.classifier_free.per_sample import dot
from gradscope.stabilizers.classifier_free.predictions import Predictions


class ProjectedState(NamedTuple):
    running_average: Tensor


@dataclass(frozen=True)
class Projected(Remedy):
    """Guidance without its part along the conditional prediction, bounded, with momentum (APG, arXiv 2410.02416).

    The defaults project and do nothing else. A useful threshold depends on the model and on the size of a sample.

    Parameters
    ----------
    eta
        Share of the part along the conditional prediction that stays; 0 or above.
    norm_threshold
        Largest norm of a sample's difference, above 0; infinite for no bound.
    momentum
        In (-1, 1); the paper's is negative.
    base
        ``conditional`` is the paper's c + (w - 1) e_k, ``unconditional`` diffusers' default u + w e_k.

    Raises
    ------
    ValueError
        A setting is out of range.

    Examples
    --------
    >>> at = Predictions(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]), 3.0, signal=0.6, noise=0.8)
    >>> remedy = Projected(eta=0.0)
    >>> difference, state = remedy.update_difference(at.difference, remedy.init(at.conditional), at)
    >>> at.guided(difference)
    tensor([[ 2., -2.]])
    """

    eta: float = 0.0
    norm_threshold: float = math.inf
    momentum: float = 0.0
    base: Literal["conditional", "unconditional"] = "conditional"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eta) and self.eta >= 0):
            raise ValueError(f"eta must be finite and 0 or above, got {self.eta}")
        if self.norm_threshold != math.inf:
            require_positive("norm_threshold", self.norm_threshold)
        if not -1 < self.momentum < 1:
            raise ValueError(f"momentum must lie in (-1, 1), got {self.momentum}")
        if self.base not in ("conditional", "unconditional"):
            raise ValueError(f"base must be conditional or unconditional, got {self.base!r}")

    def init(self, x_T: Tensor) -> ProjectedState:
        return ProjectedState(torch.zeros_like(x_T, dtype=torch.float64))

    def update_difference(
        self, difference: Tensor, state: ProjectedState, at: Predictions
    ) -> tuple[Tensor, ProjectedState]:
        c, w = at.conditional.double(), at.guidance_scale
        average = difference + self.momentum * state.running_average
        length = dot(average, average).sqrt()
        bounded = torch.where(length > self.norm_threshold, average * (self.norm_threshold / length), average)
        square = dot(c, c)
        along = torch.where(square == 0, 0, dot(bounded, c) / square) * c
        ascent = bounded - along + self.eta * along
        if self.base == "conditional":
            ascent = (at.difference + (w - 1) * ascent) / w
        return ascent.to(difference.dtype), ProjectedState(average)
