"""Keep the values of probes in memory, to look at one trajectory without a store."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from probes.probe import Probe, attach_all, check_needs
from probes.step import GuidedStep


class Trace:
    """Step hook for one block of samples; ``trace["gradient_norm"]`` then has shape ``(n, steps)``.

    Parameters
    ----------
    probes
        What to measure.

    Examples
    --------
    >>> trace = Trace([Norm("gradient"), Cosine("gradient")])
    >>> with sampler.register_step_hook(trace):
    ...     images = sampler.sample(labels=[0, 1], num_inference_steps=20)
    >>> trace["gradient_norm"].shape
    torch.Size([2, 20])
    """

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = tuple(probes)
        self._states: list[Any] = []
        self._values: dict[str, list[torch.Tensor]] = {}

    def __call__(self, step: GuidedStep) -> None:
        if step.step == 0:
            self._states = [probe.init() for probe in self._probes]
            self._values = {variable.name: [] for probe in self._probes for variable in probe.variables}
        for i, probe in enumerate(self._probes):
            check_needs(probe, step)
            values, self._states[i] = probe.measure(step, self._states[i])
            for name, value in values.items():
                self._values[name].append(value)

    def attach(self, modules: Mapping[str, nn.Module]) -> AbstractContextManager[None]:
        """See `Probe.attach`."""
        return attach_all(self._probes, modules)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Values of one variable, shape ``(n, steps, *dims)``."""
        return torch.stack(self._values[name], dim=1)
