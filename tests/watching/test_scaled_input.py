"""A watched loop of Euler's, whose models get x_t scaled to unit variance."""

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler

import gradscope
from gradscope.models.examples import points
from gradscope.models.mixture import scheduler
from probes import ReferenceCosine, Tensor


def loop(unet, guide, euler, label):
    euler.set_timesteps(6)
    x = torch.randn(len(label), 2, generator=torch.Generator().manual_seed(0)) * euler.init_noise_sigma
    for t in euler.timesteps:
        with torch.no_grad():
            epsilon = unet(euler.scale_model_input(x, t), t)
        x_t = x.detach().requires_grad_()
        value = guide(euler.scale_model_input(x_t, t), t).log_softmax(dim=1).gather(1, label[:, None]).sum()
        (gradient,) = torch.autograd.grad(value, x_t)
        x = euler.step(epsilon - 0.1 * gradient, t, x).prev_sample
    return x


def test_the_reference_of_a_watched_loop_sees_what_its_models_see(tmp_path):
    unet, guide = points.denoiser()[0], points.exact()
    euler, label = EulerDiscreteScheduler.from_config(scheduler().config), torch.tensor([0, 1, 0])
    probes = [Tensor("gradient"), ReferenceCosine(points.exact())]
    with gradscope.watch(tmp_path / "w.zarr", denoiser=unet, guide=guide, scheduler=euler, probes=probes) as watched:
        watched.labels(label)
        watched.final(loop(unet, guide, euler, label))
    cosine = gradscope.open(tmp_path / "w.zarr")["reference_cosine"].values
    np.testing.assert_allclose(cosine.reshape(3, 6), 1, rtol=1e-4)
