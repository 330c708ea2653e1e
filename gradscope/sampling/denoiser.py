"""What a sampler asks of a denoiser: the shape of its samples, its condition, and its output at a step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError, one_of, whole_number
from gradscope.models.calls import output_of

Given = Literal["none", "label", "unconditional"]


@dataclass(frozen=True)
class Condition:
    """Which class a class-conditional denoiser gets, and the scale of classifier-free guidance.

    Raises
    ------
    GradscopeError
        A setting is out of range.

    Examples
    --------
    >>> Condition("label", null_label=10, scale=3.0)
    Condition(given='label', null_label=10, scale=3.0)
    """

    given: Given = "none"
    """``none``: none, the denoiser takes x_t and t alone; ``label``: the target class; ``unconditional``: `null_label`,
    the class of no condition."""
    null_label: int | None = None
    """The class that stands for no condition; None: the last one that the denoiser knows."""
    scale: float = 1.0
    """w of classifier-free guidance (arXiv 2207.12598), the prediction u + w (c - u) of the unconditional u and the
    conditional c, by two passes of the denoiser; 1: the conditional one alone."""

    def __post_init__(self) -> None:
        if self.given not in get_args(Given):
            raise GradscopeError(f"sampling.condition: got {self.given!r}; {one_of(self.given, get_args(Given))}")
        if self.null_label is not None:
            whole_number(self.null_label, "sampling.null_label")
        if isinstance(self.scale, bool) or not isinstance(self.scale, Real) or not math.isfinite(self.scale):
            raise GradscopeError(f"sampling.classifier_free_scale: must be a finite number, got {self.scale!r}")
        if self.scale != 1 and self.given != "label":
            raise GradscopeError(
                f"sampling.classifier_free_scale: needs sampling.condition label, which is {self.given!r}; got "
                f"{self.scale:g}"
            )


UNCONDITIONAL = Condition()


def sample_shape(unet: nn.Module) -> tuple[int, ...]:
    """Shape of a denoiser's samples: channel, height, width of images, or any other.

    It is ``config.sample_shape`` if there is one; else diffusers' ``in_channels`` and ``sample_size``.
    """
    config = getattr(unet, "config", None)
    own = getattr(config, "sample_shape", None)
    if own is not None:
        return tuple(own)
    size, channels = getattr(config, "sample_size", None), getattr(config, "in_channels", None)
    if size is None or channels is None:
        raise GradscopeError(
            f"denoiser: {type(unet).__name__} lacks the shape of its samples; give it a `config` with sample_shape, or "
            "with sample_size and in_channels, as diffusers' UNet2DModel has"
        )
    if type(unet).__name__ == "UNet1DModel":
        return channels, size
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def classes_of(unet: nn.Module) -> int | None:
    """Number of classes that a denoiser knows, the null class included; None for an unconditional one."""
    config = getattr(unet, "config", None)
    number = getattr(config, "num_class_embeds", None)
    if number is not None:
        return int(number)
    number = getattr(config, "num_embeds_ada_norm", None)
    return None if number is None else int(number) + 1  # DiT adds the null class itself


def refuse_unfit(unet: nn.Module, condition: Condition, learns_variance: bool) -> None:
    """Raise GradscopeError for a denoiser that takes or gives other things than the sampler has."""
    config, name = getattr(unet, "config", None), type(unet).__name__
    known = classes_of(unet)
    if getattr(config, "class_embed_type", None):
        raise GradscopeError(
            f"denoiser: {name} takes an embedding of classes (class_embed_type), which is not supported; take one with "
            "num_class_embeds"
        )
    if known and condition.given == "none":
        raise GradscopeError(
            f"denoiser: {name} is class-conditional; set sampling.condition (condition= in Python) to label or "
            "unconditional"
        )
    if not known and condition.given != "none" and config is not None and not hasattr(config, "sample_shape"):
        raise GradscopeError(
            f"sampling.condition: {name} is unconditional (its config has no num_class_embeds), got "
            f"{condition.given!r}; set it to none"
        )
    null = condition.null_label
    if null is not None and (null < 0 or (known is not None and null >= known)):
        raise GradscopeError(f"sampling.null_label: the denoiser has classes 0 to {(known or 1) - 1}, got {null}")
    if getattr(config, "encoder_hid_dim", None) or "Condition" in name:
        raise GradscopeError(f"denoiser: {name} is conditioned on an encoder's states; take an unconditional one")
    channels, out = getattr(config, "in_channels", None), getattr(config, "out_channels", None)
    if channels is None or out is None:
        return
    if out not in (channels, 2 * channels):
        raise GradscopeError(
            f"denoiser: {name} has {channels} input and {out} output channels; it must give as many, or twice as many "
            "with a learned variance"
        )
    if learns_variance and out != 2 * channels:
        raise GradscopeError(
            f"scheduler: variance_type is learned, but {name} has {channels} input and {out} output channels, so it "
            "predicts no variance; take fixed_small or fixed_large"
        )


def denoise(
    unet: nn.Module, x: Tensor, t: Tensor, label: Tensor, condition: Condition, learns_variance: bool = False
) -> Tensor:
    """Output of the denoiser, ``(n, *sample)``, with a variance in as many further channels if it gives one.

    Parameters
    ----------
    unet
        The denoiser.
    x, t
        What it gets of noisy samples, and their timesteps, ``(n,)``.
    label
        Target classes, ``(n,)``.
    condition
        Which class it gets.
    learns_variance
        Whether the output must have a variance.
    """
    call: Callable[..., Tensor] = output_of
    if condition.given == "none":
        output = call(unet, x, t)
    elif condition.given == "unconditional":
        output = call(unet, x, t, _null(unet, label, condition))
    else:
        _check_label(unet, label)
        output = call(unet, x, t, label)
        if condition.scale != 1:
            output = _mixed(output, call(unet, x, t, _null(unet, label, condition)), x, condition.scale)
    if learns_variance and output.shape == x.shape:
        raise GradscopeError(
            f"scheduler: variance_type is learned, but {type(unet).__name__} predicts no variance: it gave a tensor of "
            f"the shape of x_t, {tuple(x.shape)}; take fixed_small or fixed_large"
        )
    return output


def _mixed(conditional: Tensor, unconditional: Tensor, x: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of the prediction; the variance is the conditional one's."""
    channels = x.shape[1]
    c, u = conditional[:, :channels], unconditional[:, :channels]
    return torch.cat([u + scale * (c - u), conditional[:, channels:]], dim=1)


def _null(unet: nn.Module, label: Tensor, condition: Condition) -> Tensor:
    null = condition.null_label
    if null is None:
        if (known := classes_of(unet)) is None:
            raise GradscopeError(
                f"sampling.null_label: {type(unet).__name__} does not say how many classes it knows; give the class "
                "that stands for no condition"
            )
        null = known - 1
    return torch.full_like(label, null)


def _check_label(unet: nn.Module, label: Tensor) -> None:
    known: Any = classes_of(unet)
    outside = label[(label < 0) | (label >= (known or 2**62))]
    if len(outside):
        raise GradscopeError(f"labels: the denoiser has classes 0 to {known - 1}, got {int(outside[0])}")
