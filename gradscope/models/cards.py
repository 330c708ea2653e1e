"""Weights with a card: NAME.safetensors beside NAME.yaml, which describes the model and its measured quality."""

import hashlib
import os
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import nn

from gradscope.config import DataConfig, Options, Strict, Text, check, read_yaml
from gradscope.errors import GradscopeError, one_of


class Metric(Strict):
    """A measured number of a model."""

    value: float
    """The number."""
    n: int
    """Number of images, or of images and timesteps drawn together."""
    interval: list[float] | None = None
    """95 % interval: Wilson's for shares. null: the metric has none."""
    about: Text = ""
    """Description of the measurement."""


class Card(Strict):
    """Origin and measured quality of a weights file."""

    kind: Literal["denoiser", "classifier"]
    """Denoiser or classifier."""
    architecture: Options
    """How the model is built. Denoiser: `unet` and `scheduler`. Classifier: `timm` and `options`, further how its
    training images were made (`scheduler`, `timesteps`, `adversarial`), and `num_train_timesteps` if it takes t."""
    classes: list[Text]
    """Names of the classes, in the order of the labels."""
    data: DataConfig
    """The data set that the model was trained on."""
    train_on: Literal["clean", "x_t"]
    """Clean images, or noised ones (x_t)."""
    seed: int
    """Seed of the training."""
    steps: int
    """Number of optimiser steps."""
    batch_size: int
    """Number of images per step."""
    duration: float
    """Seconds of training."""
    device: Text
    """Device of the training."""
    versions: dict[Text, Text]
    """Versions of the packages that trained the model."""
    sha256: Text
    """SHA-256 of the weights file."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Logits are divided by it at loading (arXiv 1706.04599)."""
    metrics: dict[Text, Metric] = {}
    """Measured on the weights as stored (float16), on held-out data."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = {"denoiser": ("unet", "scheduler"), "classifier": ("timm", "options")}[self.kind]
        missing = [key for key in needed if key not in self.architecture]
        if missing:
            raise ValueError(f"architecture: a {self.kind} has {' and '.join(needed)}; {' and '.join(missing)} missing")
        return self


def resolve(name: str, where: str) -> Path:
    """Path of the card of ``zoo:SET/NAME`` or ``PATH.yaml``; `where` is the configuration's key, for errors."""
    if not name.startswith("zoo:"):
        path = Path(name)
    else:
        zoo = Path(str(resources.files("gradscope"))) / "models" / "zoo"
        path = zoo / f"{name.removeprefix('zoo:')}.yaml"
        if not os.path.isfile(path):
            names = sorted(f"zoo:{p.relative_to(zoo).with_suffix('')}" for p in zoo.rglob("*.yaml"))
            raise GradscopeError(f"{where}: no {name!r} in the zoo; {one_of(name, names)}")
    if not os.path.isfile(path):
        raise GradscopeError(f"{where}: no card at {name!r}")
    return path


def read(path: Path, where: str = "") -> Card:
    """Read the card at `path`; `where` is the configuration's key, for errors."""
    return check(Card, read_yaml(path, f"{_at(where, path)}, a card,"), _at(where, path))


def write(path: Path, card: Card) -> None:
    yaml = YAML()
    yaml.width = 120
    yaml.dump(card.model_dump(mode="json"), path)


def save_weights(path: Path, model: nn.Module) -> str:
    """Write the model's state as float16 safetensors beside the card `path`; return the file's SHA-256."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    weights = path.with_suffix(".safetensors")
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, weights)
    weights.chmod(0o644)
    return file_hash(weights)


def load_weights(path: Path, card: Card, model: nn.Module, where: str = "") -> None:
    """Load the weights beside the card `path` into `model` as float32, after checking their hash."""
    weights = path.with_suffix(".safetensors")
    if not weights.is_file():
        raise GradscopeError(f"{_at(where, path)}: its weights {weights.name} are missing")
    if file_hash(weights) != card.sha256:
        raise GradscopeError(
            f"{_at(where, weights)}: its SHA-256 differs from the card's: it is damaged or belongs to another card"
        )
    try:
        state = load_file(weights)
    except Exception as error:  # safetensors raises several types
        raise GradscopeError(f"{_at(where, weights)} cannot be read as safetensors: {error}") from error
    load_state(model, state, _at(where, weights))


def load_state(model: nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Load `state` into `model`; an error names layers that are missing, left over or of another shape."""
    own = model.state_dict()
    wrong = [f"{k} is missing" for k in own if k not in state]
    wrong += [f"{k} is left over" for k in state if k not in own]
    wrong += [
        f"{k} has shape {tuple(state[k].shape)}, the model wants {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise GradscopeError(f"{where} does not fit the model: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()})


def _at(where: str, path: Path) -> str:
    return f"{where}: {path}" if where else str(path)


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
