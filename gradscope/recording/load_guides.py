"""Load the guides of a configuration: classifiers, energies and weighted sums."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradscope.config import EnergyGuide, MeasurementGuide, SumGuide
from gradscope.models import foreign
from gradscope.models.classifiers import Classifier, load_classifier
from gradscope.sampling.guidance.energy import Energy
from gradscope.sampling.guidance.measurement import Measurement
from gradscope.sampling.guidance.weighted_sum import WeightedSum


@dataclass(frozen=True)
class Guide:
    """A loaded guide."""

    module: nn.Module
    """A classifier, an `Energy` or a `WeightedSum`."""
    classifiers: dict[str, Classifier]
    """The classifiers in it by configuration key: itself, those of a sum, or none."""

    @property
    def classifier(self) -> Classifier | None:
        """The guide itself, if it is a classifier."""
        return next((c for c in self.classifiers.values() if c.module is self.module), None)


def load_guide(spec: Any, where: str, image_shape: tuple[int, ...], device: torch.device | str = "cpu") -> Guide:
    """Load a guide.

    Parameters
    ----------
    spec
        A value of the configuration's key ``classifiers.NAME``.
    where
        That key, for errors.
    image_shape
        Shape of a sample.

    Raises
    ------
    GradscopeError
        Something cannot be loaded, or does not take such samples.
    """
    if isinstance(spec, EnergyGuide):
        return Guide(_energy(spec, where).to(device), {})
    if isinstance(spec, MeasurementGuide):
        operator = _callable(spec.measurement, f"{where}.measurement")
        target = foreign.call(spec.target, f"{where}.target")
        return Guide(Measurement(operator, target, spec.noise_std, name=where).to(device), {})
    if isinstance(spec, SumGuide):
        terms = [load_guide(t.guide, f"{where}.sum.{i}.guide", image_shape, device) for i, t in enumerate(spec.sum)]
        whole = WeightedSum((t.weight, loaded.module) for t, loaded in zip(spec.sum, terms, strict=True))
        return Guide(whole.to(device), {key: c for loaded in terms for key, c in loaded.classifiers.items()})
    classifier = load_classifier(spec, where, image_shape, device)
    return Guide(classifier.module, {where: classifier})


def _energy(spec: EnergyGuide, where: str) -> Energy:
    energy = _callable(spec.energy, f"{where}.energy")
    target = spec.target
    if isinstance(target, str):
        return Energy(energy, foreign.call(target, f"{where}.target"), name=where)
    return Energy(energy, None if target is None else torch.tensor(target), name=where)


def _callable(spec: str, where: str) -> Callable[..., Any]:
    """What `spec` names; of a class, an instance."""
    found = foreign.load_callable(spec, where)
    return foreign.call(spec, where) if isinstance(found, type) else found
