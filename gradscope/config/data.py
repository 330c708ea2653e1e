"""How a configuration names a data set."""

from typing import Annotated, Literal

from pydantic import Field

from gradscope.config.fields import PathText, Positive, Strict, Text


class DataConfig(Strict):
    """A data set; see `gradscope.data.datasets`."""

    name: Text
    """sportballs, fashion_mnist, image_folder, or torchvision/NAME."""
    size: Positive = 32
    """Side of the square images, in pixels."""
    channels: Literal[1, 3] = 3
    """1 for grey images, 3 for colour."""
    path: PathText | None = None
    """Folder of the data's files. An image_folder has one folder per class, in natural order (0, 2, ..., 10)."""
    samples: Positive = 100_000
    """Number of training images (sportballs only)."""
    seed: Annotated[int, Field(ge=0, lt=2**61)] = 0
    """Seed of the images (sportballs only)."""
