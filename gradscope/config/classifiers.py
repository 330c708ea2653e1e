"""How a configuration names a classifier."""

from typing import Annotated, Any

from pydantic import Field, Tag

from gradscope.config.fields import PathText, Positive, Strict, form_of


class TimmClassifier(Strict):
    """A classifier by its timm name."""

    timm: str
    """Name of a timm architecture."""
    checkpoint: PathText | None = None
    """Safetensors file (or a .pt file that loads with `weights_only`); without it, timm's pretrained weights."""
    num_classes: Positive
    mean: list[float] | None = None
    """Per channel, of images in [0, 1]; default: what timm's card of the model says."""
    std: list[Annotated[float, Field(gt=0)]] | None = None
    options: dict[str, Any] = {}
    """Further keyword arguments of `timm.create_model`."""


ClassifierSpec = Annotated[
    Annotated[PathText, Tag("<text>")] | Annotated[TimmClassifier, Tag("<mapping>")],
    form_of("a name (zoo:SET/NAME, CARD.yaml, package.module:callable) or a mapping of timm's keys"),
]
