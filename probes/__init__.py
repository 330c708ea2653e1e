"""Measure one sampling step.

A probe turns a `GuidedStep` into named values, one row per sample; `CATALOGUE` describes each of them. Names are loaded
on first use, so that the catalogue needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.attribution import Attribution
    from probes.belief import Belief
    from probes.catalogue import CATALOGUE
    from probes.classifier_free import ConditionalParts, GuidanceWeight
    from probes.cosines import Cosine, CosineBetween, FirstCosine, LagCosine, ScoreCosine
    from probes.energy import ObjectiveValue
    from probes.fractions import SOURCES, FiniteFraction, Fractions
    from probes.groups import NAMED
    from probes.layers import Layers
    from probes.norms import Norm
    from probes.probe import Probe, attach_all, check_needs
    from probes.reference import ReferenceCosine
    from probes.sensitivity import GradientLipschitz
    from probes.snr import GradientSNR
    from probes.spectrum import Spectrum
    from probes.step import GuidedStep
    from probes.strength import EffectiveStrength, NoiseAdded, Unguided
    from probes.tensors import Tensor
    from probes.trace import Trace
    from probes.variable import IMAGE_DIMS, TENSOR, Coordinate, Variable

_MODULES = {
    "Attribution": "attribution",
    "Belief": "belief",
    "CATALOGUE": "catalogue",
    "ConditionalParts": "classifier_free",
    "Coordinate": "variable",
    "Cosine": "cosines",
    "CosineBetween": "cosines",
    "EffectiveStrength": "strength",
    "FiniteFraction": "fractions",
    "FirstCosine": "cosines",
    "Fractions": "fractions",
    "GradientLipschitz": "sensitivity",
    "GradientSNR": "snr",
    "GuidanceWeight": "classifier_free",
    "GuidedStep": "step",
    "IMAGE_DIMS": "variable",
    "LagCosine": "cosines",
    "Layers": "layers",
    "NAMED": "groups",
    "NoiseAdded": "strength",
    "Norm": "norms",
    "ObjectiveValue": "energy",
    "Probe": "probe",
    "ReferenceCosine": "reference",
    "SOURCES": "fractions",
    "ScoreCosine": "cosines",
    "Spectrum": "spectrum",
    "TENSOR": "variable",
    "Tensor": "tensors",
    "Trace": "trace",
    "Unguided": "strength",
    "Variable": "variable",
    "attach_all": "probe",
    "check_needs": "probe",
}

__all__ = [
    "Attribution",
    "Belief",
    "CATALOGUE",
    "ConditionalParts",
    "Coordinate",
    "Cosine",
    "CosineBetween",
    "EffectiveStrength",
    "FiniteFraction",
    "FirstCosine",
    "Fractions",
    "GradientLipschitz",
    "GradientSNR",
    "GuidanceWeight",
    "GuidedStep",
    "IMAGE_DIMS",
    "LagCosine",
    "Layers",
    "NAMED",
    "NoiseAdded",
    "Norm",
    "ObjectiveValue",
    "Probe",
    "ReferenceCosine",
    "SOURCES",
    "ScoreCosine",
    "Spectrum",
    "TENSOR",
    "Tensor",
    "Trace",
    "Unguided",
    "Variable",
    "attach_all",
    "check_needs",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    return getattr(import_module(f"probes.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
