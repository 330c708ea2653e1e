"""Gradients of an energy: by autograd where finite differences confirm it, else by finite differences alone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradscope.checking import differences
from gradscope.checking.calls import Energy, values
from gradscope.checking.untouched import Wide
from gradscope.errors import GradscopeError

_FEW = 32
"""Largest number of elements of a sample whose whole gradient is taken by finite differences."""
_RANDOM = 8
"""Number of random directions otherwise."""
_CONFIRMED = 0.75
"""Share of the directional derivatives that must agree with autograd; kinks spoil some."""


@dataclass(frozen=True)
class Slopes:
    """Derivatives of an energy along the directions of a `Basis`, ``(n, directions)``, float64."""

    value: Tensor
    error: Tensor

    def times(self, factor: float | Tensor) -> "Slopes":
        """The slopes times one factor, or one a sample, ``(n, 1)``."""
        return Slopes(self.value * factor, (self.error * factor).abs())

    @property
    def norm(self) -> Tensor:
        """Norm over directions, ``(n,)``."""
        return norm(self.value)

    @property
    def noise(self) -> Tensor:
        """Norm of the error, ``(n,)``."""
        return norm(self.error)


@dataclass(frozen=True)
class Basis:
    """The directions along which gradients are compared."""

    directions: Tensor | None
    """``(directions, n, elements)``, weighted so that squares sum to about the squared norm; None: every element."""

    @property
    def whole(self) -> bool:
        """Whether vectors are known in full."""
        return self.directions is None

    def project(self, vectors: Tensor) -> Tensor:
        """Components of vectors ``(n, *sample)``, ``(n, directions)``, float64."""
        flat = vectors.flatten(1).double()
        return flat if self.directions is None else torch.einsum("kne,ne->nk", self.directions, flat)


class Measure:
    """Evaluates and differentiates energies around one batch, in float64 where they take it.

    Parameters
    ----------
    energy
        The declared energy.
    x, t
        Noisy samples ``(n, *sample)`` and their timestep.
    wide
        The modules that energies call.
    seed
        Seed of the directions.

    Raises
    ------
    GradscopeError
        The energy fails, is not finite, or gives other values at a second call.
    """

    def __init__(self, energy: Energy, x: Tensor, t: Any, wide: Wide, seed: int) -> None:
        self.wide, self.seed = wide, seed
        self.evaluations = 0
        self.fine = False
        with torch.no_grad():
            here, again = values(energy, x.detach().clone(), t), values(energy, x.detach().clone(), t)
        if not torch.allclose(here, again, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise GradscopeError(
                "energy: two calls at the same x_t give different values; put the modules into eval mode, and draw "
                "no noise in it"
            )
        if not bool(here.isfinite().all()):
            raise GradscopeError(f"energy: it must be finite, got {here[~here.isfinite()][0]:g}")
        self.fine = self._takes_float64(energy, x, t)
        self.x = self.widened(x)
        self.by_autograd = False
        self.confirmed = torch.ones(len(x), dtype=torch.bool, device=x.device)
        """Samples in which finite differences could confirm autograd, ``(n,)``."""

    def _takes_float64(self, energy: Energy, x: Tensor, t: Any) -> bool:
        """Whether the energy computes in float64, not only returns it."""
        generator = torch.Generator().manual_seed(self.seed)
        moved = x.double() * (1 + 1e-9 * torch.randn(x.shape, generator=generator).to(x.device))
        try:
            with torch.no_grad(), self.wide:
                found = values(energy, moved, t)
        except GradscopeError:
            return False
        if found.dtype != torch.float64 or not bool(found.isfinite().all()):
            return False
        return bool((found != found.float().double()).any()) or not bool(found.any())

    def widened(self, x: Tensor) -> Tensor:
        """X in the type in which energies are evaluated."""
        return x.detach().double() if self.fine else x.detach()

    def at(self, energy: Energy, x: Tensor, t: Any) -> Tensor:
        """Values of an energy, ``(n,)``."""
        self.evaluations += 1
        with torch.no_grad():
            if not self.fine:
                return values(energy, x.clone(), t)
            with self.wide:
                return values(energy, x.clone(), t)

    def autograd(self, energy: Energy, x: Tensor, t: Any) -> Tensor | None:
        """Gradient by autograd, ``(n, *sample)``, float64; None if the energy has no graph to x."""
        self.evaluations += 1
        if self.fine:
            with self.wide:
                return gradient(energy, x, t)
        return gradient(energy, x, t)

    def along(self, energy: Energy, x: Tensor, t: Any, directions: Tensor, enough: Tensor | float = 0.0) -> Slopes:
        """Finite differences along unit directions ``(directions, n, elements)``."""

        def f(moved: Tensor) -> Tensor:
            return self.at(energy, moved, t)

        noise = differences.rounding(f, x, fine=self.fine, seed=self.seed)
        found = [
            differences.derivative(f, x, direction.reshape(x.shape).to(x), noise, fine=self.fine, enough=enough)
            for direction in directions
        ]
        return Slopes(torch.stack([v for v, _ in found], dim=1), torch.stack([e for _, e in found], dim=1))

    def reference(self, energy: Energy, x: Tensor, t: Any, claim: Tensor) -> tuple[Basis, Slopes]:
        """The gradient of the declared energy, and the directions in which it is known.

        Autograd's gradient is taken if finite differences confirm it, along a direction between the claimed gradient
        and a random one, and along autograd's own where it differs from the claim.
        """
        auto = self.autograd(energy, x, t)
        if auto is not None and bool(auto.isfinite().all()):
            ours, theirs = unit(claim.flatten(1)), unit(auto.flatten(1))
            differ = [theirs[None]] if bool(((ours * theirs).sum(dim=1) < 0.99).any()) else []
            tested = torch.cat([unit(ours + self._random(x, 1)), *differ])
            slopes = self.along(energy, x, t, tested, 1e-4 * norm(auto.flatten(1)))
            predicted = torch.einsum("kne,ne->nk", tested, auto.flatten(1))
            size = norm(auto.flatten(1))[:, None]
            seen = 5 * slopes.error < 0.5 * size  # where rounding leaves something to compare
            agrees = (slopes.value - predicted).abs() <= 5 * slopes.error + (1e-4 if self.fine else 1e-2) * size
            self.confirmed = seen.any(dim=1)
            if not bool(self.confirmed.any()) or float(agrees[seen].double().mean()) >= _CONFIRMED:
                self.by_autograd = True
                return Basis(None), self._with_error(energy, x, t, auto)
        basis = self._basis(x, claim)
        return basis, self._by_differences(energy, x, t, basis)

    def slopes(self, energy: Energy, x: Tensor, t: Any, basis: Basis) -> Slopes | None:
        """The gradient of another energy, or at another point, in the way of the reference; None if it has none."""
        if not self.by_autograd:
            return self._by_differences(energy, x, t, basis)
        auto = self.autograd(energy, x, t)
        return None if auto is None else self._with_error(energy, x, t, auto)

    def _with_error(self, energy: Energy, x: Tensor, t: Any, auto: Tensor) -> Slopes:
        """Autograd's gradient with its error: in float64 negligible, else its change when x moves by its last bits."""
        flat = auto.flatten(1)
        if self.fine:
            return Slopes(flat, 1e-12 * flat.abs())
        epsilon = torch.finfo(x.dtype).eps
        moved = self.autograd(energy, x * (1 + epsilon) + epsilon, t)
        return Slopes(flat, torch.zeros_like(flat) if moved is None else (moved.flatten(1) - flat).abs())

    def _by_differences(self, energy: Energy, x: Tensor, t: Any, basis: Basis) -> Slopes:
        directions = basis.directions
        if directions is None:
            elements = x[0].numel()
            directions = torch.eye(elements, dtype=torch.float64, device=x.device)[:, None].expand(-1, len(x), -1)
        weight = norm(directions)
        found = self.along(energy, x, t, directions / weight.clamp(min=1e-300)[..., None])
        return Slopes(found.value * weight.T, found.error * weight.T)

    def _basis(self, x: Tensor, claim: Tensor) -> Basis:
        elements = x[0].numel()
        if elements <= _FEW:
            return Basis(None)
        along = unit(claim.flatten(1))
        rows = [along]
        for row in self._random(x, _RANDOM):
            for earlier in rows:
                row = row - (row * earlier).sum(dim=1, keepdim=True) * earlier
            rows.append(unit(row))
        weight = ((elements - 1) / _RANDOM) ** 0.5
        return Basis(torch.stack([along, *(weight * row for row in rows[1:])]))

    def _random(self, x: Tensor, count: int) -> Tensor:
        """Unit directions, ``(count, n, elements)``, float64."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(count, len(x), x[0].numel(), generator=generator, dtype=torch.float64)
        return (drawn / norm(drawn)[..., None]).to(x.device)


def gradient(energy: Energy, x: Tensor, t: Any) -> Tensor | None:
    """Gradient of an energy by autograd, ``(n, *sample)``, float64; None if the energy has no graph to x."""
    leaf = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            found = values(energy, leaf, t)
            if not found.requires_grad:
                return None
            (slope,) = torch.autograd.grad(found.sum(), leaf, allow_unused=True)
    except (GradscopeError, RuntimeError):  # it works on arrays, or in place
        return None
    return None if slope is None else slope.detach().double()


def norm(vectors: Tensor) -> Tensor:
    """Norm over the last dimension, without underflow."""
    most = vectors.abs().amax(dim=-1, keepdim=True)
    scaled = vectors / most.where(most > 0, 1)
    return torch.linalg.vector_norm(scaled, dim=-1) * most.squeeze(-1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors of norm 1, float64; zero stays zero."""
    vectors = vectors.double()
    size = norm(vectors)[..., None]
    return vectors / size.where(size > 0, 1)
