"""Running somebody's model: a copy of the input, in the type of the model's weights, and one form of output."""

import torch
from torch import Tensor, nn

from gradscope.models.logits import as_logits


def logits_of(classifier: nn.Module, images: Tensor) -> Tensor:
    """Logits ``(n, classes)`` of images ``(n, channel, height, width)``; see `as_logits`.

    The classifier gets a copy, so that one that works in place harms nothing; gradients pass through it.
    """
    return as_logits(classifier(_copy(images, classifier)))


def output_of(unet: nn.Module, x_t: Tensor, timestep: int) -> Tensor:
    """What a U-Net gives for x_t at one timestep, of the shape and type of x_t; it gets a copy."""
    output = unet(_copy(x_t, unet), torch.full((len(x_t),), timestep, device=x_t.device))
    return (output if isinstance(output, Tensor) else output.sample).to(x_t.dtype)


def _copy(x: Tensor, module: nn.Module) -> Tensor:
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), x.dtype)
    return x.clone().to(dtype)
