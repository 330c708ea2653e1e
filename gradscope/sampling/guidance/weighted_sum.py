"""A sum of guides with weights, as one guide."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError


class WeightedSum(nn.ModuleList):
    """``sum_k weight_k * objective_k``: guidance follows the weighted sum of the guides' gradients.

    The objective of a classifier is its log-probability or logit of the target class, that of an `Energy` its value.
    All of them share one ``classifier_input``.

    Parameters
    ----------
    terms
        Pairs of a weight and a guide: a classifier, an `Energy`, or another sum. Weights are finite and not 0; below 0
        guidance descends.

    Raises
    ------
    GradscopeError
        There are no terms, or one of them is not such a pair.

    Examples
    --------
    >>> def loss(x, t, x_0):
    ...     return x.flatten(1).abs().sum(dim=1)
    >>> guide = WeightedSum([(1.0, classifier), (-0.5, gradscope.Energy(loss))])
    >>> guide.weights.tolist()
    [1.0, -0.5]
    """

    weights: Tensor

    def __init__(self, terms: Iterable[tuple[float, nn.Module]]) -> None:
        pairs = [_pair(term, i) for i, term in enumerate(terms)]
        if not pairs:
            raise GradscopeError("sum: at least one guide is needed, got none")
        super().__init__([guide for _, guide in pairs])
        # a buffer, so that the hash of the guide's weights covers them
        self.register_buffer("weights", torch.tensor([weight for weight, _ in pairs], dtype=torch.float64))


def _pair(term: Any, i: int) -> tuple[float, nn.Module]:
    if not isinstance(term, tuple | list) or len(term) != 2:
        raise GradscopeError(f"sum.{i}: must be a pair (weight, guide), got {term!r:.80}")
    weight, guide = term
    if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight) or weight == 0:
        raise GradscopeError(f"sum.{i}.weight: must be a finite number and not 0, got {weight!r}")
    if not isinstance(guide, nn.Module):
        raise GradscopeError(
            f"sum.{i}.guide: must be a torch.nn.Module, or gradscope.Energy(function); got {type(guide).__name__}"
        )
    return float(weight), guide
