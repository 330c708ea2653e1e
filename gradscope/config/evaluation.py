"""What the final samples of a run are compared with."""

from typing import Annotated, Any

from pydantic import Field, Tag

from gradscope.config.classifiers import TimmClassifier
from gradscope.config.data import DataConfig
from gradscope.config.fields import PathText, Positive, Strict, form, form_of


class Inception(Strict):
    """The features of FID."""

    inception: PathText
    """Weights file of torch-fidelity's Inception v3."""


def _extractor_form(value: Any) -> str | None:
    inception = isinstance(value, Inception) or (isinstance(value, dict) and "inception" in value)
    return "<inception>" if inception else form(value)


ExtractorSpec = Annotated[
    Annotated[PathText, Tag("<text>")]
    | Annotated[TimmClassifier, Tag("<mapping>")]
    | Annotated[Inception, Tag("<inception>")],
    form_of("a classifier, as under `classifiers`, or {inception: WEIGHTS}", _extractor_form),
]


class EvaluationConfig(Strict):
    """`gradscope evaluate`: what the final samples are compared with."""

    extractor: ExtractorSpec | None = None
    """Default: `zoo:SET/extractor` for a denoiser of that set."""
    data: DataConfig | None = None
    """Default: that of the denoiser's card. Its held-out split is used."""
    samples: Annotated[int, Field(ge=4)] = 8192
    """At most so many real images."""
    replicates: Positive = 200
    """Of the bootstrap."""
