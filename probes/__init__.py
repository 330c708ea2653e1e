"""What is measured at one sampling step.

A probe turns a `GuidedStep` into named values, one row a sample. The groups of `NAMED` are the names that a run's
configuration may list under ``probes``.
"""

from collections.abc import Callable, Mapping

from probes.belief import Belief
from probes.cosines import Cosine, ScoreCosine
from probes.fractions import FiniteFraction, Fractions
from probes.norms import Norm
from probes.probe import IMAGE_DIMS, Probe, Variable, check_needs
from probes.sensitivity import GradientLipschitz
from probes.step import GuidedStep
from probes.strength import EffectiveStrength
from probes.tensors import Tensor
from probes.trace import Trace

NAMED: Mapping[str, Callable[[], list[Probe]]] = {
    "gradient": lambda: [Tensor("gradient")],
    "update": lambda: [Tensor("update")],
    "direction": lambda: [Tensor("direction")],
    "x_t": lambda: [Tensor("x_t")],
    "pred_original_sample": lambda: [Tensor("pred_original_sample")],
    "norms": lambda: [Norm("gradient"), Norm("update")],
    "cosines": lambda: [Cosine("gradient"), Cosine("update"), ScoreCosine()],
    "strength": lambda: [EffectiveStrength()],
    "belief": lambda: [Belief()],
    "fractions": lambda: [Fractions()],
    "sensitivity": lambda: [GradientLipschitz()],
}

__all__ = [
    "IMAGE_DIMS",
    "NAMED",
    "Belief",
    "Cosine",
    "EffectiveStrength",
    "FiniteFraction",
    "Fractions",
    "GradientLipschitz",
    "GuidedStep",
    "Norm",
    "Probe",
    "ScoreCosine",
    "Tensor",
    "Trace",
    "Variable",
    "check_needs",
]
