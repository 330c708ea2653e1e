"""What a sampler asks of a denoiser: the shape of its images, and that it takes x_t and t alone."""

from torch import nn

from gradscope.errors import GradscopeError


def image_shape(unet: nn.Module) -> tuple[int, int, int]:
    """Channel, height and width of a U-Net's images."""
    config = getattr(unet, "config", None)
    size = getattr(config, "sample_size", None)
    channels = getattr(config, "in_channels", None)
    if size is None or channels is None:
        raise GradscopeError(
            f"denoiser: {type(unet).__name__} lacks its image size; give it a `config` with sample_size and "
            "in_channels, as diffusers' UNet2DModel has"
        )
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def refuse_conditional(unet: nn.Module) -> None:
    """Raise GradscopeError for a U-Net that takes more than x_t and t, or predicts more than one tensor."""
    config = getattr(unet, "config", None)
    name = type(unet).__name__
    if getattr(config, "num_class_embeds", None) or getattr(config, "class_embed_type", None):
        raise GradscopeError(f"denoiser: {name} is class-conditional; classifier guidance takes an unconditional one")
    if getattr(config, "encoder_hid_dim", None) or "Condition" in name:
        raise GradscopeError(f"denoiser: {name} is conditioned on an encoder's states; take an unconditional one")
    channels, out = getattr(config, "in_channels", None), getattr(config, "out_channels", None)
    if channels is not None and out is not None and channels != out:
        raise GradscopeError(
            f"denoiser: {name} has {channels} input and {out} output channels; learned variances are not supported"
        )
