"""Make the guidance method of a configuration: one of ours, or a class of the user's own."""

from collections.abc import Mapping
from typing import Any

from gradscope.errors import GradscopeError
from gradscope.models import foreign
from gradscope.sampling.guidance.methods import Method, build


def load_method(spec: str | Mapping[str, Mapping[str, Any]]) -> Method:
    """Make a method.

    Parameters
    ----------
    spec
        A name or ``package.module:Class``, alone, or as the one key of a mapping with its settings.

    Raises
    ------
    GradscopeError
        The method or a setting is unknown, a value is out of range, or the class raises an error.

    Examples
    --------
    >>> load_method({"lgd": {"draws": 8}})
    LGD(draws=8, std=1.0)
    """
    name, options = (spec, {}) if isinstance(spec, str) else next(iter(spec.items()))
    if not foreign.is_spec(name):
        return build(name, options)
    made = foreign.made_of(name, options, "guidance.method")
    if not isinstance(made, Method):
        raise GradscopeError(
            f"guidance.method: {name} must give a gradscope.methods.Method, it gave {type(made).__name__}"
        )
    return made
