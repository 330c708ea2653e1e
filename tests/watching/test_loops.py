"""Loops in the styles of public code are watched: the same samples, and the gradients that the loop used."""

import json

import numpy as np
import pytest
import torch
import watched_loops as loops
import xarray as xr

import gradscope

LOOPS = {
    "nrCG": (lambda: loops.Plain(), "x_t", 6),
    "nrCG through x0": (lambda: loops.Plain(through_x0=True), "x0", 6),
    "nrCG, one step": (lambda: loops.Plain(steps=1), "x_t", 1),
    "guided-diffusion": (lambda: loops.GuidedDiffusion(), "x_t", 6),
    "guided-diffusion, backward": (lambda: loops.GuidedDiffusion(backward=True), "x_t", 6),
    "guided-diffusion, a loss": (lambda: loops.GuidedDiffusion(minimize=True), "x_t", 6),
    "guided-diffusion, DDIM": (lambda: loops.GuidedDiffusion(ddim=True), "x_t", 6),
    "DPS": (lambda: loops.DPS(), "x0", 6),
    "k-diffusion": (lambda: loops.KDiffusion(), "x0", 5),
    "real-time chunking": (lambda: loops.RealTimeChunking(), "x0", 5),
    "physicsnemo": (lambda: loops.Protocol(), "x0", 5),
    "MPGD": (lambda: loops.AtX0(), "at_x0", 6),
}


def record(path, loop, **further):
    with gradscope.watch(path, **{**loop.watched, **further}) as watched:
        samples, gradients = loop()
        watched.final(samples)
    return watched, samples, gradients


def hooks_of(loop):
    modules = [module for module in loop.watched.values() if isinstance(module, torch.nn.Module)]
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for module in modules for m in module.modules()]


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_gives_the_same_samples_and_its_gradients_are_recorded_to_the_bit(tmp_path, name):
    make, classifier_input, timesteps = LOOPS[name]
    plain, _ = make()()
    loop = make()
    watched, samples, gradients = record(tmp_path / "w.zarr", loop)
    assert torch.equal(plain, samples)
    assert watched.problems == []
    assert not any(hooks_of(loop))
    assert "step" not in getattr(loop.watched.get("scheduler"), "__dict__", {})
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds.attrs["status"] == "complete"
    assert ds.sizes["timestep"] == timesteps
    assert ds["classifier_input"].values.tolist() == [classifier_input]
    recorded = ds["gradient"].values[0, 0, 0, 0]
    np.testing.assert_array_equal(recorded, torch.stack(gradients, dim=1).numpy())
    assert (ds["written"] == 3).all()
    np.testing.assert_array_equal(ds["image"].values[0, 0, 0, 0], plain.numpy())
    with xr.open_zarr(tmp_path / "w.zarr") as raw:
        np.testing.assert_array_equal(raw["gradient"].values[0, 0, 0, 0], recorded)
    assert gradscope.verify(tmp_path / "w.zarr").findings == ()
    assert gradscope.report(ds) is not None


@pytest.mark.parametrize("name", ["nrCG through x0", "guided-diffusion", "guided-diffusion, a loss"])
def test_labels_are_read_off_the_gradient(tmp_path, name):
    loop = LOOPS[name][0]()
    record(tmp_path / "w.zarr", loop)
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds["label"].values.tolist() == loops.LABELS.tolist()
    assert {"log_prob", "margin", "predicted_class"} <= {*ds}
    assert ds.attrs["guidance_kind"] == "classifier"
    x = ds["x_t"].isel(timestep=-1).values[0, 0, 0, 0]
    time = torch.full((4,), int(ds["timestep"][-1]))
    guide, at = loop.guide, torch.as_tensor(x)
    with torch.no_grad():
        logits = guide(at, time) if "guided" in name else None
    if logits is not None:
        expected = logits.double().log_softmax(1).gather(1, loops.LABELS[:, None])[:, 0]
        np.testing.assert_allclose(ds["log_prob"].values[0, 0, 0, 0, :, -1], expected, rtol=1e-5)


