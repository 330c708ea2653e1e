"""Stores of other processes than DDPM: their coordinates, and what reads them."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)
from small_models import LinearClassifier, ZeroUNet

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler

SCHEDULERS = {
    "ddim": (DDIMScheduler(), {"eta": 0.5}),
    "sde": (DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), {}),
    "ancestral": (EulerAncestralDiscreteScheduler(), {}),
    "edm": (EDMEulerScheduler(), {}),
    "flow": (FlowMatchEulerDiscreteScheduler(), {}),
    "heun": (HeunDiscreteScheduler(), {}),
    "pndm": (PNDMScheduler(), {}),
}
LABELS = [0, 1, 2, 3] * 3
PROBES = ["norms", "gradient", "x_t", "update", "cosines", "strength", "belief", "fractions", "pred_original_sample"]


@pytest.fixture(scope="module", params=SCHEDULERS)
def stored(request, tmp_path_factory):
    scheduler, options = SCHEDULERS[request.param]
    torch.manual_seed(0)
    guidance = ClassifierGuidance(LinearClassifier(gain=0.1), "x0_detached", 0.1)
    made = GuidedSampler(ZeroUNet(), scheduler, guidance, **options)
    path = tmp_path_factory.mktemp(request.param) / "a.zarr"
    with gradscope.record(made, path, PROBES, judge=LinearClassifier()) as recorder:
        recorder.sample(LABELS, 6, batch_size=4)
    return request.param, path, gradscope.open(path).load()


@pytest.mark.slow
def test_the_coordinates_are_the_processs(stored):
    name, _, ds = stored
    scheduler, _ = SCHEDULERS[name]
    scheduler.set_timesteps(6)
    np.testing.assert_allclose(ds.timestep, scheduler.timesteps.numpy(), rtol=1e-6)
    assert ds.step.values.tolist() == list(range(len(scheduler.timesteps)))
    share = ds.signal**2 / (ds.signal**2 + ds.noise**2)
    np.testing.assert_allclose(ds.alphas_cumprod, share, rtol=1e-6)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(ds.log_snr, 2 * np.log(ds.signal / ds.noise), rtol=1e-6)
    x_0 = (ds.x_t - 0 * ds.noise) / ds.signal if name in ("sde", "ancestral") else None  # predicted noise is 0
    if x_0 is not None:
        np.testing.assert_allclose(ds.pred_original_sample.transpose(*x_0.dims), x_0, rtol=1e-4)


def test_noise_that_is_added_and_strength(stored):
    name, _, ds = stored
    adds = name in ("ddim", "sde", "ancestral")
    inner = ds.noise_added.isel(timestep=slice(1, -1))
    assert bool((inner > 0).all()) == adds
    assert (inner == 0).all() or adds
    noise = ds.noise_added.where(ds.noise_added > 0, ds.sigma)
    known = noise > 0
    expected = ds.effective_strength.where(known)
    assert np.isfinite(expected.where(known, 0)).all()
    assert ds.effective_strength.where(~known).isnull().all()
    guided = ds.unguided == 0
    assert (~guided).any() == (name == "flow")  # at signal 0
    assert (~guided).isel(timestep=slice(1, None)).sum() == 0
    cosine = ds.shift_direction_cosine.where(guided & ds.shift_direction_cosine.notnull())
    np.testing.assert_allclose(cosine.values[np.isfinite(cosine.values)], 1, atol=1e-6)


def test_report_verification_and_figures_read_it(stored, tmp_path):
    _, path, ds = stored
    assert gradscope.verify(path).findings == ()
    assert "misdirected" not in set(gradscope.signatures(ds).get("signature", []))
    gradscope.report(ds)
    assert gradscope.summary(ds).judge_accuracy.notnull().all()
