"""Loading a denoiser: a shipped one, one trained here, a diffusers pipeline, or the user's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel
from torch import nn

from gradscope.errors import GradscopeError
from gradscope.models import cards, foreign


@dataclass(frozen=True)
class Denoiser:
    """An unconditional denoiser with the scheduler it was trained for."""

    unet: nn.Module
    scheduler: Any
    name: str


def load_denoiser(spec: str, device: torch.device | str = "cpu") -> Denoiser:
    """Load ``zoo:SET/NAME``, ``CARD.yaml``, ``package.module:callable``, or a diffusers directory or hub id.

    A callable takes no arguments and gives ``(unet, scheduler)``, or an object with both as attributes.

    Raises
    ------
    GradscopeError
        It cannot be loaded, or it is a latent or conditional pipeline.
    """
    if spec.startswith("zoo:") or spec.endswith(".yaml"):
        unet, scheduler = _from_card(cards.resolve(spec, "denoiser"))
    elif foreign.is_spec(spec):
        made = foreign.load(spec, "denoiser")()
        unet, scheduler = made if isinstance(made, tuple) else (made.unet, made.scheduler)
    else:
        unet, scheduler = _from_pipeline(spec)
    return Denoiser(unet.to(device), scheduler, spec)


def build_unet(card: cards.Card) -> UNet2DModel:
    return UNet2DModel(
        sample_size=card.data.size,
        in_channels=card.data.channels,
        out_channels=card.data.channels,
        **card.architecture["unet"],
    )


def _from_card(path: Path) -> tuple[nn.Module, Any]:
    card = cards.read(path)
    if card.kind != "denoiser":
        raise GradscopeError(f"denoiser: {path} is the card of a {card.kind}")
    unet = build_unet(card)
    cards.load_weights(path, card, unet)
    return unet, DDPMScheduler(**card.architecture["scheduler"])


def _from_pipeline(spec: str) -> tuple[nn.Module, Any]:
    if Path(spec).is_dir() and not (Path(spec) / "model_index.json").is_file():
        raise GradscopeError(
            f"denoiser: {spec} has no model_index.json; a diffusers pipeline is saved by save_pretrained"
        )
    try:
        pipeline = DiffusionPipeline.from_pretrained(spec)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise GradscopeError(
            f"denoiser: {spec!r} is neither in the zoo, nor a card, nor package.module:callable, and diffusers cannot "
            f"load it as a folder or hub id: {reason}"
        ) from error
    conditioned = [
        part for part in ("vae", "vqvae", "text_encoder", "movq") if getattr(pipeline, part, None) is not None
    ]
    if conditioned:
        raise GradscopeError(
            f"denoiser: {spec} is a {type(pipeline).__name__} with {', '.join(conditioned)}; gradients are taken in "
            "pixel space, so latent and text-conditioned pipelines are not supported"
        )
    if not hasattr(pipeline, "unet"):
        raise GradscopeError(f"denoiser: {spec} is a {type(pipeline).__name__}, which has no unet")
    return pipeline.unet, pipeline.scheduler
