"""The base class of probes."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from probes.step import GuidedStep
from probes.variable import Variable


class Probe:
    """Base class of probes: a subclass declares `variables` and `needs`, and implements `measure`.

    A probe keeps no state in itself: state from step to step goes through `init` and `measure`. An option that is out
    of range raises ValueError in ``__init__``.

    Examples
    --------
    >>> class Peak(Probe):
    ...     variables = (Variable("gradient_peak", "largest element of the gradient", "max |g_t|"),)
    ...
    ...     def measure(self, step, state):
    ...         return {"gradient_peak": step.gradient.flatten(1).abs().amax(dim=1)}, state
    >>> step = GuidedStep(step=0, timestep=999, x_t=torch.zeros(1, 1, 1, 2), gradient=torch.tensor([[[[3.0, -4.0]]]]))
    >>> Peak().measure(step, Peak().init())
    ({'gradient_peak': tensor([4.])}, None)
    """

    variables: tuple[Variable, ...] = ()
    """The quantities that `measure` returns."""
    needs: tuple[str, ...] = ("gradient",)
    """Fields of `GuidedStep` that must not be None."""
    of_guide: bool = False
    """Whether the values depend on x_t and the guide alone, and not on what comes after the gradient, nor on a state.
    Cells at scale 0 that differ in their stabiliser alone then share them."""

    def init(self) -> Any:
        """The state at the start of a trajectory."""
        return None

    def measure(self, step: GuidedStep, state: Any) -> tuple[dict[str, torch.Tensor], Any]:
        """Measure one step.

        Parameters
        ----------
        step
            The step of a block of n samples.
        state
            The state, from `init` or from the previous step.

        Returns
        -------
        tuple
            Values by the variable's name, each of shape ``(n, *dims)`` on the step's device, and the next state.
        """
        raise NotImplementedError

    def attach(self, modules: Mapping[str, nn.Module]) -> AbstractContextManager[None]:
        """A context that is open while the models run for a step, and closed while probes measure.

        On entering it a probe may add hooks to the models; on leaving it must remove them.

        Parameters
        ----------
        modules
            The models by name: ``classifier`` and ``unet``.

        Raises
        ------
        ValueError
            The models lack a layer that the probe reads.
        """
        return nullcontext()


@contextmanager
def attach_all(probes: Iterable[Probe], modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Enter the contexts of all probes' `attach`."""
    with ExitStack() as stack:
        for probe in probes:
            stack.enter_context(probe.attach(modules))
        yield


def check_needs(probe: Probe, step: GuidedStep) -> None:
    """Raise ValueError if the step lacks a field that the probe needs."""
    missing = [name for name in probe.needs if getattr(step, name) is None]
    if missing:
        fields = ", ".join(f"GuidedStep.{name}" for name in missing)
        raise ValueError(f"probe {type(probe).__name__} needs {fields}, which this sampler leaves at None")
