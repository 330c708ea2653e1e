"""Tones of four frequencies and random phase, each with a faint hum of its own. The classes are the frequencies.

A sample has the shape (channel, time). Up to 12 cycles there is noise; above there is almost none, except for the hum,
which has an amplitude of 0.03 beside the tone's 0.8. The exact classifier of clean signals listens to the hum, since
noise of 0.004 does not hide it. Nothing is left of it in noisy signals. It is a shortcut, like a microphone that tells
recordings apart.
"""

import math

import torch
from torch import Tensor, nn

from gradscope.models.mixture import Mixture, models_of

TIMES, CYCLES, HUMS, PHASES = 64, (2, 3, 5, 8), (20, 23, 26, 29), 8
"""Length of a signal; cycles of each class's tone and hum in it; number of phases, over half a turn."""
_TONE, _HUM, _NOISE, _QUIET, _BELOW = 0.8, 0.03, 0.1, 0.004, 12
"""Amplitudes of tone and hum; standard deviation of the noise up to `_BELOW` cycles and above."""


def data() -> Mixture:
    """The signals: each class has one component for each phase."""
    time, phase = torch.arange(TIMES) / TIMES, torch.arange(PHASES)[:, None] / (2 * PHASES)
    means = [
        _TONE * torch.sin(2 * math.pi * (tone * time + phase)) + _HUM * torch.cos(2 * math.pi * hum * time)
        for tone, hum in zip(CYCLES, HUMS, strict=True)
    ]
    cycles = torch.fft.fftfreq(TIMES, 1 / TIMES).abs()
    power = torch.where(cycles <= _BELOW, _NOISE**2, _QUIET**2).double()
    lag = torch.fft.ifft(power).real  # noise of this spectrum is stationary, so the covariance depends on the lag alone
    place = torch.arange(TIMES)
    return Mixture(torch.stack(means)[:, :, None], lag[(place[:, None] - place) % TIMES])


denoiser, exact, clean = models_of(data)


class Loudest(nn.Module):
    """Amplitudes of the four tones, as logits ``(n, 4)``; a judge that does not hear the hum."""

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * torch.tensor(CYCLES).to(x)[:, None] * torch.arange(TIMES).to(x) / TIMES
        power = (x[:, 0] @ angle.sin().T).square() + (x[:, 0] @ angle.cos().T).square()
        return 2 / TIMES * 10 * power.sqrt()


def judge() -> Loudest:
    """The judge of clean signals."""
    return Loudest()
