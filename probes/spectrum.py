"""The gradient's power by spatial frequency: adversarial texture has high frequencies."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from probes.catalogue import CATALOGUE
from probes.probe import Probe
from probes.step import GuidedStep
from probes.variable import Coordinate

_WIDTH = 1 / 16
_BINS = 12
"""Bins reach the corner of the frequency plane, sqrt(1/2) cycles per pixel."""
_HALF_NYQUIST = 4
"""Number of bins up to 1/4 cycle per pixel."""
_CENTRES = Coordinate(
    tuple((j + 0.5) * _WIDTH for j in range(_BINS)), "radial spatial frequency, centre of the bin", "cycle/pixel"
)


class Spectrum(Probe):
    """Radial power spectrum of the gradient, over all channels, and its share above half the Nyquist frequency.

    The mean is not removed: a gradient that only brightens is all low frequency (share 0, in the first bin). White
    noise has a share of about 1 - pi / 16 = 0.80. NaN for gradients that are zero or not finite. Bin j holds the
    frequencies above j / 16 up to (j + 1) / 16 cycle per pixel; the first bin also holds frequency 0. A bin without a
    frequency of the image's grid holds 0.

    Examples
    --------
    >>> checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(1, 1, 4, 4)
    >>> gradient = torch.cat([torch.ones(1, 1, 8, 8), checkerboard])
    >>> step = GuidedStep(step=0, timestep=999, x_t=torch.zeros(2, 1, 8, 8), gradient=gradient)
    >>> values, _ = Spectrum().measure(step, None)
    >>> values["high_frequency_share"]
    tensor([0., 1.])
    """

    variables = (
        CATALOGUE["high_frequency_share"],
        replace(CATALOGUE["radial_spectrum"], coords={"radial_frequency": _CENTRES}),
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        height, width = step.gradient.shape[2:]
        gradient = step.unit_rows("gradient").view(step.gradient.shape)  # unit gradients: no square underflows
        power = torch.fft.rfft2(gradient).abs().square().sum(dim=1)
        radial = power.flatten(1) @ _members(height, width, power.device)
        share = radial / radial.sum(dim=1, keepdim=True)
        high = share[:, _HALF_NYQUIST:].sum(dim=1)
        return {"high_frequency_share": high.float(), "radial_spectrum": share.float()}, state


@lru_cache(maxsize=8)  # computed on the host once per image size
def _members(height: int, width: int, device: torch.device) -> Tensor:
    """Weight of each frequency of `rfft2` in each bin, ``(height * (width // 2 + 1), bins)``, float64.

    The spectrum of a real image is symmetric, so frequencies count twice for the half that `rfft2` leaves out.
    """
    vertical = torch.fft.fftfreq(height, dtype=torch.float64)
    horizontal = torch.fft.rfftfreq(width, dtype=torch.float64)
    radius = torch.hypot(vertical[:, None], horizontal[None, :])
    # Rounding must not lift a frequency on a bin's upper edge into the next one.
    index = (radius / _WIDTH - 1e-9).ceil().long() - 1
    twice = torch.full((width // 2 + 1, 1), 2.0, dtype=torch.float64)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    members = torch.nn.functional.one_hot(index.clamp(min=0), _BINS) * twice
    return members.flatten(0, 1).to(device)
