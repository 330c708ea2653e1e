"""How far guidance moves a step, relative to the step's noise, and whether it could act at all."""

import torch

from probes.catalogue import CATALOGUE
from probes.probe import Probe
from probes.step import GuidedStep


class EffectiveStrength(Probe):
    """Norm of the shift over the norm of the step's noise: above 1 it leaves the manifold, below 1e-3 it is inert.

    The noise is the one that the step adds. If the step adds none, or the sampler does not give it, it is the noise of
    the DDPM posterior.

    Examples
    --------
    >>> x_t, gradient = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    >>> step = GuidedStep(step=0, timestep=999, x_t=x_t, gradient=gradient, shift=0.3 * gradient, sigma=0.5)
    >>> values, _ = EffectiveStrength().measure(step, None)
    >>> values["effective_strength"]
    tensor([0.6000])
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
    """Standard deviation of the noise that the step adds.

    Examples
    --------
    >>> x_t, gradient = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    >>> step = GuidedStep(step=0, timestep=999, x_t=x_t, gradient=gradient, noise_added=0.5)
    >>> NoiseAdded().measure(step, None)
    ({'noise_added': tensor([0.5000])}, None)
    """

    needs = ("noise_added",)
    variables = (CATALOGUE["noise_added"],)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.noise_added is not None
        return {"noise_added": _rows(step.noise_added, step).float()}, state


class Unguided(Probe):
    """Whether guidance could not act on the sample at this step: 1 if it could not, else 0.

    Examples
    --------
    >>> x_t, gradient = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), torch.nan)
    >>> step = GuidedStep(step=0, timestep=999, x_t=x_t, gradient=gradient, unguided=torch.tensor([True]))
    >>> Unguided().measure(step, None)
    ({'unguided': tensor([1], dtype=torch.int8)}, None)
    """

    needs = ("unguided",)
    variables = (CATALOGUE["unguided"],)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.unguided is not None
        return {"unguided": step.unguided.to(torch.int8)}, state


def _rows(value: float | torch.Tensor, step: GuidedStep) -> torch.Tensor:
    """One number per sample, ``(n,)``, float64."""
    if isinstance(value, torch.Tensor):
        return value.double()
    return torch.full((len(step.x_t),), value, dtype=torch.float64, device=step.x_t.device)
