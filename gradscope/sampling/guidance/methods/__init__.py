"""Guidance methods: how a guide becomes a vector that shifts a step. One method a file.

A method is a frozen dataclass of settings. ``pull`` gives the vector of one step, and ``enters`` says how it enters the
step. `gradscope.methods` has them by name.

Examples
--------
>>> build("lgd", {"draws": 8})
LGD(draws=8, std=1.0)
"""

from collections.abc import Mapping
from typing import Any

from gradscope.errors import GradscopeError, one_of
from gradscope.sampling.guidance.methods.base import Method
from gradscope.sampling.guidance.methods.classifier import ClassifierGradient, SmoothedGradient
from gradscope.sampling.guidance.methods.dps import DPS
from gradscope.sampling.guidance.methods.freedom import FreeDoM
from gradscope.sampling.guidance.methods.lgd import LGD
from gradscope.sampling.guidance.methods.mpgd import MPGD
from gradscope.sampling.guidance.methods.pigdm import PiGDM
from gradscope.sampling.guidance.methods.recurrence import Recurrent, renoised
from gradscope.sampling.guidance.methods.tfg import TFG
from gradscope.sampling.guidance.methods.universal import Universal
from gradscope.sampling.guidance.view import Pull, View, leaf, pull
from gradscope.settings import make

METHODS: Mapping[str, type[Method]] = {
    "classifier": ClassifierGradient,
    "dps": DPS,
    "lgd": LGD,
    "mpgd": MPGD,
    "pigdm": PiGDM,
    "freedom": FreeDoM,
    "universal": Universal,
    "tfg": TFG,
}
"""The methods, by their name in a configuration."""


def build(name: str, options: Mapping[str, Any]) -> Method:
    """A method by its name, with its settings.

    Raises
    ------
    GradscopeError
        The method or a setting is unknown, or a value is out of range.
    """
    if name not in METHODS:
        raise GradscopeError(f"guidance.method: unknown method {name!r}; {one_of(name, METHODS)}")
    return make(METHODS[name], options, f"guidance.method.{name}", name)


__all__ = [
    "DPS",
    "LGD",
    "METHODS",
    "MPGD",
    "TFG",
    "ClassifierGradient",
    "FreeDoM",
    "Method",
    "PiGDM",
    "Pull",
    "Recurrent",
    "SmoothedGradient",
    "Universal",
    "View",
    "build",
    "leaf",
    "pull",
    "renoised",
]
