"""What a classifier's guidance differentiates, in a form that holds however convinced the classifier is.

With the margin ``m = z_y - logsumexp(z_k, k != y)`` the log-probability is ``log p_y = log sigmoid(m)``, and its
gradient ``sigmoid(-m) grad m``. Once the classifier is convinced, ``1 - p_y = sigmoid(-m)`` is lost in the rounding of
``p_y``, and a gradient taken through log_softmax keeps the other classes' part alone: for the logits [40, 0, 1, -2] the
target's component is 0 in float32, 1.6e-17 in truth. The gradient of the margin is of order 1 at any m, so it is what
goes through the models; the factor, one number a sample, is multiplied on in float64 afterwards.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gradscope.config import Objective
from gradscope.errors import GradscopeError
from probes.numerics import margin

_LEAST = -300.0
"""Logarithm below which a factor is no longer told apart: its square, too, lies within float64."""


class Scores(NamedTuple):
    """A function of each sample and the factor that makes its gradient the objective's, each ``(n,)``, float64."""

    value: Tensor
    """To differentiate: the margin, or the logit."""
    log_factor: Tensor
    """Without a graph: ``grad objective = exp(log_factor) grad value``."""


def scores(objective: Objective, logits: Tensor, label: Tensor) -> Scores:
    """What to differentiate in place of the objective, and the factor that makes up for it."""
    if objective == "logit":
        value = logits.double().gather(1, label[:, None])[:, 0]
        return Scores(value, value.new_zeros(value.shape))
    value = margin(logits, label)
    return Scores(value, logsigmoid(-value.detach()).clamp(min=_LEAST))


def value(objective: Objective, logits: Tensor, label: Tensor) -> Tensor:
    """The objective itself, ``(n,)``, float64: log p_y in nats, or the target's logit."""
    if objective == "logit":
        return scores(objective, logits, label).value
    return logsigmoid(margin(logits, label))


def slope(value: Tensor, at: Tensor) -> Tensor:
    """Gradient of the sum of what the guide gives, ``(n,)``, with respect to `at`, ``(n, ...)``.

    Raises
    ------
    GradscopeError
        The guide's output has no graph.
    """
    if not value.requires_grad:
        raise GradscopeError(
            "classifier: its output has no graph: does it run under torch.no_grad or inference_mode, or detach? its "
            "gradient guides, so it must have one"
        )
    (gradient,) = torch.autograd.grad(value.sum(), at)
    return gradient


def scaled(gradient: Tensor, log_factor: Tensor) -> Tensor:
    """A gradient ``(n, ...)`` times ``exp(log_factor)``, ``(n,)``, in float64, whose range covers the product."""
    return gradient.double() * log_factor.exp().view(-1, *[1] * (gradient.ndim - 1))
