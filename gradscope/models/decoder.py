"""The decoder of a latent diffusion model, as a module from latents to images."""

from typing import Any

import torch
from torch import Tensor, nn


class Decoder(nn.Module):
    """The images of latents, by an autoencoder of diffusers.

    Parameters
    ----------
    autoencoder
        A module with ``decode(z).sample``, and a ``config`` with ``scaling_factor`` and, if it has one,
        ``shift_factor``.

    Examples
    --------
    >>> from diffusers import AutoencoderKL
    >>> decoder = Decoder(AutoencoderKL(block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D"] * 2,
    ...                                 up_block_types=["UpDecoderBlock2D"] * 2))
    >>> decoder(torch.zeros(1, 4, 8, 8)).shape
    torch.Size([1, 3, 16, 16])
    """

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        config = autoencoder.config
        self.scale = float(getattr(config, "scaling_factor", None) or 1.0)
        self.shift = float(getattr(config, "shift_factor", None) or 0.0)

    def forward(self, z: Tensor) -> Tensor:
        """Images ``(n, channel, height, width)`` of latents."""
        return self.autoencoder.decode(z / self.scale + self.shift).sample


def shape_of_images(decoder: nn.Module, sample_shape: tuple[int, ...], device: torch.device | str) -> tuple[int, ...]:
    """Shape of a decoder's images for latents of a shape."""
    with torch.no_grad():
        return tuple(decoder(torch.zeros(1, *sample_shape, device=device)).shape[1:])
