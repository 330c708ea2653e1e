"""Stabilisers turn the gradients of successive timesteps into updates, which guide.

A stabiliser is a frozen dataclass of settings. Its state is explicit: ``init`` gives the state at x_T, and ``update``
maps a gradient and a state to an update and the next state. No state outlives a trajectory. Remedies for
classifier-free guidance, which also see the two predictions, are in `gradscope.stabilizers.classifier_free`.

Examples
--------
>>> import torch
>>> stabilizer = EMA(beta=0.5)
>>> state = stabilizer.init(torch.zeros(1, 2))
>>> update, state = stabilizer.update(torch.tensor([[4.0, 0.0]]), state)
>>> update.tolist()
[[2.0, 0.0]]
"""

from collections.abc import Mapping
from typing import Any

from gradscope.errors import GradscopeError, one_of
from gradscope.settings import make
from gradscope.stabilizers import classifier_free
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
    "adam_rms": Adam(eps="rms"),
    "ema_0.9": EMA(beta=0.9),
    "ema_0.99": EMA(beta=0.99),
}
"""Settings by name: GradCheck's ADAM (arXiv 2406.17399), the ADAM and EMA of its follow-up (arXiv 2507.00687), and an
ADAM whose division is floored at the sample's root mean square."""


def build(name: str, settings: Mapping[str, Any]) -> Stabilizer:
    """Build the stabiliser of one entry of the configuration.

    Parameters
    ----------
    name
        The entry's name; also the method, unless `settings` has one.
    settings
        ``method``, one of `METHODS` or `PRESETS`, and the method's own settings; a preset takes none.

    Raises
    ------
    GradscopeError
        The method or a setting is unknown, or a value is out of range.

    Examples
    --------
    >>> build("slow", {"method": "ema", "beta": 0.99})
    EMA(beta=0.99, bias_correction=False)
    """
    options = {key: value for key, value in settings.items() if key != "method"}
    method = str(settings.get("method", name))
    where = f"stabilizers.{name}"
    if method in PRESETS:
        if options:
            raise GradscopeError(f"{where}: {method} is a preset without settings, got {', '.join(options)}")
        return PRESETS[method]
    if method not in METHODS:
        raise GradscopeError(f"{where}: unknown stabilizer {method!r}; {one_of(method, [*METHODS, *PRESETS])}")
    return make(METHODS[method], options, where, method)


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
    "classifier_free",
]
