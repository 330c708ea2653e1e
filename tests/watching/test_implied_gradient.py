"""The implied gradient against autograd of log p(c | x_t), on the exact denoiser of two Gaussian classes."""

import numpy as np
import pytest
import tiny_pipelines as tiny
import torch
from torch import nn

import gradscope

MEANS = torch.tensor([[-1.0, 0.5, 0.2], [0.8, -0.6, 1.0]], dtype=torch.float64)
SPREAD = 0.7
SETTINGS = [
    *[(name, kind) for name in ("DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
      for kind in ("epsilon", "v_prediction", "sample")],
    *[(name, kind) for name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler")
      for kind in ("epsilon", "v_prediction")],
    ("PNDMScheduler", "epsilon"),
    ("FlowMatchEulerDiscreteScheduler", "flow"),
    ("FlowMatchHeunDiscreteScheduler", "flow"),
]  # fmt: skip


class TwoClasses(nn.Module):
    """The denoiser of the mixture; `level` is set by the loop, and the condition is a class or None."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.level = kind, (0.0, 1.0)

    def log_joint(self, x):
        """Log p(c, x_t) up to a constant, ``(n, 2)``."""
        signal, noise = self.level
        variance = (signal * SPREAD) ** 2 + noise**2
        return -(x[:, None] - signal * MEANS).square().sum(dim=2) / (2 * variance)

    def original(self, x, condition):
        """E[x_0 | x_t, condition]."""
        signal, noise = self.level
        variance = (signal * SPREAD) ** 2 + noise**2
        each = MEANS + signal * SPREAD**2 / variance * (x[:, None] - signal * MEANS)
        if condition is not None:
            return each[:, condition]
        return (self.log_joint(x).softmax(dim=1)[:, :, None] * each).sum(dim=1)

    def forward(self, scaled, timestep, condition):
        signal, noise = self.level
        x = self.x_t  # float64, not scaled
        x_0 = self.original(x, condition)
        epsilon = (x - signal * x_0) / noise
        length = (signal**2 + noise**2) ** 0.5
        return {
            "epsilon": epsilon,
            "sample": x_0,
            "v_prediction": (signal * epsilon - noise * x_0) / length,
            "flow": epsilon - x_0,
        }[self.kind]


def level_at(scheduler, index, t):
    """Signal and noise, independently of gradscope: by noise added to ones and zeros, or the scheduler's own sigma."""
    if hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order:
        return 1.0, float(scheduler.sigmas_interpol[index])
    if not hasattr(scheduler, "sigmas"):
        a = float(scheduler.alphas_cumprod[int(t)])
        return a**0.5, (1 - a) ** 0.5
    sigma = float(scheduler.sigmas[index])
    if "FlowMatch" in type(scheduler).__name__:
        return 1 - sigma, sigma
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        return tuple(float(v) for v in scheduler._sigma_to_alpha_sigma_t(torch.tensor(sigma, dtype=torch.float64)))
    return 1.0, sigma


def loop(denoiser, scheduler, steps, start=0):
    """Classifier-free guidance by hand, two calls a step, in float64. Returns the true gradients."""
    scheduler.set_timesteps(steps)
    if start:
        scheduler.set_begin_index(start)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * float(getattr(scheduler, "init_noise_sigma", 1.0))
    true = []
    for i, t in enumerate(scheduler.timesteps[start:], start):
        denoiser.level, denoiser.x_t = level_at(scheduler, i, t), x
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        unconditional, conditional = denoiser(scaled, t, None), denoiser(scaled, t, 1)
        at = x.clone().requires_grad_()
        log_p = denoiser.log_joint(at).log_softmax(dim=1)[:, 1]
        true.append(torch.autograd.grad(log_p.sum(), at)[0])
        guided = unconditional + 3.0 * (conditional - unconditional)
        x = scheduler.step(guided, t, x).prev_sample
    return torch.stack(true, dim=1)


def made(name, kind):
    settings = {} if kind == "flow" else {"prediction_type": kind}
    if name == "DDIMScheduler":
        settings["clip_sample"] = False
    return tiny.scheduler_of(name, **settings)


@pytest.mark.parametrize(("name", "kind"), SETTINGS)
def test_it_is_the_gradient_of_the_implicit_classifier(tmp_path, name, kind):
    scheduler, denoiser = made(name, kind), TwoClasses(kind)
    with gradscope.watch(tmp_path / "w.zarr", denoiser=denoiser, scheduler=scheduler) as watched:
        true = loop(denoiser, scheduler, 6)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr").isel(classifier=0, classifier_input=0, stabilizer=0, guidance_scale=0)
    assert ds["gradient"].shape == true.shape
    size = true.norm(dim=2, keepdim=True).numpy()
    assert (np.abs(ds["gradient"].values - true.numpy()) <= 1e-4 * size + 1e-9).all()
    np.testing.assert_allclose(ds["guidance_weight"], 3.0, rtol=1e-4)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_a_start_in_the_middle_is_placed_at_its_timesteps(tmp_path, name):
    scheduler, denoiser = made(name, "epsilon"), TwoClasses("epsilon")
    if not hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index = lambda index: None
    with gradscope.watch(tmp_path / "w.zarr", denoiser=denoiser, scheduler=scheduler) as watched:
        true = loop(denoiser, scheduler, 6, start=2)
    assert watched.problems == []
    ds = gradscope.open(tmp_path / "w.zarr").isel(classifier=0, classifier_input=0, stabilizer=0, guidance_scale=0)
    assert ds.attrs["status"] == "complete"
    assert ((ds["written"] > 0).all("sample").values == [False, False, True, True, True, True]).all()
    size = true.norm(dim=2, keepdim=True).numpy()
    assert (np.abs(ds["gradient"].values[:, 2:] - true.numpy()) <= 1e-4 * size + 1e-9).all()
