"""Spectrum and magnitudes: against the probe, against the analysis of tensors, and by counting."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from small_store import BAD, GOOD, TENSORS, TIMESTEPS

from gradscope.analysis import from_tensors
from gradscope.errors import GradscopeError
from gradscope.plots.magnitudes import draw_magnitudes, magnitudes, magnitudes_numbers
from gradscope.plots.spectrum import draw_spectrum, radial_spectrum, spectrum, spectrum_numbers
from gradscope.plots.stored_gradient import stored_gradient
from gradscope.store import CELL_DIMS
from probes import GuidedStep, Spectrum

AT_GOOD = (0, 0, 0, 1)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (2, 9, 7)])
def test_the_spectrum_equals_that_of_the_probe(shape):
    gradient = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    gradient[1] = 0
    step = torch.as_tensor(gradient)
    values, _ = Spectrum().measure(GuidedStep(step=0, timestep=0, x_t=step, gradient=step), None)
    np.testing.assert_allclose(radial_spectrum(gradient.astype(np.float64)), values["radial_spectrum"], rtol=1e-5)


def test_the_spectrum_of_the_stored_gradients_agrees_with_the_analysis_of_tensors(ds):
    numbers = spectrum_numbers(ds, GOOD)
    assert len(numbers) == 12 * TIMESTEPS
    above = numbers[numbers["radial_frequency"] > 0.25].groupby("timestep", sort=False)["share"].sum()
    expected = from_tensors(ds)["high_frequency_share"].values[AT_GOOD][:TENSORS].mean(axis=0)
    np.testing.assert_allclose(above, expected)
    assert set(numbers["n"]) == {TENSORS}
    assert numbers.attrs["source"] == "the first 4 samples, 10 timesteps"


def test_a_recorded_spectrum_is_preferred_to_tensors(ds):
    rng = np.random.default_rng(0)
    recorded = rng.dirichlet(np.ones(12), size=(*ds["log_prob"].shape,))
    recorded[(*AT_GOOD, 0, 3)] = np.nan
    ds["radial_spectrum"] = ((*CELL_DIMS, "sample", "timestep", "radial_frequency"), recorded)
    numbers = spectrum_numbers(ds.drop_vars("gradient"), GOOD)
    share = numbers["share"].to_numpy().reshape(TIMESTEPS, 12)
    np.testing.assert_allclose(share, np.nanmean(recorded[AT_GOOD], axis=0))
    assert numbers["n"].to_numpy().reshape(TIMESTEPS, 12)[:, 0].tolist() == [16] * 3 + [15] + [16] * 6
    assert "all 16 samples, recorded" in numbers.attrs["source"]


def test_white_noise_is_zero_in_the_map(ds):
    ds["gradient"][...] = np.random.default_rng(0).normal(size=ds["gradient"].shape)
    numbers = spectrum_numbers(ds, BAD)
    count = np.zeros(12)
    for i, j in product(range(8), range(8)):
        squared = Fraction(min(i, 8 - i), 8) ** 2 + Fraction(min(j, 8 - j), 8) ** 2
        count[next(b for b in range(12) if squared <= Fraction(b + 1, 16) ** 2)] += 1
    np.testing.assert_allclose(numbers["white"].to_numpy().reshape(TIMESTEPS, 12), [count / 64] * TIMESTEPS)
    share = numbers["share"].to_numpy().reshape(TIMESTEPS, 12)
    np.testing.assert_allclose(share.mean(axis=0)[count > 2], count[count > 2] / 64, rtol=0.15)
    drawn = np.asarray(draw_spectrum(numbers).data[0].z, dtype=float)
    np.testing.assert_allclose(drawn[count > 0].T, np.log10(share[:, count > 0] / (count[count > 0] / 64)))
    assert np.isnan(drawn[count == 0]).all()


def test_the_map_has_one_limit_for_all_cells(ds):
    traces = [spectrum(ds, cell).data[0] for cell in (GOOD, BAD)]
    assert {(trace.zmin, trace.zmax) for trace in traces} == {(-2, 2)}
    assert traces[0].z.shape == (12, TIMESTEPS)
    assert spectrum(ds, GOOD).layout.meta == {"timestep": True}


def test_magnitudes_count_elements(ds):
    ds["gradient"][(*AT_GOOD, 0, 2, 0, 0)] = 0
    ds["gradient"][(*AT_GOOD, 1, 2, 0, 0, slice(0, 3))] = [np.nan, np.inf, -np.inf]
    numbers = magnitudes_numbers(ds, GOOD)
    for k in (0, 2, 9):
        rows = numbers[numbers["timestep"] == ds["timestep"].values[k]]
        elements = ds["gradient"].values[AT_GOOD][:TENSORS, k].ravel()
        finite = elements[np.isfinite(elements) & (elements != 0)]
        edges = np.append(rows["log10_magnitude"] - 0.1, rows["log10_magnitude"].iloc[-1] + 0.1)
        expected = np.histogram(np.log10(np.abs(finite)), edges)[0] / elements.size
        np.testing.assert_allclose(rows["share"], expected)
        zero, lost = (8 / 768, 3 / 768) if k == 2 else (0, 0)
        assert (rows["zero"].iloc[0], rows["not_finite"].iloc[0]) == (zero, lost)
        assert rows["share"].sum() + zero + lost == pytest.approx(1)
        assert rows["median"].iloc[0] == pytest.approx(np.log10(np.median(np.abs(finite))), abs=0.01)


def test_magnitudes_draw_the_numbers(ds):
    numbers = magnitudes_numbers(ds, GOOD)
    figure = draw_magnitudes(numbers)
    zero, lost, map_, median = figure.data
    z = np.nan_to_num(np.asarray(map_.z, dtype=float))
    np.testing.assert_allclose(z.T.ravel(), numbers["share"])
    assert zero.name == "exactly 0: up to 0.00%"
    np.testing.assert_array_equal(median.y, numbers.groupby("timestep", sort=False)["median"].first())
    assert "first 4 samples, 10 timesteps" in figure.layout.title.text


def test_zero_gradients_have_an_empty_map(ds):
    ds["gradient"][...] = 0
    numbers = magnitudes_numbers(ds, GOOD)
    assert set(numbers["zero"]) == {1}
    draw_magnitudes(numbers)
    assert spectrum_numbers(ds, GOOD)["share"].isna().all()
    spectrum(ds, GOOD)


@pytest.mark.parametrize("chunks", [None, {"timestep": 3, "sample": 2}])
def test_a_limited_part_is_read_chunk_by_chunk(ds, chunks):
    expected = ds["gradient"].values[AT_GOOD]
    stored = stored_gradient(ds if chunks is None else ds.chunk(chunks), GOOD, samples=2, timesteps=4)
    t = ds["timestep"].values
    assert stored.timestep.tolist() == t[[0, 3, 6, 9]].tolist()
    assert stored.samples.tolist() == [0, 1]
    read = dict(stored.read())
    assert list(read) == [0, 1, 2, 3]
    for place, k in enumerate((0, 3, 6, 9)):
        np.testing.assert_array_equal(read[place], expected[:2, k])
    with pytest.raises(GradscopeError, match="got 100 samples and 100 timesteps; from 1 to 4096 gradients together"):
        stored_gradient(ds, GOOD, samples=100, timesteps=100)


def test_gradients_that_are_not_stored_yet_do_not_count(ds):
    ds["written"][(*AT_GOOD, slice(1, None))] = 1
    ds["written"][(*AT_GOOD, 0, slice(7, None))] = 0
    ds["gradient"] = ds["gradient"].where(ds["written"] >= 3)
    numbers = magnitudes_numbers(ds, GOOD)
    assert numbers["timestep"].unique().tolist() == ds["timestep"].values[:7].tolist()
    assert set(numbers["not_finite"]) == {0}
    ds["written"][AT_GOOD] = 1
    with pytest.raises(GradscopeError, match="no gradient of this cell is stored yet"):
        magnitudes(ds, GOOD)
    with pytest.raises(GradscopeError, match="gradient is not in this store; the probe `gradient` records it"):
        spectrum(ds.drop_vars("gradient"), GOOD)
