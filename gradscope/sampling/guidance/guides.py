"""Questions to a guide: a classifier, an `Energy` or `Measurement`, or a `WeightedSum` of them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

import gradscope.sampling.guidance.objectives as objectives
from gradscope.config import Objective
from gradscope.errors import GradscopeError
from gradscope.models.calls import logits_of
from gradscope.sampling.guidance.energy import Energy
from gradscope.sampling.guidance.measurement import Measurement
from gradscope.sampling.guidance.objectives import Scores
from gradscope.sampling.guidance.weighted_sum import WeightedSum
from gradscope.text import samples_of


class Look(NamedTuple):
    """What a guide sees at one step."""

    x_t: Tensor
    """Noisy samples, ``(n, *sample)``."""
    timestep: float
    x_0: Tensor | None
    """x0-hat, differentiable in x_t as ``classifier_input`` says; None if no guide needs it."""
    seen: Tensor
    """A classifier's input: x_t or x0-hat."""
    seen_at: float
    """Timestep at which a noise-aware classifier is asked about `seen`."""
    samples: range
    """Numbers of the samples in the run."""
    is_first: bool = False
    """Whether inputs and outputs are checked, which the first step does."""


class Answer(NamedTuple):
    """What a guide says of it."""

    scores: Scores
    logits: Tensor | None
    """Logits ``(n, classes)`` of a classifier; None for an energy and for a sum."""


def ask(guide: nn.Module, look: Look, label: Tensor, objective: Objective) -> Answer:
    """The guide's objective at one step, with a graph.

    Parameters
    ----------
    guide
        A classifier, an `Energy` or a `WeightedSum`.
    look
        What it sees.
    label
        Target classes for classifiers, ``(n,)``, int64.
    objective
        What a classifier's logits are turned into.

    Raises
    ------
    GradscopeError
        The guide's output does not fit.
    """
    if isinstance(guide, WeightedSum):
        terms = [ask(term, look, label, objective).scores for term in guide]
        return Answer(objectives.weighted(guide.weights, terms), None)
    if isinstance(guide, Energy):
        assert look.x_0 is not None
        value = guide(look.x_t, look.timestep, look.x_0, look.samples).double()
        return Answer(Scores(value, torch.zeros_like(value, requires_grad=False), value), None)
    logits = (_checked_logits if look.is_first else logits_of)(guide, look.seen, look.seen_at)
    if look.is_first:
        _check_labels(label, logits, objective)
    return Answer(objectives.scores(objective, logits, label), logits)


def needs_x_0(guide: nn.Module) -> bool:
    """Whether a guide is asked about x0-hat whatever the ``classifier_input``: an energy, or a sum with one."""
    return isinstance(guide, Energy) or (isinstance(guide, WeightedSum) and any(map(needs_x_0, guide)))


def without_logits(guide: nn.Module) -> str:
    """What a guide without logits is, in words; empty for a classifier.

    Examples
    --------
    >>> without_logits(Energy(lambda x, t, x_0: x.flatten(1).sum(dim=1)))
    'an energy'
    """
    if isinstance(guide, Energy):
        return "a measurement" if isinstance(guide, Measurement) else "an energy"
    return "a sum of guides" if isinstance(guide, WeightedSum) else ""


def classifiers_in(guide: nn.Module) -> dict[str, nn.Module]:
    """The classifiers in a guide, by their key below it: ``sum.0.guide`` in a sum, the empty one for itself.

    Examples
    --------
    >>> list(classifiers_in(WeightedSum([(1.0, Energy(lambda x, t, x_0: x.sum())), (2.0, nn.Flatten())])))
    ['sum.1.guide']
    """
    if isinstance(guide, WeightedSum):
        return {
            f"sum.{i}.guide.{key}".removesuffix("."): classifier
            for i, term in enumerate(guide)
            for key, classifier in classifiers_in(term).items()
        }
    return {} if isinstance(guide, Energy) else {"": guide}


def _checked_logits(classifier: nn.Module, seen: Tensor, timestep: float) -> Tensor:
    """Logits at the first step, with an error that explains why a classifier does not fit."""
    try:
        return logits_of(classifier, seen, timestep)
    except (GradscopeError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise GradscopeError(
            f"classifier: {type(classifier).__name__} fails on {samples_of(seen.shape[1:])}, as the denoiser makes "
            f"them: {type(error).__name__}: {error}"
        ) from error


def _check_labels(label: Tensor, logits: Tensor, objective: Objective) -> None:
    """Check labels before the first gather: on CUDA an index out of range makes the device unusable."""
    classes = logits.shape[1]
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= classes:
        raise GradscopeError(f"labels: the classifier has classes 0 to {classes - 1}, got {low if low < 0 else high}")
    if objective == "logit" and classes == 2 and low == 0 and not logits[:, 0].any():
        raise GradscopeError(
            "guidance.objective: this guide gives one logit, for class 1; class 0 has no logit to differentiate; take "
            "log_prob"
        )
