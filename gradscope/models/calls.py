"""Calls of users' models: they get a copy of the input in the type of their weights, and their output is checked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError
from gradscope.models.foreign import failure
from gradscope.models.logits import as_logits
from probes.timed import ask


def logits_of(classifier: nn.Module, images: Tensor, timestep: float = 0) -> Tensor:
    """Logits ``(n, classes)`` of samples ``(n, *sample)``; see `as_logits`.

    The classifier gets a copy, in case it works in place. Gradients pass through the copy. A noise-aware classifier
    also gets the samples' timestep: 0 for clean ones.

    Raises
    ------
    GradscopeError
        It does not give one row of floating-point logits for each sample.
    """
    logits = as_logits(ask(classifier, copied(images, classifier), timestep))
    if len(logits) != len(images) or not logits.is_floating_point():
        raise GradscopeError(
            f"a classifier must give one row of floating-point logits for each image; for {len(images)} images this "
            f"one ({type(classifier).__name__}) gave {len(logits)} of type {str(logits.dtype).removeprefix('torch.')}"
        )
    return logits


def output_of(unet: nn.Module, x: Tensor, t: Tensor, classes: Tensor | None = None) -> Tensor:
    """Output of a denoiser for a copy of noisy samples, in their type.

    Parameters
    ----------
    unet
        The denoiser: ``unet(x, t)``, or ``unet(x, t, class_labels=classes)``.
    x, t, classes
        Noisy samples ``(n, *sample)``, their timesteps ``(n,)``, and classes ``(n,)``.

    Returns
    -------
    Tensor
        ``(n, *sample)``, or with twice as many channels, the second half a variance.

    Raises
    ------
    GradscopeError
        The output is no floating-point tensor of such a shape.
    """
    further = {} if classes is None else {"class_labels": classes}
    try:
        made = unet(copied(x, unet), t, **further)
    except (GradscopeError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shape = " x ".join(map(str, x.shape[1:]))
        raise failure(f"{type(unet).__name__}, on samples of {shape},", "denoiser", error) from error
    output = made if isinstance(made, Tensor) else getattr(made, "sample", None)
    with_variance = (len(x), 2 * x.shape[1], *x.shape[2:]) if x.ndim > 2 else None
    if (
        not isinstance(output, Tensor)
        or tuple(output.shape) not in (tuple(x.shape), with_variance)
        or not output.is_floating_point()
    ):
        got = f"{output.dtype} of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(made).__name__
        raise GradscopeError(
            f"denoiser: {type(unet).__name__} must give a tensor of the shape of x_t, {tuple(x.shape)}, or an object "
            f"with such a tensor as .sample (or with twice the channels, with a variance); it gave {got}"
        )
    return output.to(x.dtype)


def copied(x: Tensor, model: Callable[..., Any]) -> Tensor:
    """A copy of x, in the type of the model's weights if it is a module that has some."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), x.dtype)
    return x.clone().to(dtype)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Set evaluation mode and let no parameter require a gradient; restore both on leaving."""
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    with evaluating(*modules):
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Set evaluation mode; restore the mode of each part on leaving."""
    training = {m: m.training for module in modules for m in module.modules()}
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
