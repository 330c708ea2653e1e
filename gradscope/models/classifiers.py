"""Loading classifiers: from the zoo, from a card, by timm's name, or from a user's own code."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from gradscope.config import ModuleClassifier, TimmClassifier
from gradscope.errors import GradscopeError, GradscopeWarning
from gradscope.models import cards, foreign
from gradscope.models.checkpoints import load_checkpoint
from gradscope.models.logits import Logits, TimedLogits, as_logits, probabilities, tempered, timed
from gradscope.models.precision import channels_last, in_float32
from gradscope.text import samples_of
from probes.timed import ask, takes_timestep


@dataclass(frozen=True)
class Classifier:
    """A classifier of samples, for example of images in [-1, 1]."""

    module: nn.Module
    """``(n, *sample)`` -> logits ``(n, num_classes)``; a noise-aware one takes timesteps, too."""
    num_classes: int
    classes: tuple[str, ...] | None
    """Names of the classes; None if they are unknown."""


class Normalized(nn.Module):
    """A classifier of images in [-1, 1] around one that takes ``((x + 1) / 2 - mean) / std``."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.module(((x + 1) / 2 - self.mean) / self.std)


class NoiseAware(nn.Module):
    """A classifier f(x, t) around one with one more input channel, which holds t / num_train_timesteps."""

    def __init__(self, module: nn.Module, num_train_timesteps: int) -> None:
        super().__init__()
        self.module = module
        self.num_train_timesteps = num_train_timesteps

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = (t.to(x.dtype) / self.num_train_timesteps).view(-1, 1, 1, 1)
        return self.module(torch.cat([x, time.expand(-1, 1, *x.shape[2:])], dim=1))


def load_classifier(
    spec: str | TimmClassifier | ModuleClassifier | nn.Module,
    where: str,
    image_shape: tuple[int, ...],
    device: torch.device | str = "cpu",
) -> Classifier:
    """Load a classifier and check it on a sample of `image_shape`: channel, height, width of an image, or any other.

    A warning says if its outputs are probabilities already.

    Parameters
    ----------
    spec
        ``zoo:SET/NAME``, ``CARD.yaml``, ``package.module:callable`` (takes no arguments, gives the module), the same
        as a `ModuleClassifier`, a timm model, or the module itself.
    where
        The configuration's key, for errors.

    Raises
    ------
    GradscopeError
        The classifier cannot be loaded, or does not take such samples.
    """
    classes = None
    if isinstance(spec, nn.Module):
        module = spec
    elif isinstance(spec, TimmClassifier):
        _refuse_other_than_images(spec, where, image_shape)
        module = _from_timm(spec, where, image_shape[0])
    elif isinstance(spec, ModuleClassifier):
        module = timed(_from_module(spec.module, f"{where}.module"), spec.takes_timestep)
    elif spec.startswith("zoo:") or spec.endswith(".yaml"):
        module, classes = _from_card(cards.resolve(spec, where), where, image_shape)
    elif foreign.is_spec(spec):
        module = _from_module(spec, where)
    else:
        raise GradscopeError(
            f"{where}: got {spec!r}; possible: zoo:SET/NAME, a card CARD.yaml, package.module:callable, or a mapping "
            "{timm: NAME, checkpoint: FILE, num_classes: N} or {module: package.module:callable}"
        )
    module = channels_last(in_float32(module, where).to(device)).eval()
    module, num_classes = _checked(module, where, torch.zeros(2, *image_shape, device=device))
    if classes is not None and len(classes) != num_classes:
        raise GradscopeError(f"{where}: it gives {num_classes} logits, but its card names {len(classes)} classes")
    return Classifier(module, num_classes, classes)


def _checked(module: nn.Module, where: str, images: Tensor) -> tuple[nn.Module, int]:
    """The classifier with logits as its output, and the number of its classes."""
    try:
        with torch.no_grad():
            output = ask(module, images.clone(), 0)
    except Exception as error:
        raise GradscopeError(
            f"{where}: the classifier does not take {samples_of(images.shape[1:])}, as the denoiser makes them: {error}"
        ) from error
    try:
        logits = as_logits(output)
    except GradscopeError as error:
        raise GradscopeError(f"{where}: {error} for n = {len(images)}") from None
    if len(logits) != len(images):
        raise GradscopeError(
            f"{where}: a classifier must give logits of shape (n, classes), it gave {tuple(output.shape)} for n = 2"
        )
    if made := probabilities(module, images):
        warnings.warn(
            f"{where}: its outputs are probabilities already ({made}); gradscope applies softmax to them again, so "
            "gradients and probabilities differ from the classifier's. Remove its last function, so that it gives "
            "logits",
            GradscopeWarning,
            stacklevel=3,
        )
    wrapper = TimedLogits if takes_timestep(module) else Logits
    return (module if logits is output else wrapper(module)), logits.shape[1]


