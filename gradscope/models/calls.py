"""Calls of users' models: they get a copy of the input in the type of their weights, and their output is checked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError
from gradscope.models.logits import as_logits
from probes.timed import ask


def logits_of(classifier: nn.Module, images: Tensor, timestep: float = 0) -> Tensor:
    """Logits ``(n, classes)`` of images ``(n, channel, height, width)``; see `as_logits`.

    The classifier gets a copy, in case it works in place. Gradients pass through the copy. A noise-aware classifier
    also gets the images' timestep: 0 for clean images.

    Raises
    ------
    GradscopeError
        It does not give one row of floating-point logits for each image.
    """
    logits = as_logits(ask(classifier, copied(images, classifier), timestep))
    if len(logits) != len(images) or not logits.is_floating_point():
        raise GradscopeError(
            f"a classifier must give one row of floating-point logits for each image; for {len(images)} images this "
            f"one ({type(classifier).__name__}) gave {len(logits)} of type {str(logits.dtype).removeprefix('torch.')}"
        )
    return logits


def output_of(unet: nn.Module, x_t: Tensor, timestep: int) -> Tensor:
    """Output of a U-Net for a copy of x_t at one timestep, in the type of x_t.

    Raises
    ------
    GradscopeError
        The output is no floating-point tensor of the shape of x_t.
    """
    made = unet(copied(x_t, unet), torch.full((len(x_t),), timestep, device=x_t.device))
    output = made if isinstance(made, Tensor) else getattr(made, "sample", None)
    if not isinstance(output, Tensor) or output.shape != x_t.shape or not output.is_floating_point():
        got = f"{output.dtype} of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(made).__name__
        raise GradscopeError(
            f"denoiser: {type(unet).__name__} must give a tensor of the shape of x_t, {tuple(x_t.shape)}, or an object "
            f"with such a tensor as .sample; it gave {got}"
        )
    return output.to(x_t.dtype)


def copied(x: Tensor, model: Callable[..., Any]) -> Tensor:
    """A copy of x, in the type of the model's weights if it is a module that has some."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), x.dtype)
    return x.clone().to(dtype)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Set evaluation mode and let no parameter require a gradient; restore both on leaving."""
    training = {m: m.training for module in modules for m in module.modules()}
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    try:
        for module in modules:
            module.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter in trained:
            parameter.requires_grad_(True)
