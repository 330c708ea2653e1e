"""How a configuration names a classifier."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from gradscope.config.fields import Options, PathText, Positive, Strict, Text, form_of


class TimmClassifier(Strict):
    """A classifier by its timm name."""

    timm: Text
    """Name of a timm architecture."""
    checkpoint: PathText | None = None
    """Weights: a safetensors file, or a torch file that loads with weights_only. null: timm's pretrained weights.

    Names of layers may have a wrapper's prefix, and the weights may be an entry of the file, such as `state_dict`.
    """
    weights: Literal["ema", "raw"] | None = None
    """Which weights of the checkpoint to take. null: their moving average (ema) where there is one, as timm does."""
    num_classes: Positive
    """Number of classes."""
    mean: list[float] | None = None
    """Mean of each channel, for images in [0, 1]. null: timm's, averaged where its number of channels differs."""
    std: list[Annotated[float, Field(gt=0)]] | None = None
    """Standard deviation of each channel, for images in [0, 1]. null: timm's, averaged likewise."""
    options: Options = {}
    """Further keyword arguments of timm.create_model."""


ClassifierSpec = Annotated[
    Annotated[PathText, Tag("<text>")] | Annotated[TimmClassifier, Tag("<mapping>")],
    form_of("a name (zoo:SET/NAME, CARD.yaml, package.module:callable) or a mapping of timm's keys"),
]
