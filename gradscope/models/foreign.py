"""``package.module:callable``: importing and calling a user's own code."""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

from gradscope.errors import GradscopeError, one_of


def load(spec: str, where: str) -> Any:
    """Import what ``package.module:name`` names, also from the current folder, which comes last on ``sys.path``.

    Parameters
    ----------
    spec
        Module and name, for example ``my_models:classifier``.
    where
        The configuration's key, for errors.

    Raises
    ------
    GradscopeError
        There is no such module or name, or importing the module raises an error.
    """
    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # not first: a user's dashboards.py must not hide ours
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise GradscopeError(f"{where}: cannot import {module_name!r} of {spec!r}: {error}") from error
    except Exception as error:
        raise failure(f"importing {module_name!r}", where, error) from error
    if not hasattr(module, name):
        names = [n for n in dir(module) if not n.startswith("_")]
        raise GradscopeError(f"{where}: {module_name} has no {name!r}; {one_of(name, names)}")
    return getattr(module, name)


def call(spec: str, where: str) -> Any:
    """Call what `spec` names, without arguments, and return the result."""
    return made_of(spec, {}, where)


def made_of(spec: str, options: Mapping[str, Any], where: str) -> Any:
    """Call what `spec` names with keyword arguments, and return the result."""
    make = load_callable(spec, where)
    try:
        return make(**options)
    except Exception as error:
        raise failure(spec, where, error) from error


def failure(what: str, where: str, error: Exception) -> GradscopeError:
    """An error of a user's own code as a GradscopeError that names its file and line."""
    file, line, *_ = extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())
    return GradscopeError(f"{where}: {what} raised {type(error).__name__}: {said} ({file}, line {line})")


def load_callable(spec: str, where: str) -> Callable[..., Any]:
    """Like `load`, and check that the result can be called."""
    made = load(spec, where)
    if not callable(made):
        raise GradscopeError(
            f"{where}: {spec} is of type {type(made).__name__}, which cannot be called; wanted: package.module:callable"
        )
    return made


def is_spec(text: str) -> bool:
    """Whether `text` has the form ``package.module:name``."""
    module, separator, name = text.partition(":")
    return bool(separator) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))
