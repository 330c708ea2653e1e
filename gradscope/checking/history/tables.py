"""The tables of a DDPM that visits some of 1,000 timesteps, as guided-diffusion keeps them."""

import torch

from gradscope.checking.history.networks import Time


class Tables:
    """Squares of signals and the posterior's coefficients, by timestep.

    Parameters
    ----------
    steps
        How many timesteps are visited, evenly spaced.
    """

    def __init__(self, steps: int) -> None:
        self.alphas_cumprod = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(dim=0)
        self.timesteps = [round(999 - 1000 * k / steps) for k in range(steps)]

    def square(self, t: Time) -> float:
        """Signal squared at a timestep."""
        return float(self.alphas_cumprod[int(t)])

    def levels(self, t: Time) -> tuple[float, float]:
        return self.square(t) ** 0.5, (1 - self.square(t)) ** 0.5

    def next(self, t: Time) -> int | None:
        """The timestep after t in sampling order; None for the last."""
        place = self.timesteps.index(int(t)) + 1
        return self.timesteps[place] if place < len(self.timesteps) else None

    def square_next(self, t: Time) -> float:
        following = self.next(t)
        return 1.0 if following is None else self.square(following)

    def variance(self, t: Time) -> float:
        """Of the posterior of the next sample, given x_t and x_0."""
        a, b = self.square(t), self.square_next(t)
        return (1 - a / b) * (1 - b) / (1 - a)

    def coefficients(self, t: Time) -> tuple[float, float]:
        """Of x_0 and x_t in the posterior's mean."""
        a, b = self.square(t), self.square_next(t)
        return b**0.5 * (1 - a / b) / (1 - a), (a / b) ** 0.5 * (1 - b) / (1 - a)
