"""Adversarial images for training: projected gradient ascent of the loss (PGD, arXiv 1706.06083)."""

import torch
from torch import Tensor, nn

from gradscope.config import AdversarialConfig
from gradscope.models.calls import evaluating


def attacked(model: nn.Module, images: Tensor, labels: Tensor, config: AdversarialConfig) -> Tensor:
    """Images moved within a radius so that the cross-entropy of `labels` grows (equation 2.1 of arXiv 1706.06083).

    Each step follows the gradient (l2), or its sign (linf), then projects onto the ball around the image and onto
    the range [-1, 1]. The start is uniform in the ball. The model is in evaluation mode meanwhile, so that its batch
    statistics and dropout are those of no attack; its parameters get no gradient. The random numbers are those of
    torch's global generator.

    Parameters
    ----------
    model
        A classifier from images to logits ``(n, classes)``.
    images, labels
        Images ``(n, channel, height, width)`` in [-1, 1], and their classes ``(n,)``.
    config
        Norm, radius, number of steps, and step size.

    Returns
    -------
    Tensor
        ``(n, channel, height, width)``, in [-1, 1], none further than the radius from its image.
    """
    size = 2.5 * config.radius / config.steps if config.step_size is None else config.step_size
    moved = (images + _start(images, config)).clamp(-1, 1)
    with evaluating(model), torch.enable_grad():
        for _ in range(config.steps):
            x = moved.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model(x).float(), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            step = gradient.sign() if config.norm == "linf" else _unit(gradient)
            shift = _projected(moved + size * step - images, config)
            moved = (images + shift).clamp(-1, 1)
    return moved.detach()


def _start(images: Tensor, config: AdversarialConfig) -> Tensor:
    """Shifts drawn uniformly from the ball."""
    if config.norm == "linf":
        return (2 * torch.rand_like(images) - 1) * config.radius
    share = torch.rand(len(images), 1, 1, 1, device=images.device) ** (1 / images[0].numel())
    return _unit(torch.randn_like(images)) * share * config.radius


def _projected(shift: Tensor, config: AdversarialConfig) -> Tensor:
    """The nearest shifts within the ball. Both this and the clamp to [-1, 1] only shorten a shift."""
    if config.norm == "linf":
        return shift.clamp(-config.radius, config.radius)
    length = torch.linalg.vector_norm(shift, dim=(1, 2, 3), keepdim=True)
    return shift * (config.radius / length.clamp(min=config.radius))


def _unit(x: Tensor) -> Tensor:
    """Each sample divided by its l2 norm, without underflow; a zero stays zero."""
    largest = x.abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = x / largest.where(largest > 0, 1)
    length = torch.linalg.vector_norm(scaled, dim=(1, 2, 3), keepdim=True)
    return scaled / length.where(length > 0, 1)
