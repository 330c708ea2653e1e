"""A user's own module, as text: models, callables and probes that a configuration may name."""

USERS = """
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn
from probes import Probe, Variable

def denoiser(**options):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
    settings = {"sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    return UNet2DModel(**settings, **blocks, **options), DDPMScheduler()

def conditional():
    return denoiser(num_class_embeds=4)

def linear(size=8, channels=3, classes=4, seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, classes))

def judge():
    return linear(seed=2)

def large():
    return linear(size=16)

def grey():
    return linear(channels=1)

def three():
    return linear(classes=3)

class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :4] * float("nan")

class Means(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))

class Silent(Probe):
    variables = (Variable("peak", "largest", "max|g_t|"),)

class Needy(Silent):
    needs = ("gradiant",)

    def measure(self, step, state):
        return {}, state

class Fails(Silent):
    def measure(self, step, state):
        return {"peak": step.gradient.abs().amax(dim=9)}, state
"""
