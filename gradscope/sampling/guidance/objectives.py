"""The objectives of classifier guidance, in a form that stays exact for saturated classifiers.

With the margin ``m = z_y - logsumexp(z_k, k != y)`` the log-probability is ``log p_y = log sigmoid(m)``, and its
gradient ``sigmoid(-m) grad m``. For a saturated classifier, ``1 - p_y = sigmoid(-m)`` is lost in the rounding of
``p_y``, and a gradient through log_softmax keeps only the part of the other classes: for the logits [40, 0, 1, -2] the
target's component is 1.6e-17, but 0 in float32. The gradient of the margin is of order 1 at any m, so the models
differentiate the margin, and the factor, one number per sample, is applied afterwards in float64.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gradscope.config import Objective
from gradscope.errors import GradscopeError
from probes.numerics import margin

_LEAST = -300.0
"""Smallest logarithm of a factor. Its square still lies within float64."""


class Scores(NamedTuple):
    """A function to differentiate, and the factor from its gradient to the objective's; each ``(n,)``, float64."""

    value: Tensor
    """The margin, or the logit; with a graph."""
    log_factor: Tensor
    """``grad objective = exp(log_factor) grad value``; without a graph."""


def scores(objective: Objective, logits: Tensor, label: Tensor) -> Scores:
    """The function to differentiate in place of the objective, and its factor."""
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
    """Gradient of the sum of `value`, ``(n,)``, with respect to `at`, ``(n, ...)``.

    Raises
    ------
    GradscopeError
        `value` has no graph.
    """
    if not value.requires_grad:
        raise GradscopeError(
            "classifier: its output has no graph to differentiate: does it run under torch.no_grad or inference_mode, "
            "or detach?"
        )
    (gradient,) = torch.autograd.grad(value.sum(), at)
    return gradient


def scaled(gradient: Tensor, log_factor: Tensor) -> Tensor:
    """A gradient ``(n, ...)`` times ``exp(log_factor)``, ``(n,)``, in float64, whose range includes the product."""
    return gradient.double() * log_factor.exp().view(-1, *[1] * (gradient.ndim - 1))
