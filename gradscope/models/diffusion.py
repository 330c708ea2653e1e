"""Loading denoisers: from the zoo, from a card, from a diffusers pipeline, or from a user's own code."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel
from torch import nn

from gradscope.errors import GradscopeError
from gradscope.models import cards, foreign
from gradscope.models.decoder import Decoder
from gradscope.models.precision import channels_last, in_float32
from gradscope.models.schedulers import refuse_class

_DENOISERS, _AUTOENCODERS = ("unet", "transformer"), ("vae", "vqvae")
_WEIGHTS = re.compile(
    r"diffusion_pytorch_model(\.(?P<variant>\w+))?(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index(\.(?P<index>\w+))?\.json)?$"
)
"""File names of a diffusers model, with an optional variant (fp16, ema, ...) and number of the part."""


@dataclass(frozen=True)
class Denoiser:
    """A denoiser and the scheduler that it was trained with."""

    unet: nn.Module
    scheduler: Any
    name: str
    decoder: nn.Module | None = None
    """Maps latents to images, for a denoiser of latents."""


def load_denoiser(spec: str, device: torch.device | str = "cpu") -> Denoiser:
    """Load ``zoo:SET/NAME``, ``CARD.yaml``, ``package.module:callable``, or a diffusers directory or hub id.

    The callable takes no arguments and gives ``(unet, scheduler)``, ``(unet, scheduler, decoder)`` for a model of
    latents, or an object with them as attributes. A pipeline has a unet or a transformer, and an autoencoder (vae or
    vqvae) if it is latent.

    Raises
    ------
    GradscopeError
        The denoiser cannot be loaded, is conditioned on text, or its scheduler's steps are not exact.

    Examples
    --------
    >>> denoiser = gradscope.load_denoiser("zoo:sportballs32/ddpm")
    >>> type(denoiser.unet).__name__, type(denoiser.scheduler).__name__
    ('UNet2DModel', 'DDPMScheduler')
    """
    decoder = None
    if spec.startswith("zoo:") or spec.endswith(".yaml"):
        unet, scheduler = _from_card(cards.resolve(spec, "denoiser"))
    elif foreign.is_spec(spec):
        unet, scheduler, decoder = _parts(foreign.call(spec, "denoiser"), spec)
    else:
        unet, scheduler, decoder = _from_pipeline(spec)
    refuse_class(scheduler)
    if decoder is not None:
        decoder = in_float32(decoder, "denoiser").to(device)
    unet = channels_last(in_float32(unet, "denoiser").to(device))
    return Denoiser(unet, scheduler, spec, decoder)


def build_unet(card: cards.Card) -> UNet2DModel:
    return UNet2DModel(
        sample_size=card.data.size,
        in_channels=card.data.channels,
        out_channels=card.data.channels,
        **card.architecture["unet"],
    )


def _from_card(path: Path) -> tuple[nn.Module, Any]:
    card = cards.read(path, "denoiser")
    if card.kind != "denoiser":
        raise GradscopeError(f"denoiser: {path} is the card of a {card.kind}")
    unet = build_unet(card)
    cards.load_weights(path, card, unet, "denoiser")
    return unet, DDPMScheduler(**card.architecture["scheduler"])


def _parts(made: Any, spec: str) -> tuple[nn.Module, Any, nn.Module | None]:
    names = ("unet", "scheduler", "decoder")
    parts = made if isinstance(made, tuple) else tuple(getattr(made, name, None) for name in names)
    unet, scheduler, decoder = (*parts, None, None)[:3]
    if (
        not 2 <= len(parts) <= 3
        or not isinstance(unet, nn.Module)
        or not hasattr(scheduler, "config")
        or not isinstance(decoder, nn.Module | None)
    ):
        got = f"({', '.join(type(part).__name__ for part in made)})" if isinstance(made, tuple) else type(made).__name__
        raise GradscopeError(
            f"denoiser: {spec} must give (unet, scheduler) or (unet, scheduler, decoder), or an object with both as "
            f"attributes; it gave {got}"
        )
    return unet, scheduler, decoder


def _from_pipeline(spec: str) -> tuple[nn.Module, Any, nn.Module | None]:
    if os.path.isdir(spec) and not (Path(spec) / "model_index.json").is_file():
        raise GradscopeError(
            f"denoiser: {spec} has no model_index.json; a diffusers pipeline is saved by save_pretrained"
        )
    if not os.path.isdir(spec) and spec.count("/") != 1:
        raise GradscopeError(
            f"denoiser: no folder {spec!r}, and it is neither a hub id (user/name), nor zoo:SET/NAME, nor a card "
            "(CARD.yaml), nor package.module:callable"
        )
    try:
        _quiet()
        index = DiffusionPipeline.load_config(spec)  # only the list of parts, before anything heavy is loaded
        _refuse_parts(spec, index)
        pipeline = _pipeline(spec)
    except GradscopeError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise GradscopeError(
            f"denoiser: {spec!r} is neither in the zoo, nor a card, nor package.module:callable, and diffusers cannot "
            f"load it as a folder or hub id: {reason}"
        ) from error
    parts = pipeline.components
    autoencoder = next((parts[name] for name in _AUTOENCODERS if parts.get(name) is not None), None)
    denoiser = next(parts[name] for name in _DENOISERS if parts.get(name) is not None)
    return denoiser, pipeline.scheduler, None if autoencoder is None else Decoder(autoencoder)


def _pipeline(spec: str) -> Any:
    """The pipeline of a folder or hub id; from half-precision files if there are no others."""
    load = partial(DiffusionPipeline.from_pretrained, spec, low_cpu_mem_usage=False)
    if os.path.isdir(spec):
        return load(variant=_variant(Path(spec)))
    try:
        return load()
    except Exception:
        with suppress(Exception):  # the first error says more
            return load(variant="fp16")
        raise


def _variant(folder: Path) -> str | None:
    """The variant of the denoiser's files to ask diffusers for; None if there are files without a variant."""
    names = [
        _WEIGHTS.match(file.name) for part in _DENOISERS for file in (folder / part).glob("diffusion_pytorch_model*")
    ]
    variants = {found["variant"] or found["index"] for found in names if found is not None}
    if None in variants or not variants:
        return None
    if len(variants) > 1:
        raise GradscopeError(
            f"denoiser: {folder} has its denoiser only in the variants {', '.join(sorted(variants))}; keep one of "
            "them, or load the pipeline yourself: package.module:callable"
        )
    return variants.pop()


