"""How far guidance moves a step, against the step's own noise, and whether it could act at all."""

import torch

from probes.catalogue import CATALOGUE
from probes.probe import Probe
from probes.step import GuidedStep


class EffectiveStrength(Probe):
    """Norm of the shift over the norm of the step's noise: above 1 it leaves the manifold, below 1e-3 it is inert.

    The noise is that which the step adds; where it adds none (or the sampler does not say), that of the DDPM posterior.
    """

    needs = ("shift", "sigma")
    variables = (CATALOGUE["effective_strength"],)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.shift is not None
        assert step.sigma is not None
        noise = _rows(0.0 if step.noise_added is None else step.noise_added, step)
        noise = noise.where(noise > 0, step.sigma)
        strength = step.norm("shift") / (noise * step.shift[0].numel() ** 0.5)
        return {"effective_strength": strength.where(noise > 0, torch.nan).float()}, state


class NoiseAdded(Probe):
    """Standard deviation of the noise that the step adds."""

    needs = ("noise_added",)
    variables = (CATALOGUE["noise_added"],)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.noise_added is not None
        return {"noise_added": _rows(step.noise_added, step).float()}, state


class Unguided(Probe):
    """Whether guidance could not act on the sample at this step."""

    needs = ("unguided",)
    variables = (CATALOGUE["unguided"],)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.unguided is not None
        return {"unguided": step.unguided.to(torch.int8)}, state


def _rows(value: float | torch.Tensor, step: GuidedStep) -> torch.Tensor:
    """One number a sample, ``(n,)``, float64."""
    if isinstance(value, torch.Tensor):
        return value.double()
    return torch.full((len(step.x_t),), value, dtype=torch.float64, device=step.x_t.device)
