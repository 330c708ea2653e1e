"""A measurement of the clean sample as a guide: y = A(x_0) + noise, with a known operator A."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.energy import Energy


class Measurement(Energy):
    """The log-likelihood ``-|y - A(x_0)|^2 / (2 noise_std^2)``, up to a constant, as a guide.

    Parameters
    ----------
    operator
        A: maps samples ``(n, *sample)`` to measurements ``(n, ...)``, differentiably. `methods.PiGDM` needs a linear
        one.
    target
        Measurements y, ``(k, ...)``. Sample i gets row ``i % k``.
    noise_std
        Standard deviation of the measurement's noise, above 0. With 1, DPS ascends -|y - A(x_0)|, as its paper does.
    name
        Name in errors.

    Raises
    ------
    GradscopeError
        The operator cannot be called, or noise_std is not above 0; at a step, A(x_0) does not have the shape of y.

    Examples
    --------
    >>> left = Measurement(lambda x_0: x_0[..., :1], target=torch.ones(1, 1, 2, 1), noise_std=0.5)
    >>> x_0 = torch.zeros(1, 1, 2, 2)
    >>> left(x_0, 0, x_0, range(1))
    tensor([-4.])
    """

    def __init__(
        self, operator: Callable[[Tensor], Tensor], target: Any, noise_std: float = 1.0, *, name: str = "measurement"
    ) -> None:
        if not callable(operator):
            raise GradscopeError(f"{name}: must be a function operator(x_0), got {operator!r:.80}")
        if isinstance(noise_std, bool) or not isinstance(noise_std, int | float) or not 0 < noise_std < math.inf:
            raise GradscopeError(f"{name}.noise_std: must be finite and above 0, got {noise_std!r}")
        super().__init__(self._log_likelihood, target, name=name)
        self.operator, self.noise_std = operator, float(noise_std)

    def _log_likelihood(self, x: Tensor, t: Tensor, x_0: Tensor, target: Tensor) -> Tensor:
        residual = self._residual(self.operator(x_0), target)
        return -residual.square().flatten(1).sum(dim=1) / (2 * self.noise_std**2)

    def _residual(self, measured: Tensor, target: Tensor) -> Tensor:
        if measured.shape != target.shape:
            raise GradscopeError(
                f"{self.name}: the operator gives measurements of shape {tuple(measured.shape)}, the target has "
                f"{tuple(target.shape)}"
            )
        return target.to(measured) - measured

    def solved(self, x_0: Tensor, variance: float, samples: range, iterations: int, is_first: bool = True) -> Tensor:
        """``H^T (variance H H^T + noise_std^2 I)^-1 (y - H x_0)``, ``(n, *sample)``, float64: conjugate gradients.

        `is_first` says whether the operator is checked to be linear, which the first step does.

        Raises
        ------
        GradscopeError
            The operator is not linear.
        """
        assert self.target is not None
        with torch.enable_grad():
            at = x_0.detach().clone().requires_grad_()
            measured = self.operator(at)

            def back(v: Tensor) -> Tensor:
                (found,) = torch.autograd.grad(measured, at, v.to(measured.dtype), retain_graph=True)
                return found

            if is_first:
                self._refuse_not_linear(x_0, measured.detach())
            rows = torch.tensor(samples, device=self.target.device)[torch.arange(len(x_0)) % len(samples)]
            target = self.target[rows % len(self.target)].to(x_0.device)
            residual = self._residual(measured.detach(), target).double()
            with torch.no_grad():

                def apply(v: Tensor) -> Tensor:
                    with torch.enable_grad():
                        turned = back(v)
                    return variance * self.operator(turned).double() + self.noise_std**2 * v

                solution = _conjugate_gradients(apply, residual, iterations)
            return back(solution).double()

    def _refuse_not_linear(self, x_0: Tensor, measured: Tensor) -> None:
        # Another sample and a negative factor: |x| passes A(2 x) = 2 A(x), and a median passes any multiple of x.
        other = x_0.flip(*range(1, x_0.ndim))
        with torch.no_grad():
            at_other = self.operator(other)
            off = (self.operator(x_0 - 2 * other) - measured + 2 * at_other).abs().max()
        size = max(float(measured.abs().max()), float(at_other.abs().max()), 1e-6)
        if not float(off) <= 1e-3 * size:
            raise GradscopeError(
                f"{self.name}: the operator is not linear: A(x - 2 z) differs from A(x) - 2 A(z) by {float(off):g}"
            )


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solve apply(v) = b for each sample, ``(n, ...)``; apply is symmetric and positive."""

    def dot(a: Tensor, c: Tensor) -> Tensor:
        return (a * c).flatten(1).sum(dim=1).view(-1, *[1] * (b.ndim - 1))

    v, r = torch.zeros_like(b), b.clone()
    p, rr = r.clone(), dot(r, r)
    stop = 1e-20 * rr
    for _ in range(iterations):
        if bool((rr <= stop).all()):
            break
        applied = apply(p)
        step = (rr / dot(p, applied)).where(rr > stop, 0)
        v, r = v + step * p, r - step * applied
        following = dot(r, r)
        p, rr = r + (following / rr).where(rr > stop, 0) * p, following
    return v
