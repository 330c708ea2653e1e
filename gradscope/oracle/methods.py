"""The methods and stabilisers of a leaderboard, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from gradscope import stabilizers
from gradscope.config import ClassifierInput
from gradscope.errors import GradscopeError, one_of
from gradscope.recording.load_methods import load_method
from gradscope.recording.load_stabilizers import load_stabilizer
from gradscope.sampling.guidance.methods import Method
from gradscope.stabilizers import Stabilizer


@dataclass(frozen=True)
class AtInput:
    """A guidance method and what its guide sees."""

    method: Method
    classifier_input: ClassifierInput


def load_method_at(name: str, settings: Mapping[str, Any]) -> AtInput:
    """Make the method of one entry of the configuration.

    Parameters
    ----------
    name
        ``METHOD@INPUT``, or ``METHOD`` for the first input at which the method is defined.
    settings
        ``method`` and ``classifier_input``, which take the place of the name's parts, and the method's own settings.

    Raises
    ------
    GradscopeError
        The method, an input or a setting is unknown, or the class raises an error.

    Examples
    --------
    >>> load_method_at("lgd@x0", {"draws": 8})
    AtInput(method=LGD(draws=8, std=1.0), classifier_input='x0')
    """
    head, _, tail = name.partition("@")
    own = {key: value for key, value in settings.items() if key not in ("method", "classifier_input")}
    try:
        method = load_method({str(settings.get("method", head)): own})
    except GradscopeError as error:
        raise GradscopeError(f"methods.{name}: {error}") from error
    given = str(settings.get("classifier_input", tail or method.inputs[0]))
    if given not in get_args(ClassifierInput) or given not in method.inputs:
        raise GradscopeError(f"methods.{name}: is not defined at {given!r}; {one_of(given, method.inputs)}")
    return AtInput(method, given)


def load_stabilizers(entries: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Stabilizer]:
    """Make the stabilisers of a configuration; None stands for all methods and presets, each setting once.

    Examples
    --------
    >>> list(load_stabilizers({"none": {}, "slow": {"method": "ema", "beta": 0.99}}))
    ['none', 'slow']
    """
    if entries is not None:
        return {name: load_stabilizer(name, settings) for name, settings in entries.items()}
    found: dict[str, Stabilizer] = {}
    for name, made in (
        {name: kind() for name, kind in stabilizers.METHODS.items()} | dict(stabilizers.PRESETS)
    ).items():
        if made not in found.values():
            found[name] = made
    return found
