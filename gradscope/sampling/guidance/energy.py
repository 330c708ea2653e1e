"""An energy as a guide: any differentiable function of x_t, t and x0-hat that gives one number per sample."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError
from gradscope.models.calls import copied
from gradscope.models.foreign import failure


class Energy(nn.Module):
    """A function of your own that guidance ascends, as it ascends log p(y | x): a log-probability up to a constant.

    A loss, which guidance must descend, gets the weight -1: ``WeightedSum([(-1.0, Energy(loss))])``.

    The gradient is that of ``energy(x_t, t, x_0(x_t))`` with respect to x_t. `ClassifierGuidance.classifier_input` says
    what of x_0 depends on x_t:

    - ``x_t``: nothing, x_0 is constant. Only the first argument is differentiated.
    - ``x0``: all of it. x_0 is differentiated through the denoiser, x_t directly.
    - ``x0_detached``: x_0 with the predicted noise held constant, ``1 / signal_t`` inside the clamp. x_t is
      differentiated directly.

    Parameters
    ----------
    energy
        ``energy(x, t, x_0)`` or ``energy(x, t, x_0, target)``, a function or a module. It gives floating-point numbers
        ``(n,)`` on the device of x, from noisy samples x and predicted clean ones x_0, each ``(n, *sample)``, and
        timesteps t, ``(n,)``. It gets copies.
    target
        What each sample is guided to: ``(k, ...)``, or numbers ``(k,)``. Sample i gets row ``i % k``, so k = 1 is one
        target for all.
    name
        Name in errors, for example a configuration's key.

    Raises
    ------
    GradscopeError
        `energy` cannot be called with these arguments, or lacks its target, or takes none; at a step, its output does
        not fit.

    Examples
    --------
    >>> def near(x, t, x_0, target):
    ...     return -(x_0 - target.view(-1, 1, 1, 1)).square().flatten(1).sum(dim=1) / 2
    >>> guide = Energy(near, target=[0.0, 0.5])
    >>> guide(torch.zeros(2, 1, 2, 2), 10, torch.zeros(2, 1, 2, 2), range(0, 2))
    tensor([-0.0000, -0.5000])
    """

    target: Tensor | None

    def __init__(self, energy: Callable[..., Tensor], target: Any = None, *, name: str = "energy") -> None:
        super().__init__()
        if not callable(energy):
            raise GradscopeError(
                f"{name}: must be a function energy(x, t, x_0) or energy(x, t, x_0, target), got {energy!r:.80}"
            )
        self.energy, self.name = energy, name
        self.register_buffer("target", None if target is None else _rows(target, name))
        _check_arguments(energy, target is not None, name)

    def forward(self, x: Tensor, timestep: float, x_0: Tensor, samples: range) -> Tensor:
        """The checked values, ``(n,)``.

        Parameters
        ----------
        x, x_0
            Noisy samples and x0-hat, ``(n, *sample)``.
        timestep
            Their timestep.
        samples
            Numbers of the samples in the run. If x holds more samples than these, it repeats them in order.
        """
        arguments = [copied(x, self.energy), torch.full((len(x),), timestep, device=x.device), copied(x_0, self.energy)]
        if self.target is not None:
            number = samples.start + torch.arange(len(x)) % len(samples)
            arguments.append(self.target[(number % len(self.target)).to(self.target.device)].to(x.device))
        try:
            value = self.energy(*arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise failure("the energy", self.name, error) from error
        return self._checked(value, x)

    def _checked(self, value: Any, x: Tensor) -> Tensor:
        is_tensor = isinstance(value, Tensor)
        if not (is_tensor and value.shape == (len(x),) and value.is_floating_point() and value.device == x.device):
            got = (
                f"{value.dtype} of shape {tuple(value.shape)} on {value.device}" if is_tensor else type(value).__name__
            )
            raise GradscopeError(
                f"{self.name}: an energy must give one floating-point number per sample, of shape ({len(x)},) on "
                f"{x.device}; it gave {got.removeprefix('torch.')}"
            )
        if torch.is_grad_enabled() and x.requires_grad and not value.requires_grad:
            raise GradscopeError(
                f"{self.name}: its output has no graph to x_t: does it run under torch.no_grad, or detach? With "
                "classifier_input x_t, x_0 is held constant: an energy of x_0 alone takes x0 or x0_detached"
            )
        return value


def _rows(target: Any, name: str) -> Tensor:
    """Targets as a tensor ``(k, ...)``."""
    try:
        rows = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GradscopeError(f"{name}: target must be numbers (k,) or a tensor (k, ...): {error}") from None
    if rows.ndim == 0 or len(rows) == 0:
        raise GradscopeError(
            f"{name}: target must have a row for each sample, (k,) or (k, ...), got shape {tuple(rows.shape)}"
        )
    return rows.detach()


def _check_arguments(energy: Callable[..., Any], has_target: bool, name: str) -> None:
    """Raise GradscopeError unless the energy takes x, t, x_0 and, if there is one, a target."""
    try:
        parameters = signature(energy.forward if isinstance(energy, nn.Module) else energy)
    except (TypeError, ValueError):  # compiled code may show no signature
        return
    three, four = _binds(parameters, 3), _binds(parameters, 4)
    if four if has_target else three:
        return
    if three:
        raise GradscopeError(f"{name}: target is given, but the energy takes none: energy{parameters}")
    if four:
        raise GradscopeError(f"{name}: target is missing; the energy takes one: energy{parameters}")
    raise GradscopeError(f"{name}: must take (x, t, x_0) or (x, t, x_0, target), it takes {parameters}")


def _binds(parameters: Any, count: int) -> bool:
    try:
        parameters.bind(*[None] * count)
    except TypeError:
        return False
    return True
