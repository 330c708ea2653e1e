"""Real images that the final samples of a run are compared with."""

from typing import Annotated, Any

from pydantic import Field, Tag

from gradscope.config.classifiers import TimmClassifier
from gradscope.config.data import DataConfig
from gradscope.config.fields import PathText, Positive, Strict, form, form_of


class Inception(Strict):
    """The features of the Frechet Inception distance (FID)."""

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
    """Real images that `gradscope evaluate` compares the final samples with, and how."""

    extractor: ExtractorSpec | None = None
    """Classifier whose features are compared, or {inception: WEIGHTS}. null: zoo:SET/extractor for a zoo denoiser."""
    data: DataConfig | None = None
    """Data set whose held-out images are compared with the samples. null: the one on the denoiser's card."""
    samples: Annotated[int, Field(ge=4, lt=2**63)] = 8192
    """Largest number of real images."""
    replicates: Positive = 200
    """Number of bootstrap replicates, for intervals."""
