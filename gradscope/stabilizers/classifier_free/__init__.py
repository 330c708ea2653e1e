"""Remedies for classifier-free guidance, which is a gradient too.

A denoiser with a condition gives two predictions, conditional c and unconditional u. Guidance of scale w (arXiv
2207.12598) takes u + w (c - u) in their place. With x_t = signal x_0 + noise epsilon, the difference is a gradient of
log p(condition given x_t):

    gradient = -(epsilon_c - epsilon_u) / noise = signal (x0_c - x0_u) / noise^2.

A remedy maps this gradient to an update, as any stabiliser does, so that the guided epsilon is
``epsilon_u - noise * w * update``. Plain classifier-free guidance is update = gradient. A remedy also needs the two
predictions, the scale, the noise level and the step, which it gets as `Predictions`.

Remedies can follow one another: the update of one is the gradient of the next. The other stabilisers have the same
gradient, so ``EMA(0.9).update(at.gradient, state)`` may come first.

Examples
--------
>>> import torch
>>> conditional, unconditional = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]])
>>> at = Predictions(conditional, unconditional, guidance_scale=3.0, signal=0.6, noise=0.8)
>>> remedy = ZeroStar(zero_init_steps=0)
>>> update, state = remedy.update(at.gradient, remedy.init(conditional), at)
>>> unconditional - at.noise * at.guidance_scale * update
tensor([[ 4., -2.]])
"""

from gradscope.stabilizers.classifier_free.base import Remedy
from gradscope.stabilizers.classifier_free.interval import LimitedInterval
from gradscope.stabilizers.classifier_free.predictions import Predictions, PredictionType
from gradscope.stabilizers.classifier_free.projected import Projected
from gradscope.stabilizers.classifier_free.rescaled import Rescaled
from gradscope.stabilizers.classifier_free.zero_star import ZeroStar

__all__ = ["LimitedInterval", "PredictionType", "Predictions", "Projected", "Remedy", "Rescaled", "ZeroStar"]
