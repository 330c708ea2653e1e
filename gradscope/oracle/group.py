"""The numbers of a group of cells, which differ in the stabiliser alone, by the store's variables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gradscope.intervals import wilson
from gradscope.models.calls import frozen, logits_of
from gradscope.oracle.cell import Scored, control, guided
from gradscope.oracle.finals import Finals, Floor, coverage, floor, kl_score
from gradscope.oracle.methods import AtInput
from gradscope.oracle.place import Place
from gradscope.oracle.scores import Score, along_t, by_sample, errors
from gradscope.stabilizers import Stabilizer

PATHS = ("control", "guided")
Values = dict[str, NDArray[Any]]
_CLEAN = 1000
"""Clean samples of a guide's accuracy."""


def cells(place: Place, kind: str, at: AtInput, stabilizers: Mapping[str, Stabilizer]) -> Values:
    """All variables of the cells of one guide and method; the first dimension is the stabiliser."""
    guides = [place.guide(kind, replicate) for replicate in range(place.config.replicates)]
    common = control(place, guides, at, stabilizers)
    made = []
    for name, stabilizer in stabilizers.items():
        own = guided(place, guides, at, stabilizer)
        made.append(
            _scores("gradient", common.gradient, own.gradient)
            | _scores("update", common.updates[name], own.update)
            | {"dead_fraction": np.stack([_dead(common.gradient), _dead(own.gradient)])}
            | _finals(own.finals, place)
        )
    return {name: np.stack([cell[name] for cell in made]) for name in made[0]}


def of_guide(place: Place, kind: str) -> Values:
    """The variables of a guide, over replicates."""
    label = torch.arange(_CLEAN) % place.mixture.classes
    clean = place.mixture.draw(label, torch.Generator().manual_seed(place.config.seed)).float()
    accuracies = [_accuracy(place.guide(kind, r), clean, label) for r in range(place.config.replicates)]
    return {"guide_accuracy": np.array(accuracies)}


def of_mixture(place: Place) -> Values:
    """The variables of a mixture."""
    exact = _finals([place.finals(place.reference.final)], place)
    bottom = floor(place.mixture, place.label, place.config.seed)
    return (
        {"strength": np.array(place.reference.shift)}
        | {f"exact_{name}": exact[name] for name in Floor._fields}
        | {f"floor_{name}": np.array(score[0]) for name, score in bottom._asdict().items()}
        | {f"floor_{name}_interval": np.array(score[1:]) for name, score in bottom._asdict().items()}
    )


def _scores(what: str, at_control: Scored, on_guided: Scored) -> Values:
    """The scores of gradients or updates."""
    both = [at_control.moments, on_guided.moments]
    found: Values = {}
    for name in ("cosine", "norm_ratio"):
        found |= _named(f"{what}_{name}", [along_t(moments)[name] for moments in both])
    assert at_control.place is not None
    for name, score in errors(at_control.moments, at_control.place).items():
        found |= {key: value[0] for key, value in _named(f"{what}_{name}", [score]).items()}
    return found | {f"mean_{what}_cosine": np.stack([by_sample(moments.cosine).mean(axis=0) for moments in both])}


def _named(name: str, scores: Sequence[Score]) -> Values:
    """Estimates and intervals of paths, ``(paths, timesteps)`` and ``(paths, timesteps, 2)``."""
    return {
        name: np.stack([value for value, _, _ in scores]),
        f"{name}_interval": np.stack([np.stack([low, high], axis=-1) for _, low, high in scores]),
    }


def _dead(gradient: Scored) -> NDArray[np.float64]:
    return (gradient.moments.square == 0).mean(axis=(1, 2))


def _finals(found: Sequence[Finals], place: Place) -> Values:
    """Scores of the final samples of all replicates; a sample's values are means over them."""
    right = np.stack([one.right for one in found])
    n = right.shape[1]
    components = np.stack([one.component for one in found])
    scores = {
        "accuracy": (right.mean(), *wilson(right.mean() * n, n)),
        "kl": kl_score(np.mean([one.divergence for one in found], axis=0)),
        "coverage": coverage(components, place.label.numpy(), place.mixture.each),
    }
    values: Values = {"right": right.astype(np.uint8)}
    for name, (value, low, high) in scores.items():
        values |= {name: np.array(value), f"{name}_interval": np.array([low, high])}
    return values


def _accuracy(guide: nn.Module, clean: torch.Tensor, label: torch.Tensor) -> float:
    with frozen(guide), torch.no_grad():
        return float((logits_of(guide, clean).argmax(dim=1) == label).double().mean())