def _refuse_other_than_images(spec: TimmClassifier, where: str, shape: tuple[int, ...]) -> None:
    """Raise GradscopeError for samples that a timm model cannot take."""
    if len(shape) != 3:
        raise GradscopeError(
            f"{where}.timm: {spec.timm} takes images (channel, height, width), but the denoiser makes "
            f"{samples_of(shape)}; give a model of your own: {{module: package.module:callable}}"
        )


def build_classifier(
    name: str, num_classes: int, channels: int, options: dict, where: str = "timm", pretrained: bool = False
) -> nn.Module:
    """Build a timm model; `where` is the configuration's key, for errors."""
    if not timm.is_model(name.partition(".")[0]) and ":" not in name:
        close = get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise GradscopeError(f"{where}: timm has no model {name!r}; {hint}timm.list_models() lists all")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **options)
    except Exception as error:
        raise GradscopeError(f"{where}: timm cannot build {name!r} with options {options}: {error}") from error


def build_trained(architecture: Mapping[str, Any], num_classes: int, channels: int, where: str = "timm") -> nn.Module:
    """Build the classifier of a card's `architecture`; one with `num_train_timesteps` takes a timestep."""
    timesteps = architecture.get("num_train_timesteps")
    further = 0 if timesteps is None else 1
    net = build_classifier(architecture["timm"], num_classes, channels + further, architecture["options"], where)
    return net if timesteps is None else NoiseAware(net, timesteps)


def _from_module(spec: str, where: str) -> nn.Module:
    module = foreign.call(spec, where)
    if not isinstance(module, nn.Module):
        raise GradscopeError(f"{where}: {spec} must give a torch.nn.Module, it gave {type(module).__name__}")
    return module


def _from_card(path: Path, where: str, image_shape: tuple[int, ...]) -> tuple[nn.Module, tuple[str, ...]]:
    card = cards.read(path, where)
    if card.kind != "classifier":
        raise GradscopeError(f"{where}: {path} is the card of a {card.kind}")
    made_for = (card.data.channels, card.data.size, card.data.size)
    if made_for != image_shape:
        raise GradscopeError(
            f"{where}: {path.stem} was trained on {samples_of(made_for)}, but the denoiser makes "
            f"{samples_of(image_shape)}"
        )
    module = build_trained(card.architecture, len(card.classes), card.data.channels, where)
    cards.load_weights(path, card, module, where)
    return tempered(module, card.temperature), tuple(card.classes)


def _from_timm(spec: TimmClassifier, where: str, channels: int) -> nn.Module:
    pretrained = spec.checkpoint is None
    if pretrained:
        if spec.weights is not None:
            raise GradscopeError(
                f"{where}.weights: chooses the weights of a checkpoint, but {where}.checkpoint is missing"
            )
        _refuse_random_head(spec, where)
    module = build_classifier(spec.timm, spec.num_classes, channels, spec.options, f"{where}.timm", pretrained)
    if spec.checkpoint is not None:
        built = f"{spec.timm} with {channels} channels and {spec.num_classes} classes"
        load_checkpoint(module, Path(spec.checkpoint), where, spec.weights, built)
    data = timm.data.resolve_model_data_config(module)
    return Normalized(module, *(_of_channels(spec, key, data[key], where, channels) for key in ("mean", "std")))


def _of_channels(
    spec: TimmClassifier, key: Literal["mean", "std"], default: tuple[float, ...], where: str, channels: int
) -> list[float]:
    """Mean or standard deviation of each channel. If timm's have another number of channels, they are averaged."""
    given = getattr(spec, key)
    if given is None:
        return list(default) if len(default) == channels else [sum(default) / len(default)] * channels
    if len(given) != channels:
        raise GradscopeError(
            f"{where}.{key}: must have one number per channel; the denoiser makes {channels} channels, got {given}"
        )
    return given


def _refuse_random_head(spec: TimmClassifier, where: str) -> None:
    """Raise GradscopeError if timm's pretrained weights have other classes: the last layer would be random."""
    known = timm.get_pretrained_cfg(spec.timm)
    if known is not None and known.num_classes != spec.num_classes:
        raise GradscopeError(
            f"{where}.checkpoint: this key is missing, and timm's pretrained weights of {spec.timm} have "
            f"{known.num_classes} classes, got num_classes {spec.num_classes}"
        )
