"""Made-up guided steps, and the probes' values on them."""

import numpy as np
import torch
from torch import nn

from probes import NAMED, GuidedStep, Trace

N, SHAPE = 4, (3, 8, 8)
MODULES = {
    "classifier": nn.ModuleDict({"linear": nn.Identity()}),
    "unet": nn.ModuleDict({"mid_block": nn.Identity()}),
}


def make_steps(count=5, scale=1.0, dtype=torch.float32):
    """Gradients and updates have `dtype`, other tensors float32."""
    generator = torch.Generator().manual_seed(0)
    conditional = torch.randn(2, count, N, *SHAPE, generator=torch.Generator().manual_seed(1))

    def image(dtype=torch.float32):
        return torch.randn(N, *SHAPE, generator=generator, dtype=dtype)

    return [
        GuidedStep(
            step=i,
            timestep=100 - i,
            x_t=image(),
            gradient=image(dtype) * scale,
            label=torch.tensor([0, 1, 2, 0]),
            model_output=image(),
            pred_original_sample=image().clamp(-1, 1),
            clip_range=1.0,
            logits=torch.randn(N, 3, generator=generator) * 5,
            energy=torch.linspace(-3, 0, N, dtype=torch.float64),
            conditional_output=conditional[0, i],
            conditional_original_sample=conditional[1, i],
            guidance_weight=7.5,
            update=image(dtype) * scale,
            direction=image(),
            shift=image() * 0.01,
            prev_sample=image(),
            unguided=torch.tensor([False, i == 1, False, True]),
            sigma=0.1 * (count - 1 - i),
            noise_added=0.2 * (count - 1 - i),
            num_train_timesteps=1000,
            alphas_cumprod=0.5,
            objective=lambda x, label: (label[:, None] * x.flatten(1).square()).sum(dim=1) * scale,
        )
        for i in range(count)
    ]


def run(names, steps):
    trace = Trace([probe for name in names for probe in NAMED[name]()])
    for step in steps:
        trace(step)
    return trace


def flat(steps, name):
    """A tensor of all steps, (steps, n, d), in float64."""
    return np.stack([getattr(step, name).double().numpy().reshape(N, -1) for step in steps])


def check(got, expected, rtol=1e-5):
    """Compare `got`, (n, steps), with `expected`, (steps, n)."""
    np.testing.assert_allclose(got.numpy(), expected.T, rtol=rtol, atol=1e-30)
