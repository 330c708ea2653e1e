"""The scores of cells: one guide and method on one mixture, with each of the stabilisers.

Gradients and updates are scored on two paths:

- ``control``: the x_t of the unguided trajectories, which all cells share, so that their scores are comparable. The
  stabilisers get the gradients of these trajectories in their order.
- ``guided``: the x_t of the trajectory that the cell's own updates guide.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.models.calls import frozen
from gradscope.oracle.finals import Finals
from gradscope.oracle.methods import AtInput
from gradscope.oracle.place import Place
from gradscope.oracle.scores import AtOnePlace, Floats, Moments
from gradscope.sampling.seeds import sample_seeds
from gradscope.stabilizers import Stabilizer
from probes.numerics import rows

_DRAWS = 2**16
"""Added to the seed, for each replicate, of the method's own noise."""


class Scored(NamedTuple):
    """What is scored of gradients or updates on one path."""

    moments: Moments
    place: AtOnePlace | None
    """None where replicates do not share x_t."""


class Control(NamedTuple):
    """What is scored at the x_t of the control."""

    gradient: Scored
    updates: dict[str, Scored]
    """By stabiliser."""


class Guided(NamedTuple):
    """What is scored on trajectories that a cell guides."""

    gradient: Scored
    update: Scored
    finals: list[Finals]
    """One for each replicate."""


class _Tally:
    """Collects what the scores need of vectors, step by step."""

    def __init__(self) -> None:
        self._steps: list[tuple[Tensor, ...]] = []

    def add(self, vectors: Sequence[Tensor], exact: Tensor) -> None:
        """One step of all replicates, at the same x_t."""
        wide, true = torch.stack([rows(vector) for vector in vectors]), rows(exact)
        square, exact_square = wide.square().sum(dim=2), true.square().sum(dim=1).expand(len(wide), -1)
        product = torch.einsum("rnd,nd->rn", wide, true)
        mean_square = wide.mean(dim=0).square().sum(dim=1)
        # 0 / 0, NaN, for a vector without direction
        cosine = product / (square.sqrt() * exact_square.sqrt())
        self._steps.append((cosine, square, exact_square, product, mean_square))

    def scored(self) -> Scored:
        cosine, square, exact, product, mean = (torch.stack(part).numpy() for part in zip(*self._steps, strict=True))
        return Scored(Moments(cosine, square, exact), AtOnePlace(product, mean))


def control(place: Place, guides: Sequence[nn.Module], at: AtInput, stabilizers: Mapping[str, Stabilizer]) -> Control:
    """Score gradients and updates at the x_t of the control.

    Parameters
    ----------
    place
        The mixture.
    guides
        The guide of each replicate.
    at
        The method.
    stabilizers
        By name.
    """
    samplers = [place.sampler(guide, at) for guide in guides]
    path, config = place.control, place.config
    seeds = [
        sample_seeds(config.seed + _DRAWS * (replicate + 1), range(config.samples)).tolist()
        for replicate in range(len(guides))
    ]
    gradients, updates = _Tally(), {name: _Tally() for name in stabilizers}
    first = path.x_t[0].double()
    states = {name: [stabilizer.init(first) for _ in guides] for name, stabilizer in stabilizers.items()}
    with frozen(place.denoiser, *guides):
        for times, x_t, exact in zip(place.schedule.times, path.x_t, path.exact, strict=True):
            found = [
                _finite(sampler.evaluate(x_t, place.label, times, place.schedule, own).gradient)
                for sampler, own in zip(samplers, seeds, strict=True)
            ]
            gradients.add(found, exact)
            for name, stabilizer in stabilizers.items():
                made = [stabilizer.update(*pair) for pair in zip(found, states[name], strict=True)]
                states[name] = [state for _, state in made]
                updates[name].add([update for update, _ in made], exact)
    return Control(gradients.scored(), {name: tally.scored() for name, tally in updates.items()})


def guided(place: Place, guides: Sequence[nn.Module], at: AtInput, stabilizer: Stabilizer) -> Guided:
    """Score gradients and updates along the trajectories that they guide, and the final samples.

    Parameters
    ----------
    place
        The mixture.
    guides
        The guide of each replicate.
    at
        The method.
    stabilizer
        The stabiliser.
    """
    gradients, updates, ends = [], [], []
    for guide in guides:
        sampler = place.sampler(guide, at, stabilizer, place.scale(at))
        gradient, update = _Tally(), _Tally()
        for step in place.steps(sampler):
            last = step.prev_sample
            if step.repeat:
                continue  # a repeated step counts once
            exact = place.exact_gradient(step)
            gradient.add([_finite(step.gradient)], exact)
            assert step.update is not None
            update.add([step.update], exact)
        assert last is not None
        gradients.append(gradient.scored().moments)
        updates.append(update.scored().moments)
        ends.append(place.finals(last))
    return Guided(Scored(_joined(gradients), None), Scored(_joined(updates), None), ends)


def _joined(parts: Sequence[Moments]) -> Moments:
    """One replicate after the other."""
    joined: list[Floats] = [np.concatenate(values, axis=1) for values in zip(*parts, strict=True)]
    return Moments(*joined)


def _finite(gradient: Tensor) -> Tensor:
    """The gradient, 0 for samples in which it is not finite: the sampler leaves these unguided."""
    finite = torch.isfinite(gradient).flatten(1).all(dim=1)
    return gradient.where(finite.view(-1, *[1] * (gradient.ndim - 1)), 0)
