"""How a configuration names a classifier."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from gradscope.config.fields import PathText, Positive, Strict, form_of


class TimmClassifier(Strict):
    """A classifier by its timm name."""

    timm: str
    """Name of a timm architecture."""
    checkpoint: PathText | None = None
    """Safetensors file, or one of torch that loads with `weights_only`; without it, timm's pretrained weights.

    The names may have a prefix that a wrapper gave them, and the weights may be an entry of the file: `state_dict`, ...
    """
    weights: Literal["ema", "raw"] | None = None
    """Which of a checkpoint's; default: their moving average where there is one, as timm does, and a line says so."""
    num_classes: Positive
    mean: list[float] | None = None
    """Per channel, of images in [0, 1]; default: timm's for the model, averaged where it has another number.""" ""
    std: list[Annotated[float, Field(gt=0)]] | None = None
    options: dict[str, Any] = {}
    """Further keyword arguments of `timm.create_model`."""


ClassifierSpec = Annotated[
    Annotated[PathText, Tag("<text>")] | Annotated[TimmClassifier, Tag("<mapping>")],
    form_of("a name (zoo:SET/NAME, CARD.yaml, package.module:callable) or a mapping of timm's keys"),
]
