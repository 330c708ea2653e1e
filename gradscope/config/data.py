"""How a configuration names a data set."""

from typing import Annotated, Literal

from pydantic import Field

from gradscope.config.fields import PathText, Positive, Strict


class DataConfig(Strict):
    """A data set by one key; see `gradscope.data.datasets`."""

    name: str
    """`sportballs`, `fashion_mnist`, `image_folder`, or `torchvision/NAME`."""
    size: Positive = 32
    channels: Literal[1, 3] = 3
    path: PathText | None = None
    """Folder of the data's files; of `image_folder` one folder a class, in natural order (0, 1, 2, ..., 10)."""
    samples: Positive = 100_000
    """Number of training images (SportBalls only)."""
    seed: Annotated[int, Field(ge=0, lt=2**61)] = 0
