"""The radial spectrum, re-derived frequency by frequency in exact arithmetic."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch

from probes import GuidedStep, Spectrum


def measure(gradient):
    gradient = torch.as_tensor(gradient, dtype=torch.float32)
    values, _ = Spectrum().measure(GuidedStep(step=0, timestep=0, x_t=gradient, gradient=gradient), None)
    return values["high_frequency_share"].numpy(), values["radial_spectrum"].numpy()


def spectrum_of(image):
    """Shares of the twelve bins of one image (channel, height, width)."""
    height, width = image.shape[1:]
    power = (np.abs(np.fft.fft2(image)) ** 2).sum(axis=0)
    bins = np.zeros(12)
    for i, j in product(range(height), range(width)):
        squared = Fraction(min(i, height - i), height) ** 2 + Fraction(min(j, width - j), width) ** 2
        bins[next(b for b in range(12) if squared <= Fraction(b + 1, 16) ** 2)] += power[i, j]
    return bins / bins.sum()


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (3, 12, 20), (2, 9, 7)])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e-37, 1e30])
def test_the_spectrum_equals_numpys_fourier_transform_at_any_scale(shape, scale):
    gradient = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32") * np.float32(scale)
    high, radial = measure(gradient)
    for i in range(2):
        expected = spectrum_of(gradient[i].astype("float64"))
        np.testing.assert_allclose(radial[i], expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(high[i], expected[4:].sum(), rtol=1e-5)
    np.testing.assert_allclose(radial.sum(axis=1), 1, rtol=1e-6)


def test_the_share_is_that_of_the_bins_above_a_quarter_cycle_per_pixel():
    (coordinate,) = [v.coords["radial_frequency"] for v in Spectrum.variables if v.dims]
    centres = np.array(coordinate.values)
    np.testing.assert_allclose(centres, (np.arange(12) + 0.5) / 16)
    assert coordinate.units == "cycle/pixel"
    high, radial = measure(np.random.default_rng(1).normal(size=(3, 3, 16, 16)))
    np.testing.assert_allclose(radial[:, centres > 0.25].sum(axis=1), high, rtol=1e-6)


@pytest.mark.parametrize(
    ("cycles", "bin_"), [((0, 0), 0), ((1, 0), 0), ((4, 0), 1), ((8, 0), 3), ((6, 8), 4), ((16, 16), 11)]
)
def test_a_wave_lies_in_the_bin_of_its_frequency(cycles, bin_):
    rows, columns = np.mgrid[:32, :32]
    wave = np.cos(2 * np.pi * (cycles[0] * rows + cycles[1] * columns) / 32)
    high, radial = measure(wave[None, None] * np.ones((1, 3, 1, 1)))
    np.testing.assert_allclose(radial[0], np.eye(12)[bin_], atol=1e-6)
    assert high[0] == pytest.approx(float(bin_ >= 4), abs=1e-6)


def test_white_noise_has_a_share_of_one_minus_a_sixteenth_of_pi():
    high, _ = measure(np.random.default_rng(2).normal(size=(20, 3, 64, 64)))
    assert high.mean() == pytest.approx(1 - np.pi / 16, abs=0.01)


def test_zero_and_non_finite_gradients_have_no_spectrum():
    gradient = np.random.default_rng(3).normal(size=(4, 3, 8, 8))
    gradient[0], gradient[1, 0, 0, 0], gradient[2, 1, 2, 3] = 0, np.nan, np.inf
    high, radial = measure(gradient)
    assert np.isnan(high[:3]).all()
    assert np.isnan(radial[:3]).all()
    assert np.isfinite(radial[3]).all()
