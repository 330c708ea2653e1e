"""Loading a classifier: a shipped one, one trained here, a timm name with weights, or the user's own."""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gradscope.config import TimmClassifier
from gradscope.errors import GradscopeError
from gradscope.models import cards, foreign


@dataclass(frozen=True)
class Classifier:
    """A classifier of images in [-1, 1]."""

    module: nn.Module
    """``(n, channel, height, width)`` -> logits ``(n, num_classes)``."""
    num_classes: int
    classes: tuple[str, ...] | None
    """Names of the classes, where they are known."""


class Normalized(nn.Module):
    """A classifier of images in [-1, 1] made of one that wants ``((x + 1) / 2 - mean) / std``."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.module(((x + 1) / 2 - self.mean) / self.std)


def load_classifier(
    spec: str | TimmClassifier | nn.Module,
    where: str,
    image_shape: tuple[int, int, int],
    device: torch.device | str = "cpu",
) -> Classifier:
    """Load a classifier and check it on an image of `image_shape` (channel, height, width).

    Parameters
    ----------
    spec
        ``zoo:SET/NAME``, ``CARD.yaml``, ``package.module:callable`` (no arguments, gives the module), a timm model, or
        the module itself.
    where
        The configuration's key, for errors.

    Raises
    ------
    GradscopeError
        It cannot be loaded, or it does not take such images.
    """
    classes = None
    if isinstance(spec, nn.Module):
        module = spec
    elif isinstance(spec, TimmClassifier):
        module = _from_timm(spec, where, image_shape[0])
    elif spec.startswith("zoo:") or spec.endswith(".yaml"):
        module, classes = _from_card(cards.resolve(spec, where), where, image_shape)
    elif foreign.is_spec(spec):
        module = foreign.call(spec, where)
        if not isinstance(module, nn.Module):
            raise GradscopeError(f"{where}: {spec} gives a torch.nn.Module, this one gave {type(module).__name__}")
    else:
        raise GradscopeError(
            f"{where}: got {spec!r}; possible: zoo:SET/NAME, a card CARD.yaml, package.module:callable, or a mapping "
            "{timm: NAME, checkpoint: FILE, num_classes: N}"
        )
    module = module.to(device).to(memory_format=torch.channels_last).eval()  # convolutions are faster so, on CPUs too
    try:
        with torch.no_grad():
            logits = module(torch.zeros(2, *image_shape, device=device))
    except Exception as error:
        shape = " x ".join(map(str, image_shape))
        raise GradscopeError(
            f"{where}: the classifier does not take images of {shape} (channel, height, width), which the denoiser "
            f"makes: {error}"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise GradscopeError(f"{where}: a classifier gives logits of shape (n, classes), this one gave {got} for n = 2")
    return Classifier(module, logits.shape[1], classes)


def build_classifier(
    name: str, num_classes: int, channels: int, options: dict, where: str = "timm", pretrained: bool = False
) -> nn.Module:
    """A timm model; `where` is the configuration key, for errors."""
    if not timm.is_model(name.partition(".")[0]) and ":" not in name:
        close = get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise GradscopeError(f"{where}: timm has no model {name!r}; {hint}timm.list_models() names them all")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **options)
    except Exception as error:
        raise GradscopeError(f"{where}: timm cannot build {name!r} with options {options}: {error}") from error


def _from_card(path: Path, where: str, image_shape: tuple[int, int, int]) -> tuple[nn.Module, tuple[str, ...]]:
    card = cards.read(path, where)
    if card.kind != "classifier":
        raise GradscopeError(f"{where}: {path} is the card of a {card.kind}")
    made_for = (card.data.channels, card.data.size, card.data.size)
    if made_for != image_shape:
        wanted, got = (" x ".join(map(str, shape)) for shape in (made_for, image_shape))
        raise GradscopeError(
            f"{where}: {path.stem} was trained on images of {wanted} (channel, height, width), the denoiser makes {got}"
        )
    module = build_classifier(
        card.architecture["timm"], len(card.classes), card.data.channels, card.architecture["options"], where
    )
    cards.load_weights(path, card, module, where)
    return module, tuple(card.classes)


def _from_timm(spec: TimmClassifier, where: str, channels: int) -> nn.Module:
    pretrained = spec.checkpoint is None
    if pretrained:
        _refuse_random_head(spec, where)
    module = build_classifier(spec.timm, spec.num_classes, channels, spec.options, f"{where}.timm", pretrained)
    if spec.checkpoint is not None:
        built = f"{spec.timm} with {channels} channels and {spec.num_classes} classes"
        state = _checkpoint(Path(spec.checkpoint), where)
        cards.load_state(module, state, f"{where}.checkpoint: {spec.checkpoint} ({built})")
    data = timm.data.resolve_model_data_config(module)
    normalisation = {}
    for key in ("mean", "std"):
        given = getattr(spec, key)
        values = list(data[key]) if given is None else given
        if len(values) != channels:
            raise GradscopeError(
                f"{where}.{key}: one number a channel; the denoiser makes {channels} channels, got {values}"
            )
        normalisation[key] = values
    return Normalized(module, **normalisation)


def _refuse_random_head(spec: TimmClassifier, where: str) -> None:
    """Raise GradscopeError where timm's pretrained weights have another number of classes: a random last layer."""
    known = timm.get_pretrained_cfg(spec.timm)
    if known is not None and known.num_classes != spec.num_classes:
        raise GradscopeError(
            f"{where}.checkpoint: this key is missing, and timm's pretrained weights of {spec.timm} have "
            f"{known.num_classes} classes, got num_classes {spec.num_classes}"
        )


def _checkpoint(path: Path, where: str) -> dict[str, Tensor]:
    if not os.path.isfile(path):
        raise GradscopeError(f"{where}.checkpoint: no file {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise GradscopeError(f"{where}.checkpoint: {path} cannot be read as weights: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise GradscopeError(
            f"{where}.checkpoint: {path} is not a mapping of layers to tensors, nor one with `state_dict`"
        )
    return state
