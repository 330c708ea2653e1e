"""Check probes, measure a step with all of them, and check the values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from gradscope.errors import GradscopeError, one_of
from gradscope.store.dims import COORDINATES, REPEAT
from gradscope.store.schema import WRITTEN
from probes import IMAGE_DIMS, TENSOR, GuidedStep, Probe, Variable, check_needs

_NAME = re.compile(r"[A-Za-z_]\w{0,99}")
_TAKEN = {*COORDINATES, *IMAGE_DIMS, REPEAT, WRITTEN.name, "image"}
_DTYPES = ("float32", "float64", "float16", "int16", "int32", "int64", "int8", "uint8")


def check_probes(probes: Any) -> None:
    """Raise GradscopeError unless `probes` is a list of probes that can measure, see `check_probe`."""
    if isinstance(probes, str | Probe | type):
        raise GradscopeError(f"probes: takes a list of probes, got {probes!r:.80}")
    for i, probe in enumerate(probes):
        check_probe(probe, f"probes[{i}]")


def check_probe(probe: Any, where: str) -> None:
    """Raise GradscopeError unless `probe` can measure; the message begins with `where`.

    The probe must be an instance of a subclass of `probes.Probe` that implements `measure`. Its `variables` must be
    storable, and its `needs` must be fields of `GuidedStep`.
    """
    if isinstance(probe, type):
        raise GradscopeError(f"{where}: takes a probe, got the class {probe.__name__}; pass {probe.__name__}(...)")
    name = type(probe).__name__
    if not isinstance(probe, Probe):
        raise GradscopeError(f"{where}: takes a probes.Probe, got an object of type {name}")
    if type(probe).measure is Probe.measure:
        what = "is the base class and" if type(probe) is Probe else "does not implement `measure`, so it"
        raise GradscopeError(
            f"{where}: {name} {what} measures nothing; use a subclass of Probe that implements `measure`"
        )
    if not isinstance(probe.variables, tuple | list) or not all(isinstance(v, Variable) for v in probe.variables):
        raise GradscopeError(
            f"{where}: {name}.variables must be a tuple of probes.Variable, got {probe.variables!r:.80}"
        )
    for variable in probe.variables:
        _check_variable(variable, f"{where}: {name}")
    known = [field.name for field in fields(GuidedStep)]
    for need in probe.needs:
        if need not in known:
            raise GradscopeError(f"{where}: {name}.needs: GuidedStep has no field {need!r}; {one_of(need, known)}")


def _check_variable(variable: Variable, where: str) -> None:
    if not _NAME.fullmatch(str(variable.name)) or variable.name in _TAKEN:
        why = "is taken by every store" if variable.name in _TAKEN else "must consist of letters, digits and _"
        raise GradscopeError(f"{where}: the name of a variable {why}, got {variable.name!r:.80}")
    if variable.dtype not in _DTYPES:
        raise GradscopeError(
            f"{where}: {variable.name} has dtype {variable.dtype!r}; {one_of(variable.dtype, _DTYPES)}"
        )
    for dim in variable.dims:
        if dim not in (*TENSOR, *IMAGE_DIMS, *variable.sizes, *variable.coords):
            raise GradscopeError(f"{where}: {variable.name} has a dimension {dim!r} of unknown length; give `sizes`")


class Common:
    """What cells with one gradient have in common at a step: the values of the probes that are `of_guide`."""

    def __init__(self) -> None:
        self._at: tuple[int, int] | None = None
        self._values: dict[int, dict[str, Tensor]] = {}

    def at(self, step: GuidedStep) -> dict[int, dict[str, Tensor]]:
        """The values that are known at a step, by the probe's number."""
        if self._at != (step.step, step.repeat):
            self._at, self._values = (step.step, step.repeat), {}
        return self._values


def measured(
    probes: Sequence[Probe], step: GuidedStep, states: list[Any], common: Common | None = None
) -> dict[str, Tensor]:
    """Measure a step with all probes.

    Parameters
    ----------
    probes
        What to measure.
    step
        The step.
    states
        The state of each probe, replaced by its next state.
    common
        What the cells before this one measured at the same step with the same gradient.

    Returns
    -------
    dict of str to torch.Tensor
        The values by the variable's name, ``(n, *dims)``.

    Raises
    ------
    GradscopeError
        The values have other names or shapes than the probe declares.
    ValueError
        The step lacks a field that a probe needs.
    """
    values: dict[str, Tensor] = {}
    known = {} if common is None else common.at(step)
    for i, probe in enumerate(probes):
        if i in known:
            values |= known[i]
            continue
        check_needs(probe, step)
        found, states[i] = probe.measure(step, states[i])
        _check_values(probe, found, step)
        if probe.of_guide:
            known[i] = found
        values |= found
    return values


def _check_values(probe: Probe, values: Mapping[str, Any], step: GuidedStep) -> None:
    where, wanted = f"probes: {type(probe).__name__}", {variable.name: variable for variable in probe.variables}
    if set(values) != set(wanted):
        raise GradscopeError(f"{where} measured {sorted(values)}, but declares {sorted(wanted)} as its `variables`")
    sample = tuple(step.x_t.shape[1:])
    image = dict(zip(IMAGE_DIMS, sample, strict=True)) if len(sample) == len(IMAGE_DIMS) else {}
    for name, variable in wanted.items():
        lengths = image | dict(variable.sizes) | {dim: len(c.values) for dim, c in variable.coords.items()}
        if missing := [dim for dim in variable.dims if dim not in (*TENSOR, *lengths)]:
            raise GradscopeError(f"{where}: {name} has dimension {missing[0]!r}, but samples of shape {sample} do not")
        own = sample if variable.dims == TENSOR else tuple(lengths[dim] for dim in variable.dims)
        shape, value = (len(step.x_t), *own), values[name]
        if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape:
            got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            over = ", ".join(("sample", *variable.dims))
            raise GradscopeError(f"{where}: {name} must be a tensor over ({over}) of shape {shape}, got {got}")
