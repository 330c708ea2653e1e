"""Checks of guidance: each setting by itself, and the settings, the method and the scheduler together."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, get_args

import numpy as np
from torch import nn

from gradscope.config import ClassifierInput, Normalize, Objective, Weight
from gradscope.errors import GradscopeError, one_of, whole_number
from gradscope.sampling.guidance.guides import needs_x_0, without_logits
from gradscope.sampling.guidance.methods import ClassifierGradient, Method
from gradscope.sampling.process import Schedule

_CHOICES = {"classifier_input": ClassifierInput, "objective": Objective, "normalize": Normalize, "weight": Weight}
_LARGEST = float(np.finfo(np.float32).max)


def check_guide(guide: Any, takes_timestep: bool | None, has_smoothgrad: bool) -> None:
    """Raise GradscopeError unless the guide is a module that has what the other settings ask for."""
    if not isinstance(guide, nn.Module):
        got = type(guide).__name__
        raise GradscopeError(f"classifier: must be a torch.nn.Module, or gradscope.Energy(function); got {got}")
    if (kind := without_logits(guide)) and takes_timestep is not None:
        raise GradscopeError(f"guidance.takes_timestep: concerns a classifier, but the guide is {kind}")
    if has_smoothgrad and needs_x_0(guide):
        raise GradscopeError("guidance.smoothgrad: adds noise to the input of a classifier, which an energy lacks")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise GradscopeError for a setting of `ClassifierGuidance` that is unknown or out of range."""
    for key, choice in _CHOICES.items():
        if (got := settings[key]) not in get_args(choice):
            raise GradscopeError(f"guidance.{key}: got {got!r}; {one_of(got, get_args(choice))}")
    scale = settings["guidance_scale"]
    if isinstance(scale, bool) or not isinstance(scale, Real) or not abs(float(scale)) <= _LARGEST:
        raise GradscopeError(f"guidance.guidance_scale: must be a finite number within float32's range, got {scale!r}")
    whole_number(settings["timestep_at_x0"], "guidance.timestep_at_x0")
    interval = settings["interval"]
    if interval is not None and (
        not isinstance(interval, tuple | list)
        or len(interval) != 2
        or not all(isinstance(t, Real) and not isinstance(t, bool) for t in interval)
        or not interval[0] < interval[1]  # which NaN is not, either
    ):
        raise GradscopeError(f"guidance.interval: must be two timesteps, first <= t < end, or None; got {interval!r}")


def check_method(method: Any, inputs: Iterable[str], has_smoothgrad: bool) -> None:
    """Raise GradscopeError unless this is a method that is defined at values of ``classifier_input``."""
    if not isinstance(method, Method):
        raise GradscopeError(
            f"guidance.method: takes a method, for example gradscope.methods.DPS(), got {method!r:.80}"
        )
    name = type(method).__name__
    if has_smoothgrad and not isinstance(method, ClassifierGradient):
        raise GradscopeError(f"guidance.smoothgrad: belongs to the method classifier, the method is {name}")
    for given in inputs:
        if given not in method.inputs:
            raise GradscopeError(
                f"guidance.classifier_input: {name} is not defined at {given!r}; {one_of(given, method.inputs)}"
            )


def check_solver(method: Method, repeats: bool, schedule: Schedule) -> None:
    """Raise GradscopeError if the solver would drop what the method adds to prev_sample, or an x_t drawn again."""
    if not schedule.goes_back or not (repeats or method.enters == "sample"):
        return
    does = "recurrence draws x_t again" if repeats else f"{type(method).__name__} adds to prev_sample"
    raise GradscopeError(
        f"guidance.method: {does}, but {type(schedule.scheduler).__name__} steps on from an earlier sample that it "
        "keeps, so it would be lost; take another scheduler, for example ddim, euler or dpm_solver_multistep"
    )
