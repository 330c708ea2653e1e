"""How a configuration names a classifier."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from gradscope.config.fields import Options, PathText, Positive, Strict, Text, form, form_of
from gradscope.config.loading import check


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


class ModuleClassifier(Strict):
    """A classifier of your own code."""

    module: Text
    """package.module:callable, which takes no arguments and gives the torch.nn.Module."""
    takes_timestep: bool | None = None
    """Whether the classifier is noise-aware: classifier(x, t). null: the signature of its forward says so."""


_MARKS = {
    "<module>": ("module", "takes_timestep"),
    "<measurement>": ("measurement",),
    "<energy>": ("energy", "target"),
    "<sum>": ("sum",),
}
"""By tag: the keys that only this mapping has. One without any of them is timm's."""


def form_of_mapping(value: Any) -> str | None:
    """The member of a union that a value is meant for; a mapping shows it by its keys."""
    given = value if isinstance(value, dict) else getattr(type(value), "model_fields", ())
    return next((tag for tag, keys in _MARKS.items() if any(key in given for key in keys)), form(value))


ClassifierSpec = Annotated[
    Annotated[PathText, Tag("<text>")]
    | Annotated[TimmClassifier, Tag("<mapping>")]
    | Annotated[ModuleClassifier, Tag("<module>")],
    form_of(
        "a name (zoo:SET/NAME, CARD.yaml, package.module:callable), a mapping of timm's keys, or {module: ...}",
        form_of_mapping,
    ),
]


def classifier_mapping(given: Mapping[str, Any], where: str) -> TimmClassifier | ModuleClassifier:
    """A mapping that names a classifier, checked; errors begin with `where`."""
    content = dict(given)
    if form_of_mapping(content) == "<module>":
        return check(ModuleClassifier, content, where)
    return check(TimmClassifier, content, where)