def _quiet() -> None:
    """Silence the hub's retries and diffusers' progress bar, which would bury the error."""
    huggingface_hub.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()


def _refuse_parts(spec: str, index: dict[str, Any]) -> None:
    """Raise GradscopeError for a pipeline of more parts than a denoiser, a scheduler and an autoencoder."""
    kind = index.get("_class_name", "pipeline")
    parts = [
        name
        for name, origin in index.items()
        if isinstance(origin, list) and len(origin) == 2 and origin[1] is not None
    ]
    if not set(_DENOISERS) & set(parts):
        raise GradscopeError(
            f"denoiser: {spec} is a {kind}, which has no unet and no transformer; its parts: "
            f"{', '.join(parts) or 'none'}"
        )
    further = [name for name in parts if name not in (*_DENOISERS, *_AUTOENCODERS, "scheduler")]
    if further:
        raise GradscopeError(
            f"denoiser: {spec} is a {kind} with {', '.join(further)}; gradscope's own sampler takes a denoiser, a "
            "scheduler and an autoencoder; record a pipeline with other parts by gradscope.watch(path, pipe)"
        )
    strangers = [f"{name} of {index[name][0]}" for name in parts if index[name][0] != "diffusers"]
    if strangers or not isinstance(kind, str):
        raise GradscopeError(
            f"denoiser: {spec} has {', '.join(strangers) or 'a pipeline of its own'}; only diffusers' own classes are "
            "loaded; load other code through package.module:callable"
        )
