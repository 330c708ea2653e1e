"""Make the stabiliser of one entry of a configuration: a method of ours, or a class of the user's own."""

from collections.abc import Mapping
from typing import Any

from gradscope.errors import GradscopeError
from gradscope.models import foreign
from gradscope.stabilizers import Stabilizer, build


def load_stabilizer(name: str, settings: Mapping[str, Any]) -> Stabilizer:
    """Make a stabiliser. ``method: package.module:Class`` takes a class of the user's own, with its settings.

    Parameters
    ----------
    name
        The entry's name.
    settings
        See `gradscope.stabilizers.build`.

    Raises
    ------
    GradscopeError
        The method or a setting is unknown, a value is out of range, or the class raises an error.

    Examples
    --------
    >>> load_stabilizer("mine", {"method": "gradscope.stabilizers:EMA", "beta": 0.5})
    EMA(beta=0.5, bias_correction=False)
    """
    method = str(settings.get("method", name))
    if not foreign.is_spec(method):
        return build(name, settings)
    where = f"stabilizers.{name}"
    made = foreign.made_of(method, {key: value for key, value in settings.items() if key != "method"}, where)
    if not isinstance(made, Stabilizer):
        raise GradscopeError(
            f"{where}: {method} must give a gradscope.stabilizers.Stabilizer, it gave {type(made).__name__}"
        )
    return made
