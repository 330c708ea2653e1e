"""Stabilisers: what is done to the gradients of successive timesteps before they guide.

A stabiliser is a frozen dataclass of settings. Its state is explicit: ``init`` gives the state at x_T, ``update`` maps
a gradient and a state to an update and the next state, and nothing outlives a trajectory.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gradscope.errors import GradscopeError, one_of
from gradscope.stabilizers.adagrad import AdaGrad
from gradscope.stabilizers.adam import Adam
from gradscope.stabilizers.amsgrad import AMSGrad
from gradscope.stabilizers.base import Stabilizer
from gradscope.stabilizers.clipping import Clipping
from gradscope.stabilizers.ema import EMA
from gradscope.stabilizers.identity import Identity
from gradscope.stabilizers.lion import Lion
from gradscope.stabilizers.nadam import NAdam
from gradscope.stabilizers.nesterov import Nesterov
from gradscope.stabilizers.rmsprop import RMSProp

METHODS: Mapping[str, type[Stabilizer]] = {
    "none": Identity,
    "ema": EMA,
    "adam": Adam,
    "nesterov": Nesterov,
    "rmsprop": RMSProp,
    "adagrad": AdaGrad,
    "amsgrad": AMSGrad,
    "nadam": NAdam,
    "lion": Lion,
    "clipping": Clipping,
}
PRESETS: Mapping[str, Stabilizer] = {
    "adam_paper": Adam(),
    "adam_followup": Adam(eps=1e-4, bias_correction=False),
    "ema_0.9": EMA(beta=0.9),
    "ema_0.99": EMA(beta=0.99),
}
"""Published settings: GradCheck's default ADAM (arXiv 2406.17399) and its follow-up's (arXiv 2507.00687)."""


def build(name: str, settings: Mapping[str, Any]) -> Stabilizer:
    """The stabiliser of one entry of the configuration.

    ``method`` chooses the method, by default the entry's name: a method, or a preset whose settings are then fixed.

    Raises
    ------
    GradscopeError
        An unknown method or setting, or a value out of range.
    """
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if k != "method"}
    method = str(settings.get("method", name))
    where = f"stabilizers.{name}"
    if method in PRESETS:
        if options:
            raise GradscopeError(f"{where}: {method} is a preset without settings, got {', '.join(options)}")
        return PRESETS[method]
    if method not in METHODS:
        raise GradscopeError(f"{where}: unknown stabilizer {method!r}; {one_of(method, [*METHODS, *PRESETS])}")
    fields = METHODS[method].__dataclass_fields__
    for key in options:
        if key not in fields:
            possible = one_of(key, fields) if fields else "it has none"
            raise GradscopeError(f"{where}.{key}: {method} has no such setting; {possible}")
    try:
        return TypeAdapter(METHODS[method]).validate_python(options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([where, *map(str, first["loc"])])
        message = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise GradscopeError(f"{key}: {message}{got}") from None


__all__ = [
    "EMA",
    "METHODS",
    "PRESETS",
    "AMSGrad",
    "AdaGrad",
    "Adam",
    "Clipping",
    "Identity",
    "Lion",
    "NAdam",
    "Nesterov",
    "RMSProp",
    "Stabilizer",
    "build",
]
