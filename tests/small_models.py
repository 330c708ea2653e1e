"""Small models with known behaviour."""

from types import SimpleNamespace

import torch
from torch import nn

SIZE = 8
UNET = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


class LinearClassifier(nn.Module):
    """Logits linear in the image: the gradient of the log-probability has a closed form."""

    def __init__(self, channels: int = 3, size: int = SIZE, classes: int = 4, gain: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * size * size, classes)
        with torch.no_grad():
            self.linear.weight.mul_(gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


class ZeroUNet(nn.Module):
    """Predicts zero noise, so that a trajectory consists of the noise that was drawn."""

    config = SimpleNamespace(sample_size=SIZE, in_channels=3, out_channels=3)

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x * self.zero
