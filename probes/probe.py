"""What a probe is."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from probes.step import GuidedStep
from probes.variable import Variable


class Probe:
    """Base of all probes: declare `variables` and `needs`, and implement `measure`.

    A probe has no state of its own: what it must remember from step to step goes through `init` and `measure`.
    An option that is out of range raises ValueError in ``__init__``.
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

    def attach(self, modules: Mapping[str, nn.Module]) -> AbstractContextManager[None]:
        """A context that the sampler keeps open while the models run for a step, and closed while probes measure.

        Whoever enters it gives the models, ``classifier`` and ``unet``. It takes off on leaving what it put on them.

        Raises
        ------
        ValueError
            The models lack what the probe looks at.
        """
        return nullcontext()


@contextmanager
def attach_all(probes: Iterable[Probe], modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """The contexts of all probes' `attach`."""
    with ExitStack() as stack:
        for probe in probes:
            stack.enter_context(probe.attach(modules))
        yield


def check_needs(probe: Probe, step: GuidedStep) -> None:
    """Raise ValueError where the step lacks a field that the probe needs."""
    missing = [name for name in probe.needs if getattr(step, name) is None]
    if missing:
        fields = ", ".join(f"GuidedStep.{name}" for name in missing)
        raise ValueError(f"probe {type(probe).__name__} needs {fields}, which this sampler leaves at None")
