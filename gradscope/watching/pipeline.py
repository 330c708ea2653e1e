"""Find the parts of a diffusers pipeline."""

from typing import Any, NamedTuple

from torch import nn

from gradscope.errors import GradscopeError

_DENOISERS = ("unet", "transformer", "prior", "dit")


class Parts(NamedTuple):
    """What is watched of a pipeline."""

    denoiser: nn.Module
    scheduler: Any
    latent: bool
    """Whether its samples are latents, which a decoder turns into images."""
    packed: bool
    """Whether a sample is a row of tokens, not a picture of latents."""


def parts_of_pipeline(pipe: Any) -> Parts:
    """The denoiser and scheduler of a diffusers pipeline.

    Raises
    ------
    GradscopeError
        It has no denoiser or scheduler under diffusers' names.
    """
    name = type(pipe).__name__
    # `is not None`, because compiled modules have no truth value.
    denoiser = next((found for part in _DENOISERS if (found := getattr(pipe, part, None)) is not None), None)
    scheduler = getattr(pipe, "scheduler", None)
    if denoiser is None or scheduler is None:
        lacking = f"none of {', '.join(_DENOISERS)}" if denoiser is None else "no scheduler"
        raise GradscopeError(f"pipe: {name} has {lacking}; give denoiser=... and scheduler=...")
    latent = any(getattr(pipe, part, None) is not None for part in ("vae", "vqvae", "movq"))
    packed = "Flux" in name or "QwenImage" in name
    return Parts(denoiser, scheduler, latent, packed)


def dims_of(parts: Parts, rank: int) -> tuple[str, ...]:
    """Names of a sample's dimensions; latents are named so, since their channels are no colours."""
    if not parts.latent:
        return ()
    if parts.packed and rank == 2:
        return "token", "latent"
    return {3: ("latent", "height", "width"), 4: ("latent", "frame", "height", "width")}.get(rank, ())
