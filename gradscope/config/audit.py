"""The configuration of `gradscope probe-classifier`."""

from typing import Annotated, Any

from pydantic import Field

from gradscope.config.classifiers import ClassifierSpec
from gradscope.config.data import DataConfig
from gradscope.config.fields import PathText, Positive, Seed, Strict


class AuditConfig(Strict):
    """`gradscope probe-classifier`."""

    classifiers: Annotated[dict[str, ClassifierSpec], Field(min_length=1)]
    denoiser: PathText = "none"
    """For x0-hat; without one, classifiers are audited at x_t alone."""
    scheduler: dict[str, Any] = {}
    """Keyword arguments of `diffusers.DDPMScheduler`, where there is no denoiser, which has its own."""
    data: DataConfig
    class_index: dict[str, Annotated[int, Field(ge=0)]] | None = None
    """The classifiers' number of each class of the data; default: the classes of both are the same, in order."""
    timesteps: Annotated[int, Field(ge=2)] = 20
    """How many, evenly spaced over the schedule, both ends included."""
    samples: Annotated[int, Field(ge=2)] = 512
    """Held-out images; all there are, where there are fewer."""
    batch_size: Positive = 32
    seed: Seed = 0
