"""Rescaled classifier-free guidance (section 3.4 of arXiv 2305.08891, its equations for x_cfg to x_final).

A large scale w widens the distribution of the guided prediction, which overexposes images. The paper gives it back the
standard deviation of the conditional prediction, over all elements of a sample, and mixes both results by phi:

    x_cfg = u + w (c - u)
    x_rescaled = x_cfg std(c) / std(x_cfg)
    x_final = phi x_rescaled + (1 - phi) x_cfg

With the factor m = 1 + phi (std(c) / std(x_cfg) - 1) this is x_final = m x_cfg, and as u + w d it has

    d = m (c - u) + (m - 1) u / w.

The paper and diffusers (`guidance_rescale` of its guiders and pipelines) take the denoiser's own output. In another
type of prediction the same phi is another method.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradscope.stabilizers.classifier_free.base import Remedy
from gradscope.stabilizers.classifier_free.per_sample import std
from gradscope.stabilizers.classifier_free.predictions import Predictions


@dataclass(frozen=True)
class Rescaled(Remedy):
    """The guided prediction, with the standard deviation of the conditional one (arXiv 2305.08891).

    A guided prediction without deviation stays as it is.

    Parameters
    ----------
    guidance_rescale
        phi, in [0, 1]; 0 changes nothing.

    Raises
    ------
    ValueError
        A setting is out of range.

    Examples
    --------
    >>> at = Predictions(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]), 3.0, signal=0.6, noise=0.8)
    >>> difference, _ = Rescaled(guidance_rescale=1.0).update_difference(at.difference, None, at)
    >>> at.guided(at.difference), at.guided(difference)
    (tensor([[ 4., -2.]]), tensor([[ 1.3333, -0.6667]]))
    """

    guidance_rescale: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale must lie in [0, 1], got {self.guidance_rescale}")

    def update_difference(self, difference: Tensor, state: None, at: Predictions) -> tuple[Tensor, None]:
        u, w = at.unconditional.double(), at.guidance_scale
        deviation = std(u + w * difference)
        ratio = torch.where(deviation == 0, 1, std(at.conditional) / deviation)
        change = self.guidance_rescale * (ratio - 1)
        return ((1 + change) * difference + change * u / w).to(difference.dtype), None
