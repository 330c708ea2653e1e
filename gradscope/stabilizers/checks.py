"""Checks of settings that several methods share. Each error names the setting."""

import math

import torch

_LEAST = torch.finfo(torch.float32).tiny


def require_fraction(name: str, value: float) -> None:
    """Raise ValueError unless 0 <= value < 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value}")


def require_betas(betas: tuple[float, float]) -> None:
    """Raise ValueError unless these are two decay rates in [0, 1)."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be two numbers in [0, 1), got {list(betas)}")


def require_positive(name: str, value: float) -> None:
    """Raise ValueError unless the value is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and above 0, got {value}")


def require_eps(eps: float) -> None:
    """Raise ValueError unless eps is finite and above 0 also in float32: otherwise a zero gradient would give 0/0."""
    if not (math.isfinite(eps) and eps >= _LEAST):
        raise ValueError(f"eps must be finite and above 0 in float32 (at least 1.2e-38), got {eps}")


def require_eps_or_rms(eps: float | str) -> None:
    """Raise ValueError unless eps is "rms" or passes `require_eps`."""
    if isinstance(eps, str):
        if eps != "rms":
            raise ValueError(f"eps must be a number above 0, or 'rms', got {eps!r}")
    else:
        require_eps(eps)
