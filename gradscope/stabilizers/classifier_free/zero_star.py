"""CFG-Zero* (arXiv 2503.18886): an optimised scale of the unconditional prediction, and zeros at the first steps.

The paper guides the velocity of a flow. An underfitted velocity u is first multiplied by the number that brings it
nearest to c, for each sample:

    s* = argmin_s ||c - s u||^2 = <c, u> / ||u||^2,
    guided prediction = (1 - w) s* u + w c.

At the first steps, where a learned velocity is worse than none, it is zero. As u + w d these are

    d = (c - u) + (1 / w - 1) (s* - 1) u      and      d = -u / w.

diffusers' `ClassifierFreeZeroStarGuidance` takes the denoiser's own output, whatever its type, and adds 1e-8 to
||u||^2. The paper's argument holds for ``flow_prediction``, where zero leaves x_t in its place. Zero as a prediction of
epsilon or x_0 says something else.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradscope.stabilizers.classifier_free.base import Remedy
from gradscope.stabilizers.classifier_free.per_sample import dot
from gradscope.stabilizers.classifier_free.predictions import Predictions


@dataclass(frozen=True)
class ZeroStar(Remedy):
    """Guidance away from s* u, and a guided prediction of zero at the first steps (CFG-Zero*, arXiv 2503.18886).

    A flow's first step often has signal 0, where only `update_difference` is defined.

    Parameters
    ----------
    zero_init_steps
        Number of steps with a prediction of zero, 0 or above. The paper advises the first 4 % of them.

    Raises
    ------
    ValueError
        A setting is out of range.

    Examples
    --------
    >>> c, u = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    >>> for step in (0, 1):
    ...     at = Predictions(c, u, 3.0, signal=0.2, noise=0.8, step=step, prediction_type="flow_prediction")
    ...     difference, _ = ZeroStar(zero_init_steps=1).update_difference(at.difference, None, at)
    ...     print(at.guided(difference).tolist())
    [[0.0, 0.0]]
    [[4.0, -2.0]]
    """

    zero_init_steps: int = 1

    def __post_init__(self) -> None:
        if self.zero_init_steps < 0:
            raise ValueError(f"zero_init_steps must be 0 or above, got {self.zero_init_steps}")

    def update_difference(self, difference: Tensor, state: None, at: Predictions) -> tuple[Tensor, None]:
        u, w = at.unconditional.double(), at.guidance_scale
        if at.step < self.zero_init_steps:
            return (-u / w).to(difference.dtype), None
        square = dot(u, u)
        scale = torch.where(square == 0, 1, dot(at.conditional, u) / square)
        return (difference + (1 / w - 1) * (scale - 1) * u).to(difference.dtype), None
