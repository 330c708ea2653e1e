"""What to do about a variable that a store lacks: which probe records it, or which command adds it."""

import xarray as xr

from gradscope.analysis.watched import unseen
from gradscope.errors import GradscopeError, one_of
from probes.catalogue import CATALOGUE

_PREFIXES_OF_EVALUATE = (
    "own_",
    "judge_",
    "transfer_ratio",
    "class_accuracy",
    "confusion",
    "fd_",
    "kd_",
    "fid",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
)
"""Prefixes of the variables that `gradscope evaluate` adds."""


def from_evaluate(name: str) -> bool:
    """Whether `gradscope evaluate` adds a variable of this name."""
    return name.startswith(_PREFIXES_OF_EVALUATE)


def absent(ds: xr.Dataset, name: str) -> str:
    """Why a variable is missing from the store, and what adds it; empty if it is present.

    Examples
    --------
    >>> absent(xr.Dataset(), "gradient_cosine")
    'gradient_cosine is not in this store; the probe `cosines` records it: add it under `probes`'
    """
    if name in ds:
        return ""
    if reason := unseen(ds, name):
        return reason
    if name in CATALOGUE and (probe := CATALOGUE[name].probe):
        return f"{name} is not in this store; the probe `{probe}` records it: add it under `probes`"
    if name == "judge_prediction" and "own_prediction" in ds:
        return "judge_prediction is not in this store; the run has no judge"
    if from_evaluate(name):
        return f"{name} is not in this store; `gradscope evaluate STORE` adds it"
    return f"{name} is not in this store; {one_of(name, map(str, ds.data_vars))}"


def require(ds: xr.Dataset, *names: str) -> None:
    """Check that the store has these variables.

    Raises
    ------
    GradscopeError
        A variable is missing; the message says what adds it.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> require(synthetic.trajectories(samples=2), "gradient", "written")
    """
    if missing := [reason for name in names if (reason := absent(ds, name))]:
        raise GradscopeError("\n".join(missing))
