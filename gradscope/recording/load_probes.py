"""Make the probes that a configuration lists, each by its name with or without options."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model
from torch import nn

from gradscope.config import ClassifierSpec, Strict, error_lines
from gradscope.errors import GradscopeError, one_of
from gradscope.models import foreign
from gradscope.recording.measure import check_probe, check_probes
from gradscope.sampling.guidance.guides import without_logits
from probes import NAMED, Probe, attach_all

LoadModule = Callable[[Any, str], nn.Module]
"""Loads a classifier, given its specification and its configuration key."""
CLASSIFIER_FREE = ("conditional_output", "conditional_original_sample", "guidance_weight")
"""Fields of a step that only classifier-free guidance has, in loops that `gradscope.watch` watches."""


def load_probes(entry: str | Mapping[str, Mapping[str, Any]], load_module: LoadModule) -> list[Probe]:
    """Make the probes of one entry under ``probes``: a group's name or ``package.module:Class``, and its options.

    An option that the probe annotates as `torch.nn.Module` takes a classifier's specification.

    Raises
    ------
    GradscopeError
        The probe or an option is unknown, or the probe refuses a value.
    """
    name, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
    where = f"probes.{name}"
    if name in NAMED:
        make = NAMED[name]
    elif foreign.is_spec(name):
        make = foreign.load_callable(name, "probes")
    else:
        raise GradscopeError(f"probes: unknown probe {name!r}; {one_of(name, [*NAMED, 'package.module:Class'])}")
    if isinstance(make, type) and not issubclass(make, Probe):
        raise GradscopeError(f"{where}: takes a subclass of probes.Probe, got the class {make.__name__}")
    arguments = _arguments(make, options, where, load_module)
    try:
        made = make(**arguments)
    except ValueError as error:
        raise GradscopeError(f"{where}: {error}") from error
    except Exception as error:
        raise foreign.failure(name, where, error) from error
    probes = made if isinstance(made, list) else [made]
    for probe in probes:
        check_probe(probe, where)
    return probes


def probes_of(entries: Any, load_module: LoadModule) -> tuple[Probe, ...]:
    """The probes of a list whose entries are probes, or name them as a configuration does.

    Raises
    ------
    GradscopeError
        `entries` is no list, or an entry is no probe and names none.
    """
    if not isinstance(entries, Iterable) or isinstance(entries, str | Mapping):
        check_probes(entries)  # says what a list of probes is
    probes: list[Probe] = []
    for i, entry in enumerate(entries):
        where = f"probes[{i}]"
        if isinstance(entry, Mapping) and len(entry) != 1:
            raise GradscopeError(f"{where}: takes a name, or one name with its options, got {entry!r:.80}")
        if isinstance(entry, str | Mapping):
            probes += load_probes(entry, load_module)
        else:
            check_probe(entry, where)
            probes.append(entry)
    return tuple(probes)


def check_attaching(probes: Sequence[Probe], modules: Mapping[str, nn.Module], where: str) -> None:
    """Raise GradscopeError if the models lack a layer that a probe reads; the message begins with `where`."""
    try:
        with attach_all(probes, modules):
            pass
    except ValueError as error:
        raise GradscopeError(f"{where}: {error}") from error


def check_guide(probes: Sequence[Probe], guide: nn.Module, name: str, where: str) -> None:
    """Raise GradscopeError if a probe needs what the guide does not give; the message begins with `where`."""
    if other := [type(probe).__name__ for probe in probes if not set(CLASSIFIER_FREE).isdisjoint(probe.needs)]:
        raise GradscopeError(
            f"{where}: {other[0]} needs classifier-free guidance, but {name} guides by its gradient; leave this probe "
            "out (gradscope.watch records a loop of your own)"
        )
    kind = without_logits(guide)
    if kind and (lacking := [type(probe).__name__ for probe in probes if "logits" in probe.needs]):
        raise GradscopeError(
            f"{where}: {lacking[0]} needs the logits of a classifier, but {name} is {kind} and has none; leave this "
            "probe out (the probe `energy` records the objective of any guide)"
        )


class _Options(Strict):
    """The options of a probe; fields are added from its signature."""

    # docstrings of attributes would be looked for in all source files of the calling stack, at each call
    model_config = ConfigDict(arbitrary_types_allowed=True, use_attribute_docstrings=False)


def _arguments(
    make: Callable[..., Any], options: Mapping[str, Any], where: str, load_module: LoadModule
) -> dict[str, Any]:
    """Check the options against the parameters of `make`, and load the classifiers among them."""
    parameters = signature(make, eval_str=True).parameters
    if options and not parameters:
        raise GradscopeError(f"{where}: takes no options, got {', '.join(options)}")
    modules = [name for name, parameter in parameters.items() if parameter.annotation is nn.Module]
    fields: dict[str, Any] = {name: _field(parameter) for name, parameter in parameters.items()}
    model = create_model("Options", __base__=_Options, **fields)
    try:
        checked = model.model_validate(options)
    except ValidationError as error:
        raise GradscopeError("; ".join(f"{where}.{line}" for line in error_lines(model, error))) from None
    values = {name: getattr(checked, name) for name in options}
    return values | {name: load_module(values[name], f"{where}.{name}") for name in modules if name in values}


def _field(parameter: Parameter) -> tuple[Any, Any]:
    """Type and default value of one option, for pydantic."""
    kinds = {Parameter.empty: Any, nn.Module: ClassifierSpec}
    kind = kinds.get(parameter.annotation, parameter.annotation)
    return kind, ... if parameter.default is Parameter.empty else parameter.default