def test_the_value_of_an_energy_is_recorded(tmp_path):
    loop = loops.AtX0()
    record(tmp_path / "w.zarr", loop)
    ds = gradscope.open(tmp_path / "w.zarr")
    assert ds.attrs["guidance_kind"] == "energy"
    seen = torch.as_tensor(ds["pred_original_sample"].values[0, 0, 0, 0])
    with torch.no_grad():
        expected = torch.stack([loop.dps.guide(x_0) for x_0 in seen.unbind(dim=1)], dim=1)
    np.testing.assert_allclose(ds["energy"].values[0, 0, 0, 0], expected, rtol=1e-4)


def test_the_shift_of_a_loop_that_adds_to_prev_sample_is_what_it_added(tmp_path):
    loop = loops.Plain(scale=4.0)
    _, _, gradients = record(tmp_path / "w.zarr", loop)
    ds = gradscope.open(tmp_path / "w.zarr").isel(classifier=0, classifier_input=0, stabilizer=0, guidance_scale=0)
    assert (ds["shift_direction_cosine"] > 0.999).all()
    sigma, added = ds["sigma"].values, ds["noise_added"].values
    shift = 4.0 * 0.05 * torch.stack(gradients, 1).flatten(2).norm(dim=2).numpy()
    noise = np.where(added > 0, added, sigma)
    with np.errstate(divide="ignore"):
        expected = np.where(noise > 0, shift / (noise * np.sqrt(192)), np.nan)
    np.testing.assert_allclose(ds["effective_strength"].values, expected, rtol=2e-3)
    np.testing.assert_allclose(ds["alphas_cumprod"], loop.scheduler.alphas_cumprod[ds["timestep"].values], rtol=1e-6)


@pytest.mark.slow
def test_x0_hat_and_the_score_are_those_of_the_scheduler(tmp_path):
    for prediction_type in ("epsilon", "v_prediction", "sample"):
        loop = loops.Plain(prediction_type=prediction_type, clip_sample=False)
        path = tmp_path / f"{prediction_type}.zarr"
        record(path, loop)
        ds = gradscope.open(path).isel(classifier=0, classifier_input=0, stabilizer=0, guidance_scale=0)
        loop.scheduler.set_timesteps(6)
        for i, t in enumerate(loop.scheduler.timesteps):
            x = torch.as_tensor(ds["x_t"].values[:, i])
            with torch.no_grad():
                output = loop.unet(x, t).sample
            expected = loop.scheduler.step(output, t, x).pred_original_sample
            np.testing.assert_allclose(ds["pred_original_sample"].values[:, i], expected, rtol=1e-4, atol=1e-4)


def test_of_repeated_evaluations_the_last_counts_or_each_is_recorded(tmp_path):
    loop = loops.Recurrence(repeats=3)
    _, _, gradients = record(tmp_path / "last.zarr", loop)
    ds = gradscope.open(tmp_path / "last.zarr")
    np.testing.assert_array_equal(ds["gradient"].values[0, 0, 0, 0], torch.stack(gradients[2::3], 1).numpy())
    assert json.loads(ds.attrs["seen"])["repeated"] == 4
    watched, _, gradients = record(tmp_path / "each.zarr", loops.Recurrence(repeats=3), repeats=3)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "each.zarr")
    assert ds.sizes["repeat"] == 3
    expected = torch.stack(gradients, 1).unflatten(1, (4, 3)).numpy()
    np.testing.assert_array_equal(ds["gradient"].values[0, 0, 0, 0], expected)


def test_heuns_second_evaluation_counts(tmp_path):
    """The denoiser runs at the next sigma, then again there at the next step: the second is at the true x_t."""
    loop = loops.KDiffusion(heun=True)
    watched, _, gradients = record(tmp_path / "w.zarr", loop)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr")
    kept = [gradients[i] for i in (0, 2, 4, 6, 8)]
    np.testing.assert_array_equal(ds["gradient"].values[0, 0, 0, 0], torch.stack(kept, 1).numpy())
    np.testing.assert_allclose(ds["timestep"], loop.sigmas[:-1], rtol=1e-6)


def test_a_gradient_at_x0_is_said_to_be_one(tmp_path):
    record(tmp_path / "w.zarr", loops.AtX0())
    findings = gradscope.signatures(gradscope.open(tmp_path / "w.zarr"))
    said = findings[findings["signature"] == "not_at_x_t"].iloc[0]
    assert "with respect to x0-hat" in said["evidence"]
    assert "MPGD" in said["advice"]
