"""The configuration of `gradscope audit`."""

from typing import Annotated

from pydantic import Field

from gradscope.config.classifiers import ClassifierSpec
from gradscope.config.data import DataConfig
from gradscope.config.fields import Count, Options, PathText, Positive, Strict, Text


class AuditConfig(Strict):
    """Classifiers, data and timesteps of an audit."""

    classifiers: Annotated[dict[Text, ClassifierSpec], Field(min_length=1)]
    """The classifiers to audit, by name: zoo:SET/NAME, CARD.yaml, package.module:callable, {module: ...}, or timm's
    keys."""
    denoiser: PathText = "none"
    """The denoiser that gives x0-hat, or none: then classifiers are audited at x_t alone."""
    scheduler: Options = {}
    """Keyword arguments of diffusers.DDPMScheduler. Only without a denoiser, which has a scheduler of its own."""
    data: DataConfig
    """The data set; its held-out images are noised."""
    class_index: dict[Text, Count] | None = None
    """The classifiers' number of each class of the data, by name. null: the classifiers number them as the data do."""
    timesteps: Annotated[int, Field(ge=2, lt=2**63)] = 20
    """Number of timesteps to audit, evenly spaced from the first to the last."""
    samples: Annotated[int, Field(ge=2, lt=2**63)] = 512
    """Number of held-out images, or all of them where there are fewer."""
    batch_size: Positive = 32
    """Number of images that go through the models together."""
    seed: Count = 0
    """Seed of the choice of images, the noise and the bootstrap."""
