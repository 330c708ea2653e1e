"""Activations and gradients of named layers inside the models."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probes.catalogue import CATALOGUE
from probes.numerics import norm, undefined
from probes.probe import Probe
from probes.step import GuidedStep
from probes.variable import Coordinate


class Layers(Probe):
    """Norms of the outputs of named layers, and of the objective's gradient with respect to these outputs.

    Only passes inside `attach` count: those that the sampler itself makes for the step. If a layer runs several times
    in a step (SmoothGrad's draws, a shared activation), the last run counts. If its output has several tensors, the
    first one counts.

    Parameters
    ----------
    names
        ``classifier.PATH`` or ``unet.PATH``, as in ``named_modules()``, for example ``classifier.blocks.2`` or
        ``unet.mid_block``.

    Examples
    --------
    >>> classifier = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> layers = Layers(["classifier.1"])
    >>> x_t = torch.ones(1, 1, 2, 2, requires_grad=True)
    >>> with layers.attach({"classifier": classifier}):
    ...     (gradient,) = torch.autograd.grad(classifier(x_t).sum(), x_t)
    >>> step = GuidedStep(step=0, timestep=999, x_t=x_t.detach(), gradient=gradient)
    >>> values, _ = layers.measure(step, None)
    >>> values["layer_gradient_norm"]  # the norm of (1, 1)
    tensor([[1.4142]])
    """

    def __init__(self, names: list[str]) -> None:
        if not names or len(set(names)) < len(names):
            raise ValueError(f"names must be one or more distinct layers, got {names}")
        self.names = tuple(names)
        self._runs: dict[str, _Run] | None = None
        layers = {"layer": Coordinate(self.names, "layer of the classifier or the denoiser")}
        self.variables = (
            replace(CATALOGUE["layer_activation_norm"], coords=layers),
            replace(CATALOGUE["layer_gradient_norm"], coords=layers),
        )

    @contextmanager
    def attach(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        layers = {name: _submodule(modules, name) for name in self.names}
        self._runs = {}
        with ExitStack() as hooks:
            for name, layer in layers.items():
                hooks.enter_context(layer.register_forward_hook(partial(_watch, self._runs, name)))
            yield

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        if self._runs is None:
            raise ValueError("layers: the models of this step ran outside of Layers.attach(modules)")
        missing = undefined(step.x_t)
        factor = 1.0 if step.backward_factor is None else step.backward_factor
        runs = [self._runs.get(name) for name in self.names]
        values = {
            "layer_activation_norm": [missing if run is None else run.activation for run in runs],
            "layer_gradient_norm": [
                missing if run is None or run.gradient is None else run.gradient * factor for run in runs
            ],
        }
        return {name: torch.stack([v.float() for v in norms], dim=1) for name, norms in values.items()}, state


def _watch(runs: dict[str, "_Run"], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    """Forward hook; its first two arguments are bound by `partial`."""
    runs[name] = _Run(output if isinstance(output, Tensor) else output[0])


class _Run:
    """Norm of one output, ``(n,)``, and of its gradient after the backward pass."""

    def __init__(self, output: Tensor) -> None:
        self.activation = norm(output.detach())
        self.gradient: Tensor | None = None
        if output.requires_grad:
            output.register_hook(self._keep)

    def _keep(self, gradient: Tensor) -> None:
        self.gradient = norm(gradient)


def _submodule(modules: Mapping[str, nn.Module], name: str) -> nn.Module:
    root, _, path = name.partition(".")
    if root not in modules:
        raise ValueError(f"names: a layer is named classifier.PATH or unet.PATH, got {name!r}")
    module, way = modules[root], root
    for part in path.split(".") if path else ():
        children = dict(module.named_children())
        if part not in children:
            possible = f"one of: {', '.join(children)}" if children else "it has none"
            where = f"{way} ({type(module).__name__})"
            raise ValueError(f"names: got {name!r}, but {where} has no layer {part!r}; {possible}")
        module, way = children[part], f"{way}.{part}"
    return module
