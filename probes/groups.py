"""The names that a configuration may list under ``probes``, each with the probes that it stands for."""

from collections.abc import Callable, Mapping
from inspect import signature

from probes.attribution import Attribution
from probes.belief import Belief
from probes.classifier_free import ConditionalParts, GuidanceWeight
from probes.cosines import Cosine, CosineBetween, FirstCosine, LagCosine, ScoreCosine
from probes.energy import ObjectiveValue
from probes.fractions import Fractions
from probes.layers import Layers
from probes.norms import Norm
from probes.probe import Probe
from probes.reference import ReferenceCosine
from probes.sensitivity import GradientLipschitz
from probes.snr import GradientSNR
from probes.spectrum import Spectrum
from probes.strength import EffectiveStrength, NoiseAdded, Unguided
from probes.tensors import Tensor


def _alone(kind: type[Probe]) -> Callable[..., list[Probe]]:
    """A group of one probe that takes the probe's options."""

    def make(**options: object) -> list[Probe]:
        return [kind(**options)]

    make.__signature__ = signature(kind)  # type: ignore[attr-defined]
    return make


NAMED: Mapping[str, Callable[..., list[Probe]]] = {
    "gradient": lambda: [Tensor("gradient")],
    "update": lambda: [Tensor("update")],
    "direction": lambda: [Tensor("direction")],
    "x_t": lambda: [Tensor("x_t")],
    "pred_original_sample": lambda: [Tensor("pred_original_sample")],
    "norms": lambda: [Norm("gradient"), Norm("update")],
    "cosines": lambda: [
        Cosine("gradient"),
        Cosine("update"),
        LagCosine(),
        FirstCosine(),
        CosineBetween("update", "gradient"),
        ScoreCosine(),
    ],
    "strength": lambda: [EffectiveStrength(), CosineBetween("shift", "direction"), NoiseAdded(), Unguided()],
    "belief": lambda: [Belief()],
    "classifier_free": lambda: [GuidanceWeight(), ConditionalParts()],
    "energy": lambda: [ObjectiveValue()],
    "fractions": lambda: [Fractions()],
    "sensitivity": lambda: [GradientLipschitz()],
    "spectrum": _alone(Spectrum),
    "reference": _alone(ReferenceCosine),
    "snr": _alone(GradientSNR),
    "attribution": _alone(Attribution),
    "layers": _alone(Layers),
}
"""Functions that make the probes of each name; their keyword arguments are the options."""
