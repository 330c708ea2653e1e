"""The gradient's power by frequency, spatial or in time: adversarial texture has high frequencies."""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from probes.catalogue import CATALOGUE
from probes.probe import Probe
from probes.step import GuidedStep
from probes.variable import Coordinate, Variable

_WIDTH = 1 / 16
_BINS = 12
"""Bins reach the corner of the frequency plane, sqrt(1/2) cycles per pixel."""
_HALF_NYQUIST = 4
"""Number of bins up to 1/4 cycle per pixel."""
_CENTRES = tuple((j + 0.5) * _WIDTH for j in range(_BINS))
_OF_IMAGES = (3, 4)
"""Ranks of samples whose last two dimensions are height and width: images and videos."""


def _variables(long_name: str, units: str) -> tuple[Variable, ...]:
    """The variables, with the frequencies in these units."""
    frequency = Coordinate(_CENTRES, long_name, units)
    return (
        CATALOGUE["high_frequency_share"],
        replace(CATALOGUE["radial_spectrum"], coords={"radial_frequency": frequency}),
    )


class Spectrum(Probe):
    """Radial power spectrum of the gradient, over all channels, and its share above half the Nyquist frequency.

    The mean is not removed: a gradient that only brightens is all low frequency (share 0, in the first bin). White
    noise has a share of about 1 - pi / 16 = 0.80 over two axes and 1 / 2 over one. NaN for gradients that are zero or
    not finite. Bin j holds the frequencies above j / 16 up to (j + 1) / 16 cycle per pixel; the first bin also holds
    frequency 0. A bin without a frequency of the sample's grid holds 0.

    Parameters
    ----------
    axes
        The one or two axes of a sample that have frequencies, from 0: ``[1]`` for a signal (channel, time), ``[0]`` for
        a trajectory (horizon, action). None: height and width, the last two of an image or a video.

    Examples
    --------
    >>> checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(1, 1, 4, 4)
    >>> gradient = torch.cat([torch.ones(1, 1, 8, 8), checkerboard])
    >>> step = GuidedStep(step=0, timestep=999, x_t=torch.zeros(2, 1, 8, 8), gradient=gradient)
    >>> values, _ = Spectrum().measure(step, None)
    >>> values["high_frequency_share"]
    tensor([0., 1.])
    """

    variables = _variables("radial spatial frequency, centre of the bin", "cycle/pixel")

    def __init__(self, axes: list[int] | None = None) -> None:
        if axes is not None and not (1 <= len(axes) <= 2 and len(set(axes)) == len(axes) and min(axes) >= 0):
            raise ValueError(f"axes must be one or two different axes of a sample, from 0, got {axes}")
        self.axes = axes
        if axes is not None:
            self.variables = _variables("radial frequency, centre of the bin", "cycle/element")

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        axes = self._axes_of(tuple(step.gradient.shape[1:]))
        gradient = step.unit_rows("gradient").view(step.gradient.shape)  # unit gradients: no square underflows
        last = gradient.movedim(axes, tuple(range(-len(axes), 0)))
        planes = last.reshape(len(gradient), -1, *(1, *last.shape[-len(axes) :])[-2:])  # a line is a plane of one row
        power = torch.fft.rfft2(planes).abs().square().sum(dim=1)
        radial = power.flatten(1) @ _members(*planes.shape[2:], power.device)
        share = radial / radial.sum(dim=1, keepdim=True)
        high = share[:, _HALF_NYQUIST:].sum(dim=1)
        return {"high_frequency_share": high.float(), "radial_spectrum": share.float()}, state

    def _axes_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The axes of a block of samples of a shape."""
        if self.axes is None and len(shape) in _OF_IMAGES:
            return len(shape) - 1, len(shape)
        if self.axes is None:
            raise ValueError(
                f"spectrum: samples of shape {shape} have no height and width; name the axes that have frequencies, "
                "for example spectrum: {axes: [1]} for a signal (channel, time), or leave this probe out"
            )
        if max(self.axes) >= len(shape):
            raise ValueError(
                f"spectrum: axes must lie below {len(shape)} for samples of shape {shape}, got {self.axes}"
            )
        return tuple(axis + 1 for axis in sorted(self.axes))


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
