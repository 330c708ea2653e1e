"""The cells of a recording from Python: what the grid varies, and the sampler of each cell."""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import nn

from gradscope.config import ClassifierInput, guide_mapping
from gradscope.errors import GradscopeError, one_of
from gradscope.recording.load_guides import Guide, load_guide
from gradscope.recording.load_stabilizers import load_stabilizer
from gradscope.sampling.guidance.guides import without_logits
from gradscope.sampling.sampler import GuidedSampler
from gradscope.stabilizers import Stabilizer
from gradscope.store.dims import CELL_DIMS
from gradscope.text import check_name


@dataclass(frozen=True)
class Cells:
    """A grid of cells around a sampler, which supplies what they share."""

    sampler: GuidedSampler
    guides: Mapping[str, Guide]
    """The guides by name. A module that was given names no classifiers: they were not loaded."""
    classifier_inputs: tuple[ClassifierInput, ...]
    stabilizers: Mapping[str, Stabilizer]
    """The stabilisers by name."""
    guidance_scales: tuple[float, ...]

    @property
    def classes(self) -> dict[nn.Module, tuple[str, ...]]:
        """Names of the classes by classifier, where its card has them."""
        loaded = [classifier for guide in self.guides.values() for classifier in guide.classifiers.values()]
        return {classifier.module: classifier.classes for classifier in loaded if classifier.classes is not None}

    def sampler_of(self, cell: tuple[int, ...]) -> GuidedSampler:
        """The sampler of one cell. Step hooks of the shared sampler are its hooks, too."""
        sampler, guide = copy(self.sampler), [*self.guides.values()][cell[0]]
        # the sampler's own setting is for modules; a loaded classifier shows by its signature what it takes
        by_signature = bool(guide.classifiers or without_logits(guide.module))
        sampler.guidance = replace(
            self.sampler.guidance,
            classifier=guide.module,
            takes_timestep=None if by_signature else self.sampler.guidance.takes_timestep,
            classifier_input=self.classifier_inputs[cell[1]],
            guidance_scale=self.guidance_scales[cell[3]],
        )
        sampler.stabilizer = [*self.stabilizers.values()][cell[2]]
        return sampler


def cells_of(given: Mapping[str, Any], sampler: GuidedSampler, names: tuple[str, str]) -> Cells:
    """The cells of a grid.

    Parameters
    ----------
    given
        Values by dimension, see `gradscope.record`; a dimension that is left out has the sampler's own value.
    sampler
        The sampler.
    names
        Names of the sampler's own classifier and stabiliser.

    Raises
    ------
    GradscopeError
        A dimension, a name or a value is wrong, or a guide cannot be loaded.
    """
    if not isinstance(given, Mapping):
        raise GradscopeError(
            f'cells: takes dimensions and their values, for example {{"guidance_scale": [0, 0.4]}}, got {given!r:.80}'
        )
    for dim in given:
        if dim not in CELL_DIMS:
            raise GradscopeError(f"cells: cannot vary {dim!r}; {one_of(dim, CELL_DIMS)}")
    guidance = sampler.guidance
    guides = {names[0]: Guide(guidance.classifier, {})}
    if "classifier" in given:
        guides = _guides(given["classifier"], sampler.image_shape, sampler.device)
    stabilizers = _stabilizers(given["stabilizer"]) if "stabilizer" in given else {names[1]: sampler.stabilizer}
    inputs = _values(given, "classifier_input", guidance.classifier_input)
    scales = _values(given, "guidance_scale", guidance.guidance_scale)
    for value in inputs:
        replace(guidance, classifier_input=value)  # raises for an unknown one
    for value in scales:
        replace(guidance, guidance_scale=value)
    return Cells(
        sampler,
        guides,
        _distinct(inputs, "classifier_input"),
        stabilizers,
        _distinct([float(value) for value in scales], "guidance_scale"),
    )


def _values(given: Mapping[str, Any], dim: str, own: Any) -> list[Any]:
    """The values of one dimension; text or a number is one value."""
    values = given.get(dim, own)
    if isinstance(values, str | Real):
        return [values]
    if not isinstance(values, Iterable) or not (found := list(values)):
        raise GradscopeError(f"{_at(dim)}: takes a list of values, got {values!r:.80}")
    return found


def _distinct(values: list[Any], dim: str) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise GradscopeError(f"{_at(dim)}: names a value twice: {values}")
    return tuple(values)


def _named(given: Any, dim: str, example: str) -> Mapping[str, Any]:
    """The entries of a dimension whose values have names."""
    if not isinstance(given, Mapping) or not given:
        raise GradscopeError(f"{_at(dim)}: takes names and values, for example {example}, got {given!r:.80}")
    for name in given:
        check_name(name, _at(dim))
    return given


def _guides(given: Any, shape: tuple[int, ...], device: torch.device) -> dict[str, Guide]:
    """The guides by name."""
    found: dict[str, Guide] = {}
    for name, value in _named(given, "classifier", '{"mine": module}').items():
        where = _at("classifier", name)
        if isinstance(value, nn.Module):
            found[name] = Guide(value, {})
        elif isinstance(value, str | Mapping):
            spec = value if isinstance(value, str) else guide_mapping(value, where)
            found[name] = load_guide(spec, where, shape, device)
        else:
            raise GradscopeError(
                f"{where}: takes a torch.nn.Module, gradscope.Energy(function), or a guide as a configuration names "
                f"it, got {_kind(value)}"
            )
    return found


def _stabilizers(given: Any) -> dict[str, Stabilizer]:
    """The stabilisers by name."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        given = dict.fromkeys(_distinct(list(given), "stabilizer"), {})
    found = {}
    for name, value in _named(given, "stabilizer", '{"none": Identity(), "adam": Adam()}, or ["none", "adam"]').items():
        if isinstance(value, Mapping):
            found[name] = load_stabilizer(name, value)
        elif isinstance(value, Stabilizer):
            found[name] = value
        else:
            raise GradscopeError(
                f"{_at('stabilizer', name)}: takes a stabiliser, or its settings as in a configuration, got "
                f"{_kind(value)}"
            )
    return found


def _at(dim: str, name: str | None = None) -> str:
    """The argument's part that a message is about."""
    return f'cells["{dim}"]' + ("" if name is None else f"[{name!r}]")


def _kind(value: Any) -> str:
    return f"the class {value.__name__}; pass an instance" if isinstance(value, type) else f"{value!r:.80}"
