"""Check code that ``package.module:function`` names."""

import inspect
from collections.abc import Mapping
from typing import Any

from gradscope.checking.check import check
from gradscope.checking.checked import Checked
from gradscope.checking.loop import check_loop
from gradscope.errors import GradscopeError, one_of
from gradscope.models import foreign


def check_code(spec: str) -> Checked:
    """Call a function without arguments and check what it returns.

    Parameters
    ----------
    spec
        ``package.module:function``. It returns a mapping of the arguments of `check`, or, if it has ``loop``, of
        `check_loop`.

    Raises
    ------
    GradscopeError
        There is no such function, or it returns something else.
    """
    if not foreign.is_spec(spec):
        raise GradscopeError(f"check: takes package.module:function, got {spec!r:.80}")
    given = foreign.call(spec, "check")
    if not isinstance(given, Mapping):
        raise GradscopeError(
            f"check: {spec} must return the arguments of gradscope.check by name, a dict; got {type(given).__name__}"
        )
    function: Any = check_loop if "loop" in given else check
    known = inspect.signature(function).parameters
    if unknown := [name for name in given if name not in known]:
        raise GradscopeError(f"check: {spec} returned {unknown[0]!r}; {one_of(unknown[0], known)}")
    needed = [name for name, p in known.items() if p.default is inspect.Parameter.empty and name not in given]
    if needed:
        raise GradscopeError(f"check: {spec} must return {', '.join(needed)}, too")
    found: Checked = function(**given)
    return found
