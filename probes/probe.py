"""What a probe is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from probes.step import GuidedStep

IMAGE_DIMS = ("channel", "height", "width")


@dataclass(frozen=True)
class Variable:
    """A quantity that a probe yields, with one row a sample."""

    name: str
    long_name: str
    equation: str
    units: str = "1"
    dims: tuple[str, ...] = ()
    """Dimensions besides sample and timestep; `IMAGE_DIMS` marks a full tensor."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Lengths of the dimensions in `dims` that are not the image's."""
    dtype: str = "float32"


class Probe:
    """Base of all probes: declare `variables` and `needs`, and implement `measure`.

    A probe has no state of its own: what it must remember from step to step goes through `init` and `measure`.
    """

    variables: tuple[Variable, ...] = ()
    needs: tuple[str, ...] = ("gradient",)
    """Fields of `GuidedStep` that must not be None."""

    def init(self) -> Any:
        """State at the start of a trajectory."""
        return None

    def measure(self, step: GuidedStep, state: Any) -> tuple[dict[str, torch.Tensor], Any]:
        """Values by variable name, each of shape ``(n, *dims)`` on the step's device, and the next state."""
        raise NotImplementedError


def check_needs(probe: Probe, step: GuidedStep) -> None:
    """Raise ValueError where the step lacks a field that the probe needs."""
    missing = [name for name in probe.needs if getattr(step, name) is None]
    if missing:
        fields = ", ".join(f"GuidedStep.{name}" for name in missing)
        raise ValueError(f"probe {type(probe).__name__} needs {fields}, which this sampler leaves at None")
