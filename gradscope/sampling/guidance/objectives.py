"""The objectives of guidance, in a form that stays exact for saturated classifiers.

With the margin ``m = z_y - logsumexp(z_k, k != y)`` the log-probability is ``log p_y = log sigmoid(m)``, and its
gradient ``sigmoid(-m) grad m``. For a saturated classifier, ``1 - p_y = sigmoid(-m)`` is lost in the rounding of
``p_y``, and a gradient through log_softmax keeps only the part of the other classes: for the logits [40, 0, 1, -2] the
target's component is 1.6e-17, but 0 in float32. The gradient of the margin is of order 1 at any m, so the models
differentiate the margin, and the factor, one number per sample, is applied afterwards in float64.
"""

import math
from collections.abc import Sequence
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
    """A function to differentiate, the factor from its gradient to the objective's, and the objective itself.

    Each is ``(n,)``, float64.
    """

    value: Tensor
    """The margin, the logit, or the value of an energy; with a graph."""
    log_factor: Tensor
    """``grad objective = exp(log_factor) grad value``; without a graph."""
    objective: Tensor
    """log p_y in nats, the logit, or the value of an energy; with a graph."""


def scores(objective: Objective, logits: Tensor, label: Tensor) -> Scores:
    """The function to differentiate in place of the objective, and its factor."""
    if objective == "logit":
        value = logits.double().gather(1, label[:, None])[:, 0]
        return Scores(value, value.new_zeros(value.shape), value)
    value = margin(logits, label)
    return Scores(value, logsigmoid(-value.detach()).clamp(min=_LEAST), logsigmoid(value))


def value(objective: Objective, logits: Tensor, label: Tensor) -> Tensor:
    """The objective itself, ``(n,)``, float64: log p_y in nats, or the target's logit."""
    return scores(objective, logits, label).objective


def weighted(weights: Tensor, terms: Sequence[Scores]) -> Scores:
    """The scores of ``sum_k weights[k] * objective_k``.

    The largest ``|weight_k| exp(log_factor_k)`` of each sample is the factor of the sum, so that terms that are all
    saturated keep their gradient.
    """
    logs = torch.stack([term.log_factor for term in terms]) + weights.abs().log()[:, None].to(terms[0].log_factor)
    log_factor = logs.amax(dim=0)
    shares = (logs - log_factor).exp() * weights.sign()[:, None].to(logs)
    value = sum(share * term.value for share, term in zip(shares, terms, strict=True))
    objective = sum(weight * term.objective for weight, term in zip(weights, terms, strict=True))
    return Scores(value, log_factor, objective)


def log_mean_exp(terms: Sequence[Scores]) -> Scores:
    """The scores of ``log 1/K sum_k exp(objective_k)``."""
    objectives = torch.stack([term.objective for term in terms])
    logs = objectives.detach().log_softmax(dim=0) + torch.stack([term.log_factor for term in terms])
    log_factor = logs.amax(dim=0)
    shares = (logs - log_factor).exp()
    value = sum(share * term.value for share, term in zip(shares, terms, strict=True))
    assert isinstance(value, Tensor)
    return Scores(value, log_factor, objectives.logsumexp(dim=0) - math.log(len(terms)))


def slope(value: Tensor, at: Tensor) -> Tensor:
    """Gradient of the sum of `value`, ``(n,)``, with respect to `at`, ``(n, ...)``.

    Raises
    ------
    GradscopeError
        `value` has no graph.
    """
    return slopes(value, [at])[0]


def slopes(value: Tensor, at: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of the sum of `value`, ``(n,)``, with respect to several tensors, by one backward pass.

    Raises
    ------
    GradscopeError
        `value` has no graph to one of them.
    """
    found = torch.autograd.grad(value.sum(), at, allow_unused=True) if value.requires_grad else [None] * len(at)
    gradients = [gradient for gradient in found if gradient is not None]
    if len(gradients) < len(at):
        raise GradscopeError(
            "classifier: its output has no graph to differentiate: does it run under torch.no_grad or inference_mode, "
            "or detach?"
        )
    return gradients


def scaled(gradient: Tensor, log_factor: Tensor) -> Tensor:
    """A gradient ``(n, ...)`` times ``exp(log_factor)``, ``(n,)``, in float64, whose range includes the product."""
    return gradient.double() * log_factor.exp().view(-1, *[1] * (gradient.ndim - 1))
